"""The single checks against their textbook formulas, dense matrices and other software."""

import numpy as np
import pandas as pd
import pytest
from helpers.checks import G, K, M, dense_covariance, frame, unfitted, weighted
from helpers.fits import quiet_fit
from scipy import linalg, stats

import interlace_jax as interlace
from interlace_jax.diagnostics import findings


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
