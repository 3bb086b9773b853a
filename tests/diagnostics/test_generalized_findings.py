"""Checks and residuals of generalised models: what is right passes, and every kind of trouble is
seen.
"""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

import interlace_jax as interlace
from interlace_jax.diagnostics import generalized_findings

M, K = 40, 8
G, X = np.repeat(np.arange(M), K), np.tile(np.linspace(-1.0, 1.0, K), M)


def counts(seed=1, add=0.0, sd=0.5, draw=lambda r, mu: r.poisson(mu), slope=0.5):
    """Counts in groups, of any distribution about their mean."""
    rng = np.random.default_rng(seed)
    mu = np.exp(1.0 + slope * X + sd * rng.standard_normal(M)[G] + add)
    return pd.DataFrame({"y": draw(rng, mu), "x": X, "g": G.astype(str)})


def quiet(formula, data, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return interlace.fit(formula, data, **arguments)


@functools.cache
def poisson():
    return quiet("y ~ x + (1 | g)", counts(), family="poisson")


@functools.cache
def cbpp():
    data = interlace.load_dataset("cbpp")
    return quiet("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


def verdicts(data, formula="y ~ x + (1 | g)", **arguments):
    """The table of a check, by the name of what is checked."""
    return interlace.check(quiet(formula, data, **arguments)).table.set_index("check")


# Residuals ----------------------------------------------------------------------------------------


def test_quantile_residuals_are_normal_quantiles_between_the_two_probabilities():
    fit, y = poisson(), counts()["y"]
    found = special.ndtr(fit.residuals("quantile", seed=3))
    assert (found >= stats.poisson.cdf(y - 1, fit.fittedvalues) - 1e-12).all()
    assert (found <= stats.poisson.cdf(y, fit.fittedvalues) + 1e-12).all()
    assert_allclose(fit.residuals("quantile", seed=3), fit.residuals("quantile", seed=3))
    assert stats.kstest(fit.residuals("quantile", seed=3), "norm").pvalue > 0.01


def test_residuals_given_drawn_effects_are_standard_normal_where_those_given_modes_are_not():
    rng, level = np.random.default_rng(1), np.repeat(np.arange(800), 4)
    y = rng.poisson(0.5 * np.exp(rng.normal(size=800))[level])
    fit = quiet("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": level}), family="poisson")
    drawn = generalized_findings.residuals_at_draws(fit, np.random.default_rng(2))
    assert fit.residuals("quantile", seed=2).var() < 0.85
    # four standard errors of a variance and of a kurtosis of 3,200 numbers
    assert drawn.var() == pytest.approx(1.0, abs=0.1)
    assert stats.kurtosis(drawn) == pytest.approx(0.0, abs=0.35)


def test_quantile_residuals_of_continuous_responses_need_no_random_numbers():
    data = counts(draw=lambda r, mu: r.gamma(4.0, mu / 4.0))
    fit = quiet("y ~ x + (1 | g)", data, family="gamma")
    shape = 1.0 / fit.family_params.loc["dispersion", "estimate"]
    expected = stats.norm.ppf(stats.gamma.cdf(data["y"], shape, scale=fit.fittedvalues / shape))
    assert_allclose(fit.residuals("quantile"), expected, rtol=1e-8)


def test_categories_have_quantile_residuals():
    rng = np.random.default_rng(2)
    latent = X + rng.standard_normal(M)[G] + rng.logistic(size=M * K)
    data = counts().assign(
        y=pd.cut(latent, [-np.inf, -1, 1, np.inf], labels=["low", "mid", "high"])
    )
    fit = quiet("y ~ x + (1 | g)", data, family="ordinal")
    assert stats.kstest(fit.residuals("quantile", seed=1), "norm").pvalue > 0.01
    with pytest.raises(ValueError, match="use kind='quantile'"):
        fit.residuals("pearson")
    rare = verdicts(data[(data["y"] != "mid") | (data.index < 6)], family="ordinal").loc[
        "categories"
    ]
    assert rare["verdict"] == "look" and "'mid'" in rare["found"]


def test_scaled_residuals_may_be_given_the_random_effects():
    """They are then of the same distribution function, up to the number of simulations."""
    fit = poisson()
    given = fit.scaled_residuals(2000, seed=1, conditional=True)
    y = counts()["y"]
    below, upto = (stats.poisson.cdf(y - back, fit.fittedvalues) for back in (1, 0))
    assert (given > below - 0.05).all() and (given < upto + 0.05).all()
    linear = quiet("y ~ x + (1 | g)", counts())
    exact = special.ndtr(linear.resid / linear.sigma)
    assert_allclose(linear.scaled_residuals(2000, seed=1, conditional=True), exact, atol=0.06)


# Checks -------------------------------------------------------------------------------------------


def test_a_right_model_passes_and_its_page_is_the_same_each_time():
    page = interlace.check(poisson())
    assert page.result == f"All {len(page.findings)} checks are fine."
    assert str(page) == str(interlace.check(poisson()))
    assert {"separation", "dispersion", "zeros", "approximation", "data as a whole"} <= set(
        page.table["check"]
    )


def test_the_certificate_has_the_state_of_the_modes():
    optimum = poisson().optimum
    assert optimum.mode_decrement < 1e-12 and optimum.mode_residual < 1e-6
    assert optimum.negative_information == 0 and optimum.trips >= optimum.steps


def test_pearsons_ratio_counts_what_the_random_effects_have_taken():
    """For one factor the modes are ridge estimates: their share in the degrees of freedom has a
    dense formula.
    """
    fit = cbpp()
    Z = np.eye(15)[fit.design.factors[0].codes] * fit.theta[0]
    shrunk = Z.T @ (fit.estimate.W[:, None] * Z)
    taken = np.trace(np.linalg.solve(np.eye(15) + shrunk, shrunk))
    assert generalized_findings.effective_parameters(fit) == pytest.approx(4 + taken, rel=1e-6)
    (found,) = generalized_findings.dispersion(fit, 100, np.random.default_rng(0))
    assert found.statistic == pytest.approx(
        np.sum(fit.residuals("pearson") ** 2) / (56 - 4 - taken), rel=1e-6
    )


def test_overdispersion_is_seen_with_its_remedy():
    data = counts(draw=lambda r, mu: r.poisson(mu * r.gamma(2.0, 0.5, len(mu))))
    row = verdicts(data, family="poisson").loc["dispersion"]
    assert row["verdict"] == "trouble" and row["found"].startswith("over-dispersed")
    assert "nbinom2" in row["advice"]
    assert verdicts(data, family="nbinom2").loc["dispersion", "verdict"] == "fine"


def test_excess_zeros_are_seen_and_gone_with_zero_inflation():
    data = counts(draw=lambda r, mu: r.poisson(mu) * (r.random(len(mu)) < 0.7))
    row = verdicts(data, family="poisson").loc["zeros"]
    assert (
        row["verdict"] != "fine"
        and "more than" in row["found"]
        and "zero_inflation" in row["advice"]
    )
    assert verdicts(data, family="poisson", zero_inflation="~ 1").loc["zeros", "verdict"] == "fine"


def test_a_curve_and_an_outlier_are_seen():
    table = verdicts(counts(add=1.5 * X**2), family="poisson")
    assert (
        table.loc["curve over x", "verdict"] != "fine"
        and "bends up" in table.loc["curve over x", "found"]
    )
    data = counts()
    data.loc[100, "y"] += 40
    row = verdicts(data, family="poisson").loc["outliers"]
    assert row["verdict"] == "trouble" and "row 100" in row["found"]


def test_limits_and_boundaries_are_told():
    data = counts(sd=0.0, draw=lambda r, mu: np.round(mu))  # less variance than Poisson's
    table = verdicts(data, family="nbinom2")
    assert table.loc["family", "found"] == "size runs off to infinity"
    assert "use family='poisson'" in table.loc["family", "advice"]
    assert table.loc["variances", "verdict"] == "look"
    assert table.loc["dispersion", "found"].startswith("under-dispersed")


def test_separation_stands_in_place_of_the_optimum():
    data = counts(draw=lambda r, mu: (r.random(len(mu)) < 0.5) * 1.0).assign(z=X > 0.9)
    data["y"] = np.where(data["z"], 1.0, data["y"])
    table = verdicts(data, "y ~ x + z + (1 | g)", family="binomial")
    assert (
        table.loc["separation", "verdict"] == "trouble"
        and "separates the outcomes" in table.loc["separation", "found"]
    )
    assert "optimum" not in table.index and "dispersion" not in table.index


def test_where_laplace_is_too_thin_quadrature_is_named_and_its_move_foretold():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(120), 3)
    y = rng.random(360) < special.expit(0.3 + 2.0 * rng.standard_normal(120)[g])
    data = pd.DataFrame({"y": y * 1.0, "g": g.astype(str)})
    fit = quiet("y ~ 1 + (1 | g)", data, family="binomial")
    (found,) = generalized_findings.approximation(fit)
    assert found.verdict != "fine" and "nagq=7" in found.advice
    moved = quiet("y ~ 1 + (1 | g)", data, family="binomial", nagq=7).theta[0] - fit.theta[0]
    assert found.statistic == pytest.approx(moved / fit.varcorr["sdcor_se"].iloc[0], rel=0.5)
    crossed = quiet(
        "y ~ 1 + (1 | g) + (1 | h)", data.assign(h=np.arange(360) % 9), family="binomial"
    )
    first, second = generalized_findings.approximation(crossed)
    assert first.verdict == "look" and "compare with a fit of this factor" in first.advice
    assert second.verdict == "fine"


def test_few_events_are_told():
    rng = np.random.default_rng(3)
    data = counts(draw=lambda r, mu: 0.0 * mu).assign(z=rng.standard_normal(M * K))
    data.loc[[3, 50, 111, 200, 280, 300], "y"] = 1.0
    row = verdicts(data, "y ~ x + z + (1 | g)", family="binomial").loc["outcomes"]
    assert row["verdict"] == "look" and row["found"] == "the rarer one 6 times, for 2 coefficients"


def test_p_values_by_simulation_go_beyond_the_number_of_simulations():
    drawn = np.random.default_rng(0).standard_normal(200)
    assert generalized_findings._simulated_p(0.0, drawn) > 0.8
    assert generalized_findings._simulated_p(6.0, drawn) < 1e-6
    ranks = generalized_findings._ranks(np.array([[3.0, 1.0, 1.0, 2.0]]), np.random.default_rng(0))
    assert ranks[0, 0] == 3 and ranks[0, 3] == 2 and sorted(ranks[0, 1:3]) == [0, 1]
