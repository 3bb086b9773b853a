"""Leverages, residuals, and pulls of subjects where residuals covary: the dense formulas."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose
from scipy import optimize

N, VISITS = 16, 4


@cache
def data():
    """16 subjects of 4 visits, a fifth missing."""
    rng = np.random.default_rng(4)
    d = pd.DataFrame({"id": np.repeat(np.arange(N), VISITS), "t": np.tile(np.arange(VISITS), N)})
    noise = rng.multivariate_normal(
        np.zeros(VISITS), 0.5 ** np.abs(np.subtract.outer(range(4), range(4))), N
    )
    d["x"] = rng.normal(size=len(d))
    d["y"] = d["x"] + np.repeat(rng.normal(size=N), VISITS) + noise.ravel()
    return d[rng.random(len(d)) < 0.8].sample(frac=1.0, random_state=0).reset_index(drop=True)


@cache
def fit(method="REML"):
    return quiet_fit("y ~ x + (1 | id)", data(), residual="ar1(t | id)", method=method)


def V(theta, rho):
    """V and R (n, n) over sigma^2."""
    d = data()
    same = d["id"].to_numpy()[:, None] == d["id"].to_numpy()[None]
    R = same * rho ** np.abs(np.subtract.outer(d["t"].to_numpy(), d["t"].to_numpy())).astype(float)
    return R + theta**2 * same, R


def test_leverages_and_residuals_are_those_of_the_dense_matrices():
    f, d = fit(), data()
    full, R = V(f.theta[0], f.residual_correlation.iloc[0, 1])
    X, y = np.column_stack([np.ones(len(d)), d["x"]]), d["y"].to_numpy()
    Vi = np.linalg.inv(full)
    H1 = X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    P = Vi @ (np.eye(len(d)) - H1)
    residuals = R @ P @ y
    assert_allclose(f.resid, residuals, atol=1e-7)
    assert_allclose(f.leverage()["fixed"], np.diag(H1), rtol=1e-7)
    assert_allclose(f.leverage()["overall"], np.diag(np.eye(len(d)) - R @ P), rtol=1e-7)
    sd = f.sigma * np.sqrt(np.diag(R @ P @ R))
    assert_allclose(f.residuals("standardized"), residuals / sd, rtol=1e-6)
    assert ".leverage_overall" in f.augment(None)


def best(c, reml):
    """Estimates beta, SD of the intercept, rho and sigma where the log-likelihood of subject g
    counts c_g times.
    """
    d = data()
    X, y = np.column_stack([np.ones(len(d)), d["x"]]), d["y"].to_numpy()
    groups = [np.flatnonzero(d["id"] == g) for g in range(N)]

    def pieces(x):
        full = V(x[0], np.tanh(x[1]))[0]
        A, b, total = np.zeros((2, 2)), np.zeros(2), []
        for rows, count in zip(groups, c, strict=True):
            Vi = np.linalg.inv(full[np.ix_(rows, rows)])
            A += count * X[rows].T @ Vi @ X[rows]
            b += count * X[rows].T @ Vi @ y[rows]
            total.append((rows, count, Vi))
        return A, np.linalg.solve(A, b), total

    def deviance(x):
        A, beta, total = pieces(x)
        found = np.linalg.slogdet(A)[1] - 2 * len(beta) * x[2] if reml else 0.0
        for rows, count, Vi in total:
            r = y[rows] - X[rows] @ beta
            found += count * (
                2 * len(rows) * x[2] - np.linalg.slogdet(Vi)[1] + r @ Vi @ r * np.exp(-2 * x[2])
            )
        return found

    f = fit("REML" if reml else "ML")
    x0 = [f.theta[0], np.arctanh(f.residual_correlation.iloc[0, 1]), np.log(f.sigma)]
    x = optimize.minimize(
        deviance, x0, method="Nelder-Mead", options=dict(xatol=1e-9, fatol=1e-12, maxfev=4000)
    ).x
    return np.array([*pieces(x)[1], x[0] * np.exp(x[2]), np.exp(x[2]), np.tanh(x[1])])


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_the_jackknife_has_the_derivatives_by_the_count_of_a_subject(method):
    effects = fit(method).jackknife().effects
    assert list(effects.columns[:2]) == ["Intercept", "x"]
    h, g = 0.02, 3
    up, down = (
        best(np.where(np.arange(N) == g, 1 + side, 1.0), method == "REML") for side in (h, -h)
    )
    # Central differences: of third order, h^2 / 6 of terms of the size of the effects.
    assert_allclose(effects.loc[g], (up - down) / (2 * h), rtol=5e-3, atol=1e-4)


def test_one_step_without_single_rows_is_refused():
    with pytest.raises(ValueError, match="one step without single rows .* method='exact'"):
        fit().influence(method="onestep")
