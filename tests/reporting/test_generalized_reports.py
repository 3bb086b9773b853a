"""Reports, equations and tables of generalised models: everything is there, and no more is
claimed.
"""

import functools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace

ROWS = pd.read_csv(Path(__file__).parents[1] / "reference" / "generalized" / "rows.csv")


@functools.cache
def cbpp():
    data = interlace.load_dataset("cbpp")
    return interlace.fit("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


@functools.cache
def fitted(formula, family, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return interlace.fit(formula, rows(), family=family, **arguments)


@functools.cache
def rows():
    labels = ["never", "rarely", "often", "always"]
    rating = pd.Categorical(ROWS["rating"], categories=labels, ordered=True)
    return ROWS.assign(rating=rating, answer=np.where(ROWS["binary"] > 0, "yes", "no"))


def test_report_of_cbpp():
    assert interlace.report(cbpp().update("~ 1 + (1 | herd)")) == (
        "A generalised linear mixed model of incidence (binomial, logit link) was fitted by "
        "maximum likelihood with Laplace's approximation (formula: incidence ~ 1 + (1 | herd)), "
        "with random intercepts by herd. It was fitted to 56 observations of 15 levels of herd. "
        "Tests and intervals take statistics to be normal. The intercept was estimated as "
        "b = -2.05, SE = 0.24, 95% CI [-2.52, -1.57]. The standard deviations of the random "
        "effects, on the scale of log odds, were estimated as follows. herd: 0.812 for (Intercept)."
    )
    text = interlace.report(cbpp())
    assert "; given the random effects, an odds ratio of 0.37, 95% CI [0.20, 0.68]." in text


def test_reports_name_outcome_ratios_and_numbers():
    text = interlace.report(fitted("answer ~ x + (1 | g)", "binomial"))
    assert 'The outcome modelled is answer = "yes".' in text
    text = interlace.report(
        fitted("count ~ x + offset(log(exposure)) + (1 | g)", "nbinom2", dispersion="~ x")
    )
    assert (
        "a ratio of rates of 1.703" in text and "Coefficients of the dispersion (log) were" in text
    )
    text = interlace.report(fitted("rating ~ x + (1 | g)", "ordinal"))
    assert (
        "a cumulative odds ratio of" in text and "Thresholds were estimated as never|rarely" in text
    )
    text = interlace.report(fitted("zeros ~ x + (1 | g)", "nbinom2", zero_inflation="~ 1"))
    assert "a ratio of means before extra zeros of" in text
    assert "size" not in text or "ran off to infinity" in text


def test_what_cannot_be_relied_on_is_told():
    text = interlace.report(fitted("zeros ~ x + (1 | g)", "nbinom2", zero_inflation="~ x"))
    assert text.endswith(
        "size ran off to infinity: there is no overdispersion: use family='poisson'."
    )
    assert "e+" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = rows().assign(sure=(ROWS["binary"] > 0) * 1.0 + (np.arange(len(ROWS)) % 2) * 0.0)
        fit = interlace.fit("binary ~ sure + (1 | g)", frame, family="binomial")
    assert "Predictors separate the outcomes: 'sure' separates" in interlace.report(fit)


def test_equation_of_cbpp():
    assert interlace.equation(cbpp()).splitlines() == [
        r"\begin{aligned}",
        r"\text{incidence}_{i} \mid b &\sim \text{Binomial}\left(n_{i},\; p_{i}\right) \\",
        r"\operatorname{logit}(p_{i}) &= \beta_{0} + \beta_{1}\,\text{period[T.p2]}_{i} "
        r"+ \beta_{2}\,\text{period[T.p3]}_{i} + \beta_{3}\,\text{period[T.p4]}_{i} \\",
        r"&\quad + b_{0,\,\text{herd}[i]} \\",
        r"b_{0,\,g} &\sim \mathcal{N}\left(0,\; \sigma^{2}_{\text{herd}}\right)",
        r"\end{aligned}",
    ]


FAMILIES = {
    "beta": "share ~ x + (1 | g)",
    "gamma": "positive ~ x + (1 | g)",
    "nbinom1": "count ~ x + (1 | g)",
    "truncated_poisson": "some ~ x + (1 | g)",
    "ordinal": "rating ~ x + (1 | g)",
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("values", [False, True])
def test_lines_of_every_family_are_balanced(family, values):
    text = interlace.equation(fitted(FAMILIES[family], family), values)
    for line in text.splitlines()[1:-1]:
        assert line.count("{") == line.count("}") and line.count("&") == 1
        assert line.count(r"\left(") == line.count(r"\right)")
    assert r"\varepsilon" not in text


def test_equations_have_the_predictors_of_the_family():
    fit = fitted("zeros ~ x + (1 | g)", "poisson", zero_inflation="~ x")
    text = interlace.equation(fit)
    assert r"\operatorname{logit}(\pi_{i}) &= \zeta_{0} + \zeta_{1}\,\text{x}_{i}" in text
    assert r"\begin{cases} 0 & \text{with probability } \pi_{i}" in text
    assert f"{fit.zero_params['Intercept']:.2f}" in interlace.equation(fit, values=True)


def test_tables_have_the_numbers_of_the_family():
    fit = fitted("count ~ x + offset(log(exposure)) + (1 | g)", "nbinom2", dispersion="~ x")
    tidy = fit.tidy("family")
    assert_allclose(tidy["estimate"], fit.dispersion_params)
    assert_allclose(tidy["std_error"], fit.dispersion_params_bse)
    assert (tidy["group"] == "dispersion").all() and tidy["p_value"].notna().all()
    text = str(interlace.table(fit))
    assert "Dispersion: x" in text and "Family nbinom2 (log), Laplace's approximation." in text
    plain = fitted("count ~ x + (1 | g)", "nbinom2")
    assert plain.tidy().query("group == 'family'")["term"].tolist() == ["size"]
    assert "Dispersion: x" in str(interlace.compare(plain, fit))
    assert cbpp().tidy()["effect"].isin(("fixed", "ran_pars")).all()
    ratios = cbpp().tidy("fixed", exponentiate=True)
    assert_allclose(ratios["estimate"], np.exp(cbpp().fe_params))
    assert_allclose(ratios["conf_low"], np.exp(cbpp().fe_conf_int["lower"]))
