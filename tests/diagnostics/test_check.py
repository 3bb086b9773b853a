"""What is right passes, at the rate that it says; every kind of trouble is seen on data made to
have it.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.checks import G, K, M, X, dense_covariance, frame, unfitted, weighted
from helpers.fits import fitted, quiet_fit, sleepstudy
from pandas.testing import assert_series_equal
from scipy import stats

import interlace_jax as interlace
from interlace_jax.diagnostics import findings, residuals
from interlace_jax.numerics.estimation import bfgs

FORMULA = "y ~ x + z + (1 | g)"


def verdicts(data, formula=FORMULA, **arguments):
    """By check its row of the table."""
    return interlace.check(quiet_fit(formula, data, **arguments)).table.set_index("check")


# Numbers ------------------------------------------------------------------------------------------


def test_scaled_residuals_tend_to_the_normal_probability_of_the_response():
    fit, n = weighted(), 4000
    design = fit.model.design
    z = (design.y - design.offset - design.X @ fit.fe_params.to_numpy()) / np.sqrt(
        np.diag(dense_covariance(fit))
    )
    u = fit.scaled_residuals(n, seed=1)
    p = stats.norm.cdf(z)
    assert u.index.equals(design.index)
    # binomial proportions, and a randomised tie: five standard errors for 192 of them
    assert np.all(np.abs(u - p) < 5 * np.sqrt(p * (1 - p) / n) + 2 / n)


def test_scaled_residuals_are_uniform_under_the_model_at_the_smallest_number_of_simulations():
    """With one simulation u is (0 or 1 + U) / 2: uniform only because the tie is broken at
    random.
    """
    fit = fitted("dyestuff_REML")
    responses = fit.simulate(400, seed=1)
    u = [
        residuals.scaled_residuals(_with_response(fit, responses[i]), 1, seed=i).iloc[::5]
        for i in range(400)
    ]
    # every fifth row: one of each batch, so that they are independent of each other
    assert stats.kstest(np.concatenate(u), "uniform").pvalue > 0.001
    assert 0 < np.min(u) and np.max(u) < 1


def _with_response(fit, y):
    """The same estimates with another response."""
    return interlace.Fit(fit.model.with_response(y), fit.estimate, fit.method, fit.df_method)


def test_scaled_residuals_depend_on_the_seed_only_and_on_no_more_memory_than_allowed(monkeypatch):
    fit = weighted()
    assert_series_equal(fit.scaled_residuals(30, seed=3), fit.scaled_residuals(30, seed=3))
    assert not fit.scaled_residuals(30, seed=3).equals(fit.scaled_residuals(30, seed=4))
    monkeypatch.setattr(residuals, "NUMBERS", 7 * M * K)
    pieces = [Y.shape[1] for Y in residuals._simulations(fit, 30, np.random.default_rng(1))]
    assert pieces == [7, 7, 7, 7, 2]
    with pytest.raises(ValueError, match="nsim must be at least 1, not 0"):
        fit.scaled_residuals(0)


# What is right ------------------------------------------------------------------------------------


def test_data_of_the_model_are_fine_at_the_nominal_rate():
    """Of p-values from 50 sets of data a hundredth is below 0.01, a fifth below 0.2 (binomial,
    0.999 quantiles).
    """
    model = interlace.compile(FORMULA, frame(0))
    tables = []
    for seed in range(100, 150):
        rng = np.random.default_rng(seed)
        y = frame(0, b=rng.standard_normal(M), e=rng.standard_normal(M * K))["y"]
        fit = model.with_response(y).fit(df_method="normal")
        tables.append(interlace.check(fit, nsim=100).table)
    table = pd.concat(tables).dropna(subset="p")
    trials = len(table)
    assert trials == 50 * table["check"].nunique() == 50 * 8
    assert (table["verdict"] != "fine").sum() <= stats.binom.ppf(0.999, trials, 0.01)
    low, high = stats.binom.ppf([0.001, 0.999], trials, 0.2)
    assert low <= (table["p"] < 0.2).sum() <= high


def test_a_right_model_gets_a_page_without_advice():
    page = interlace.check(quiet_fit(FORMULA, frame(3)))
    assert page.result == f"All {len(page.table)} checks are fine."
    assert not any(page.table["advice"])
    assert "->" not in str(page)


# Trouble ------------------------------------------------------------------------------------------


def test_heavy_tails_are_seen():
    row = verdicts(frame(1, e=lambda r: r.standard_t(2.5, M * K))).loc["shape of residuals"]
    assert row["verdict"] == "trouble"
    assert row["found"].startswith("heavier tails than normal")


def test_skewness_is_seen():
    row = verdicts(frame(1, e=lambda r: r.exponential(1.0, M * K) - 1.0)).loc["shape of residuals"]
    assert row["verdict"] == "trouble"
    assert row["found"].startswith("skewed to the right")


def test_growing_spread_is_seen():
    row = verdicts(frame(1, e=lambda r: r.standard_normal(M * K) * np.exp(0.5 * X - 2.0))).loc[
        "spread of residuals"
    ]
    assert row["verdict"] == "trouble"
    assert row["found"].startswith("grows with the fitted value")


def test_a_noisy_group_is_seen():
    row = verdicts(frame(1, e=lambda r: r.standard_normal(M * K) * np.where(G == 5, 6.0, 1.0))).loc[
        "spread by g"
    ]
    assert row["verdict"] == "trouble"
    assert row["found"].endswith("largest in 5")


def test_a_missing_square_is_seen():
    table = verdicts(frame(1, add=0.15 * (X - 3.5) ** 2))
    assert table.loc["curve over x", "verdict"] == "trouble"
    assert "bends up" in table.loc["curve over x", "found"]
    assert table.loc["curve over z", "verdict"] == "fine"
    present = verdicts(frame(1, add=0.15 * (X - 3.5) ** 2), "y ~ x + I(x ** 2) + z + (1 | g)")
    assert "curve over x" not in present.index  # nothing to add


def test_an_outlier_is_seen_and_named():
    row = verdicts(frame(1, add=np.where(np.arange(M * K) == 100, 8.0, 0.0))).loc["outliers"]
    assert row["verdict"] == "trouble"
    assert "row 100" in row["found"]
    assert row["advice"].startswith("Look at the data of row 100.")


def test_collinear_predictors_are_seen_and_named():
    table = verdicts(frame(1, z=lambda r: X + 0.3 * r.standard_normal(M * K)))
    assert table.loc["predictors", "verdict"] == "trouble"
    assert "'x', 'z' share" in table.loc["predictors", "advice"]


def test_tiny_and_few_groups_are_seen():
    (pairs,) = findings._groups(
        unfitted("y ~ z + (1 + x || g)", frame(1, g=np.arange(M * K) // 2, b=np.zeros(96)))
    )
    assert pairs.verdict == "look"
    assert "100% have no more rows than random effects (2)" in pairs.found
    (few,) = findings._groups(unfitted(FORMULA, frame(1, g=G % 3)))
    assert few.verdict == "look"
    assert "enter g as a fixed effect" in few.advice


def test_groups_of_one_size_are_told_as_such():
    (same,) = findings._groups(unfitted(FORMULA, frame(1)))
    assert same.found == "24 levels of 8 rows each"
    (other,) = findings._groups(unfitted(FORMULA, frame(1).iloc[2:]))
    assert other.found == "24 levels of 6 to 8 rows, median 8"


def test_special_groups_are_seen():
    row = verdicts(frame(1, b=np.where(np.arange(M) == 7, 12.0, 0.3 * np.sin(np.arange(M)))))
    found = row.loc["random effects, g: (Intercept)"]
    assert found["verdict"] == "trouble"
    assert "farthest out is 7" in found["found"]


def test_two_kinds_of_groups_are_seen_in_the_data_as_a_whole():
    row = verdicts(
        frame(
            1, b=lambda r: 10.0 * r.choice([-1, 1], M), e=lambda r: 0.1 * r.standard_normal(M * K)
        )
    )
    assert row.loc["data as a whole", "verdict"] == "look"


def test_a_variance_of_zero_is_seen_with_its_remedy():
    table = verdicts(
        frame(
            1,
            b=np.zeros(M),
            e=lambda r: np.tile(r.standard_normal(K), M) + 0.1 * np.sin(np.arange(M * K)),
        )
    )
    assert table.loc["variances", "verdict"] == "look"
    assert "consider leaving (1 | g) out" in table.loc["variances", "advice"]
    assert not table.index.str.startswith("random effects").any()


def test_deviations_that_do_not_matter_are_fine_in_large_samples():
    z = stats.norm.ppf((np.arange(20000) + 0.5) / 20000)
    statistic, p, matters, look = findings._shape(z + 0.02 * z**2)
    assert p < 1e-10 and not matters
    assert (
        findings._finding("shape", p, statistic, matters, "normal", look, "advice").verdict
        == "fine"
    )
    assert findings._shape(z + 0.1 * z**2)[2]


# The page -----------------------------------------------------------------------------------------


def test_the_page_reads_well_and_is_the_same_each_time():
    fit = quiet_fit("Reaction ~ Days + (1 + Days | Subject)", sleepstudy())
    page = interlace.check(fit)
    text = str(page)
    assert text == str(interlace.check(fit))
    assert max(map(len, text.split("\n"))) <= 80
    assert "Worth attention, 2 of 11 checks: shape of residuals; outliers." in text
    html = page._repr_html_()
    assert html.count("<tr>") == 11 and "Days | Subject" in html
    assert list(page.table) == ["check", "verdict", "found", "statistic", "p", "advice"]
    assert set(page.table["verdict"]) == {"fine", "trouble"}


def test_a_fit_that_did_not_converge_is_trouble():
    fit = fitted("sleepstudy_slope_REML")
    stopped = replace(fit.estimate, status=bfgs.EXHAUSTED, predicted_decrease=0.1)
    finding = findings._optimum(interlace.Fit(fit.model, stopped, "REML", "normal"))
    assert finding.verdict == "trouble"
    assert "step limit" in finding.found and "theta0=" in finding.advice


def test_models_without_predictors_are_checked():
    table = verdicts(interlace.load_dataset("dyestuff"), "Yield ~ 1 + (1 | Batch)")
    assert not table.index.isin(["predictors"]).any()
    assert (
        verdicts(interlace.load_dataset("dyestuff2"), "Yield ~ 1 + (1 | Batch)").loc[
            "variances", "verdict"
        ]
        == "look"
    )
