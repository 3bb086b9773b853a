"""What is right passes, at the rate that it says; every kind of trouble is seen on data made to
have it.
"""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from scipy import linalg, stats

import interlace_jax as interlace
from interlace_jax.diagnostics import findings, residuals
from interlace_jax.numerics.estimation import bfgs

M, K = 24, 8  # groups and their rows: one shape for all fits below
G, X = np.repeat(np.arange(M), K), np.tile(np.arange(float(K)), M)
FORMULA = "y ~ x + z + (1 | g)"


def frame(seed, **changed):
    """Data of the model, or with a change: of `b` (M,), `e` (M K,), `z` (M K,), `add` (M K,),
    `g` (M K,).
    """
    rng = np.random.default_rng(seed)
    z, b, e = rng.standard_normal(M * K), rng.standard_normal(M), rng.standard_normal(M * K)
    part = dict(z=z, b=b, e=e, add=0.0, g=G) | {
        k: v(rng) if callable(v) else v for k, v in changed.items()
    }
    y = 1.0 + 0.3 * X + 0.2 * part["z"] + part["b"][part["g"]] + part["e"] + part["add"]
    return pd.DataFrame({"y": y, "x": X, "z": part["z"], "g": part["g"]})


def verdicts(data, formula=FORMULA, **arguments):
    """By check its row of the table."""
    return interlace.check(quiet_fit(formula, data, **arguments)).table.set_index("check")


@cache
def weighted() -> interlace.Fit:
    """Two crossed factors, weights, an offset, a factor of three levels."""
    rng = np.random.default_rng(1)
    data = frame(1).assign(
        h=rng.integers(0, 6, M * K), w=rng.uniform(0.5, 2.0, M * K), o=rng.standard_normal(M * K)
    )
    data["kind"] = rng.choice(["a", "b", "c"], M * K)
    data["y"] += rng.standard_normal(6)[data["h"]] + data["o"]
    return quiet_fit("y ~ x + z + kind + (1 + x | g) + (1 | h)", data, weights="w", offset="o")


def dense_covariance(fit):
    """V (n, n) of the response."""
    design = fit.model.design
    V = np.eye(len(design.y)) if design.weights is None else np.diag(1.0 / design.weights)
    for f, Lam in zip(design.factors, fit.Lambdas, strict=True):
        indicator = np.eye(len(f.levels))[f.codes]
        Z = np.einsum("nm,nk->nmk", indicator, f.Z @ Lam).reshape(len(V), -1)
        V = V + Z @ Z.T
    return fit.scale * V


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
    assert fit.scaled_residuals(30, seed=3).equals(fit.scaled_residuals(30, seed=3))
    assert not fit.scaled_residuals(30, seed=3).equals(fit.scaled_residuals(30, seed=4))
    monkeypatch.setattr(residuals, "NUMBERS", 7 * M * K)
    pieces = [Y.shape[1] for Y in residuals._simulations(fit, 30, np.random.default_rng(1))]
    assert pieces == [7, 7, 7, 7, 2]
    with pytest.raises(ValueError, match="nsim must be at least 1, not 0"):
        fit.scaled_residuals(0)


def test_score_is_that_of_the_dense_model():
    fit = weighted()
    design, V = fit.model.design, dense_covariance(fit)
    q = design.X[:, 1] ** 2
    Vi = linalg.inv(V)
    P = Vi - Vi @ design.X @ linalg.solve(design.X.T @ Vi @ design.X, design.X.T @ Vi)
    expected = q @ P @ (design.y - design.offset) / np.sqrt(q @ P @ q)
    assert findings.score(fit, q) == pytest.approx(expected, rel=1e-6)
    assert np.isnan(findings.score(fit, design.X @ np.arange(1.0, 6.0)))


def test_random_effects_are_standardised_by_the_sd_of_their_predictions():
    """Var(b^ | beta) = S Z'V^-1 Z S, here by brute force."""
    fit = weighted()
    f, S = fit.model.design.factors[0], fit.covariances["g"].to_numpy()
    Z = np.einsum("nm,nk->nmk", np.eye(M)[f.codes], f.Z).reshape(M * K, -1)
    covariance = (
        np.kron(np.eye(M), S) @ Z.T @ linalg.solve(dense_covariance(fit), Z) @ np.kron(np.eye(M), S)
    )
    sd = np.sqrt(np.diag(covariance)).reshape(M, 2)
    found = findings.standardised_effects(fit)
    np.testing.assert_allclose(found["g: x"], fit.random_effects["g"]["x"] / sd[:, 1], rtol=1e-6)
    assert list(found) == ["g: (Intercept)", "g: x", "h: (Intercept)"]


def test_levels_that_covary_vary_as_their_covariance_says_and_are_no_sample():
    K = np.diag(np.linspace(0.5, 2.0, M)) + 0.3
    rng = np.random.default_rng(2)
    data = frame(1, b=np.linalg.cholesky(K) @ rng.standard_normal(M))
    fit = quiet_fit("y ~ x + z + (1 | g)", data, cov={"g": interlace.Known(K)})
    variance = fit.scale + fit.covariances["g"].iloc[0, 0] * np.diag(K)[G]
    np.testing.assert_allclose(findings._marginal_sd(fit) ** 2, variance, rtol=1e-9)
    table = interlace.check(fit, nsim=20).table
    assert not table["check"].str.startswith("random effects").any()
    assert table.set_index("check").loc["groups of g", "verdict"] == "fine"


def test_collinearity_is_fox_and_monettes():
    fit = weighted()
    table = findings.collinearity(fit)
    R = fit.fe_cov.iloc[1:, 1:].to_numpy()
    R = R / np.sqrt(np.outer(np.diag(R), np.diag(R)))
    of_columns = pd.Series(np.diag(linalg.inv(R)), fit.fe_params.index[1:])
    np.testing.assert_allclose(table.loc[["x", "z"], "vif"], of_columns[["x", "z"]], rtol=1e-9)
    kind = [name.startswith("kind") for name in of_columns.index]
    rest = np.invert(kind)
    gvif = linalg.det(R[np.ix_(kind, kind)]) * linalg.det(R[np.ix_(rest, rest)]) / linalg.det(R)
    assert table.loc["kind"].tolist() == pytest.approx([2, gvif, np.sqrt(gvif)], rel=1e-9)


def test_collinearity_agrees_with_lme4():
    """R 4.2, lme4 1.1-31.

    d$x1 <- seq_len(54); d$x2 <- (seq_len(54)^2) %% 17; m <- lmer(score ~ Machine + x1 + x2 + (1 |
    Worker), d)
    R <- cov2cor(as.matrix(vcov(m))[-1, -1]); for (k in list(1:2, 3, 4)) det(R[k, k]) * det(R[-k,
    -k]) / det(R)
    """
    i = np.arange(1, 55)
    data = interlace.load_dataset("machines").assign(x1=i, x2=i**2 % 17)
    table = findings.collinearity(quiet_fit("score ~ Machine + x1 + x2 + (1 | Worker)", data))
    np.testing.assert_allclose(table["gvif"], [122.61345463, 122.56530247, 1.00434869], rtol=1e-5)


def unfitted(formula, data):
    """What the report on groups needs of a fit."""
    model = interlace.compile(formula, data)
    return SimpleNamespace(model=model, design=model.design)


def test_group_sizes_count_rows_of_levels():
    data = frame(1).iloc[2:].drop(index=range(8, 14))
    sizes = findings.group_sizes(unfitted("y ~ x + (1 + x | g)", data)).loc["g"]
    assert sizes.to_dict() == dict(levels=M, effects=2, smallest=2, median=8, largest=8, thin=1 / M)


def test_spread_by_group_is_levenes_test_with_medians():
    fit = weighted()
    r = fit.residuals("pearson").to_numpy()
    finding = {f.check: f for f in findings._spread_by_group(fit)}["spread by h"]
    codes = next(f for f in fit.model.design.factors if f.name == "h").codes
    expected = stats.levene(*(r[codes == i] for i in range(6)), center="median")
    assert (finding.statistic, finding.p) == pytest.approx(expected, rel=1e-9)


def test_share_between_groups_is_omega_squared():
    values = pd.Series([1.0, 2.0, 4.0, 3.0, 7.0, 5.0])
    F, p, share = findings._one_way(values.groupby([0, 0, 0, 1, 1, 1]))
    expected = stats.f_oneway(values[:3], values[3:])
    assert (F, p) == pytest.approx((expected.statistic, expected.pvalue))
    between, total = 6 * np.var([7 / 3, 5.0]), 6 * np.var(values)
    mse = (total - between) / 4
    assert share == pytest.approx((between - mse) / (total + mse))


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
