"""Single-term deletion: lmerTest's ranova and drop1, lme4's drop1 of generalised models.

References: lmerTest 3.1 with lme4 1.1-31; glmmTMB 1.1.5 for models that glmer finishes less well.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace

ROWS = pd.read_csv(Path(__file__).parents[1] / "reference" / "generalized" / "rows.csv")
SLEEP = interlace.load_dataset("sleepstudy")
COLUMNS = ["npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)"]


@cache
def slopes():
    """The fit of sleepstudy with slopes."""
    return interlace.fit("Reaction ~ Days + (Days | Subject)", SLEEP)


def test_slopes_are_left_out_before_terms():
    table = slopes().ranova()
    assert list(table.index) == ["<none>", "Days in (Days | Subject)"]
    assert_allclose(
        table[COLUMNS].iloc[1],
        [4, -893.2325427, 1794.465085, 42.83681343, 2, 4.990041431e-10],
        rtol=1e-6,
    )
    boundary = table["Pr(>Chisq) boundary"].iloc[1]
    assert table["Pr(>Chisq)"].iloc[1] / 2 < boundary < table["Pr(>Chisq)"].iloc[1]


def test_without_random_effects_the_model_is_a_linear_one():
    table = slopes().ranova(reduce_terms=False)
    assert list(table.index) == ["<none>", "(Days | Subject)"]
    want = [3, -946.8318317, 1899.663663, 150.0353915, 3, 2.588998643e-32]
    assert_allclose(table[COLUMNS].iloc[1], want, rtol=1e-6)
    assert np.isnan(table["Pr(>Chisq) boundary"].iloc[1])
    ml = interlace.fit("Reaction ~ Days + (1 | Subject)", SLEEP, method="ML").ranova()
    want = [3, -950.1465282, 1906.293056, 106.2144134, 1, 6.617359458e-25]
    assert_allclose(ml[COLUMNS].iloc[1], want, rtol=1e-6)


def test_each_of_crossed_factors_is_left_out():
    data = interlace.load_dataset("penicillin")
    table = interlace.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", data).ranova()
    assert list(table.index) == ["<none>", "(1 | plate)", "(1 | sample)"]
    assert_allclose(table["LRT"].iloc[1:], [105.0572726, 282.3954350], rtol=1e-6)


def test_terms_written_without_correlations_go_one_by_one():
    fit = interlace.fit("Reaction ~ Days + (1 + Days || Subject)", SLEEP)
    table = fit.ranova()
    assert list(table.index[1:]) == [
        "(Intercept) in (1 + Days || Subject)",
        "Days in (1 + Days || Subject)",
    ]
    plain = interlace.fit("Reaction ~ Days + (1 | Subject)", SLEEP)
    assert table["logLik"].iloc[2] == pytest.approx(plain.llf, abs=1e-6)


@cache
def crossed():
    """A design with an interaction, unbalanced."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({name: rng.integers(0, 3, 120).astype(str) for name in "ab"})
    frame = frame.assign(x=rng.normal(size=120), g=rng.integers(0, 12, 120).astype(str))
    return frame.assign(y=rng.normal(size=120) + rng.normal(size=12)[frame["g"].astype(int)])


def test_terms_that_others_contain_stay():
    fit = interlace.fit("y ~ a * b + x + (1 | g)", crossed())
    assert list(fit.drop1().index) == ["x", "a:b"]
    assert_allclose(fit.drop1(), fit.anova(type=3).loc[["x", "a:b"]], rtol=1e-8)
    table = fit.drop1("LRT")
    less = interlace.fit("y ~ a + b + x + (1 | g)", crossed(), method="ML")
    assert table.loc["a:b", "AIC"] == pytest.approx(less.aic, abs=1e-6)
    assert table.loc["a:b", "Df"] == 4 and np.isnan(table.loc["<none>", "LRT"])


def test_another_factor_takes_the_place_of_an_intercept_that_goes():
    fit = interlace.fit("y ~ 0 + a + b + (1 | g)", crossed())
    less = interlace.fit("y ~ 0 + b + (1 | g)", crossed(), method="ML")
    assert fit.drop1("LRT").loc["a", "AIC"] == pytest.approx(less.aic, abs=1e-6)


def test_generalised_models_have_likelihood_ratio_tests():
    data = interlace.load_dataset("cbpp")
    formula = "incidence ~ period + (1 | herd)"
    fit = interlace.fit(formula, data, family="binomial", trials="size")
    table = fit.drop1()
    # glmer's optimum is 6e-4 deviance units above the one here.
    assert_allclose(table.loc["period"], [3, 213.66263, 25.610063, 1.1509e-5], rtol=1e-4)
    with pytest.raises(ValueError, match="test must be 'LRT'"):
        fit.drop1("F")


def test_random_terms_of_generalised_models_are_left_out():
    fit = interlace.fit(
        "count ~ x * z + offset(log(exposure)) + (1 + x | g)", ROWS, family="poisson"
    )
    assert fit.drop1().loc["x:z", "LRT"] == pytest.approx(0.2351403, abs=1e-4)
    table = fit.ranova()
    assert_allclose(table["logLik"], [-762.7984477, -771.9393415], atol=1e-5)
    bare = fit.ranova(reduce_terms=False)
    assert bare["logLik"].iloc[1] == pytest.approx(-874.9816352, abs=1e-5)
    assert bare["npar"].iloc[1] == 4
