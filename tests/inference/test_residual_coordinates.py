"""Profiles of the numbers of a residual covariance: what their coordinates stand for, and the
likelihood at a limit.
"""

from dataclasses import dataclass
from functools import cache

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose
from scipy import optimize, stats

import interlace_jax as interlace
from interlace_jax.inference.residual_coordinates import in_order, residual_coordinates
from interlace_jax.models.residual import psi_of, residual_names, residual_values


@cache
def data():
    """20 subjects of two arms and 3 visits, some missing."""
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"id": np.repeat(np.arange(20), 3), "visit": np.tile(list("abc"), 20)})
    d["arm"] = np.where(d["id"] % 2, "A", "B")
    d["x"] = rng.normal(size=60)
    d["y"] = (
        d["x"] + np.repeat(rng.normal(size=20), 3) + rng.normal(size=60) * np.tile([1, 1.5, 2], 20)
    )
    return d[rng.random(60) < 0.9].reset_index(drop=True)


@pytest.mark.parametrize(
    "residual",
    [
        "us(visit | arm / id)",
        "ar1h(visit | arm / id)",
        "toeph(visit | arm / id)",
        "cs(visit | id)",
        "diag(visit | id)",
    ],
)
def test_coordinates_are_the_numbers_that_are_reported(residual):
    model = interlace.compile("y ~ x", data(), residual=residual, dispersion="~ x")
    design, given = model.design, model.design.residual
    rng, sigma = np.random.default_rng(0), 1.7
    theta = rng.normal(scale=0.4, size=design.parameter_count)
    values = dict(zip(residual_names(given), residual_values(design, theta, sigma), strict=True))
    for name, at in residual_coordinates(given).items():
        psi = psi_of(design, theta)
        if at.order:
            psi = in_order(given.covariance, psi, at.order)[0]
            assert_allclose(psi[at.at] / np.hypot(1.0, psi[at.at]), values[name], rtol=1e-10)
        elif at.is_log_sd:
            c = np.log(sigma) + sum(psi[i] for i in (at.at, *at.others) if i >= 0)
            assert_allclose(np.exp(c), values[name], rtol=1e-10)
        elif at.of_lag:
            aim, moved = np.arctanh(values[name]) + 0.1, theta.copy()
            moved[at.at] = np.asarray(given.covariance.held(jnp.asarray(psi), aim))[at.at]
            # those of longer lags follow
            got = dict(zip(values, residual_values(design, moved, sigma), strict=True))
            changed = [n for n in values if not np.isclose(got[n], values[n], rtol=1e-6)]
            assert changed[0] == name
            assert_allclose(np.arctanh(got[name]), aim, rtol=0, atol=1e-5)
        else:
            moved = theta.copy()
            moved[at.at] += 0.3
            changed = residual_values(design, moved, sigma) != residual_values(design, theta, sigma)
            assert [n for n, is_other in zip(values, changed, strict=True) if is_other] == [name]


@cache
def subjects():
    """Visits, X and y of every subject."""
    return [
        (
            rows["visit"].map({"a": 0, "b": 1, "c": 2}).to_numpy(),
            np.column_stack([np.ones(len(rows)), rows["x"]]),
            rows["y"].to_numpy(),
        )
        for _, rows in data().groupby("id")
    ]


def deviance(sds, rho):
    """-2 log L_REML of y ~ x with any covariance matrix of three visits, subject by subject."""
    ab, ac, bc = rho
    S = np.array([[1, ab, ac], [ab, 1, bc], [ac, bc, 1]]) * np.outer(sds, sds)
    if np.linalg.eigvalsh(S)[0] <= 0:
        return np.inf
    A, b, yy, logdet, n = np.zeros((2, 2)), np.zeros(2), 0.0, 0.0, 0
    for at, X, y in subjects():
        V = S[np.ix_(at, at)]
        VX = np.linalg.solve(V, X)
        A, b, yy = A + X.T @ VX, b + VX.T @ y, yy + y @ np.linalg.solve(V, y)
        logdet, n = logdet + np.linalg.slogdet(V)[1], n + len(at)
    return (
        logdet
        + np.linalg.slogdet(A)[1]
        + yy
        - b @ np.linalg.solve(A, b)
        + (n - 2) * np.log(2 * np.pi)
    )


def test_at_a_limit_the_deviance_has_risen_by_the_quantile():
    f = quiet_fit("y ~ x", data(), residual="us(visit | id)")
    names = ["rho a,c | visit within id", "sd b"]
    table = f.confint(method="profile", criterion="REML", parm=names)
    sds, rho = (
        f.parameters[["sd a", "sd b", "sd c"]].to_numpy(),
        f.structure["estimate"].to_numpy()[3:],
    )
    top = f.deviance + stats.chi2.ppf(0.95, 1)

    def of_rho(x):
        return deviance(np.exp(x[:3]), np.tanh([x[3], held, x[4]]))

    def of_sd(x):
        return deviance([np.exp(x[0]), table.loc["sd b", "lower"], np.exp(x[1])], np.tanh(x[2:]))

    held = np.arctanh(table.loc[names[0], "lower"])
    options = dict(method="BFGS")
    start = np.arctanh(rho)
    lowest = optimize.minimize(of_rho, [*np.log(sds), start[0], start[2]], **options)
    assert_allclose(lowest.fun, top, rtol=0, atol=1e-3)
    lowest = optimize.minimize(of_sd, [*np.log(sds[[0, 2]]), *start], **options)
    assert_allclose(lowest.fun, top, rtol=0, atol=1e-3)


def test_a_toeplitz_correlation_of_a_longer_lag_is_held():
    f = quiet_fit("y ~ x", data(), residual="toep(visit | id)")
    name = "rho 2 | visit within id"
    limit = f.confint(method="profile", criterion="REML", parm=[name]).loc[name, "upper"]
    sigma, first = f.sigma, f.structure["estimate"].iloc[0]

    def of_others(x):
        return deviance(np.exp(x[0]) * np.ones(3), [np.tanh(x[1]), limit, np.tanh(x[1])])

    lowest = optimize.minimize(of_others, [np.log(sigma), np.arctanh(first)], method="BFGS")
    top = f.deviance + stats.chi2.ppf(0.95, 1)
    assert_allclose(lowest.fun, top, rtol=0, atol=1e-3)


@dataclass(frozen=True)
class Neighbours(interlace.Structure):
    """One correlation of neighbours, and none of others."""

    def names(self, k):
        return ("rho",)

    def natural(self, x, k):
        return 0.5 * jnp.tanh(x)

    def matrix(self, x, k):
        return jnp.eye(k) + 0.5 * jnp.tanh(x[0]) * (jnp.eye(k, k=1) + jnp.eye(k, k=-1))


def test_what_has_no_coordinate_is_refused_by_name():
    residual = interlace.Residual(Neighbours(), time="visit", subject="id")
    f = quiet_fit("y ~ x", data(), residual=residual)
    with pytest.raises(
        ValueError, match="no profiles of 'rho', numbers of a structure of your own"
    ):
        f.confint(method="profile")
