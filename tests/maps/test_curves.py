"""Curves of coefficients: smoothed, with bands that are the pointwise interval of one time and
cover whole curves.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace
from interlace_jax.maps import curves

T = 25


@cache
def _many(subjects=12) -> interlace.Many:
    rng = np.random.default_rng(4)
    s, at = np.repeat(np.arange(subjects), 8), np.linspace(0, 1, T)
    x = np.tile([-0.5, 0.5], 4 * subjects)
    root = np.linalg.cholesky(np.exp(-0.5 * ((at[:, None] - at) / 0.15) ** 2) + 1e-8 * np.eye(T))
    b = rng.normal(size=(2, subjects, T)) @ root.T
    Y = (
        x[:, None] * np.sin(2 * np.pi * at)
        + b[0][s]
        + 0.7 * x[:, None] * b[1][s]
        + rng.normal(size=(len(s), T))
    )
    data = pd.DataFrame({"s": s, "x": x})
    return interlace.fit_many(
        "~ x + (1 + x | s)", data, responses=pd.DataFrame(Y, columns=at), progress=False
    )


def test_without_smoothing_the_curve_is_that_of_the_coefficients():
    found = _many().curves("x", smooth="none", seed=1)
    assert_allclose(found.table["smooth"], _many().fe_params["x"])
    assert_allclose(found.table["time"], np.linspace(0, 1, T))
    # In this balanced design the influences are the subjects' own differences: a one-sample t
    # interval of them.
    Y, data = _many().work.Y.read(0, T), _many().work.data
    cells = pd.DataFrame(Y).groupby([data["s"], data["x"] > 0]).mean()
    own = (cells.xs(True, level="x") - cells.xs(False, level="x")).to_numpy()
    assert_allclose(found.table["se"], own.std(0, ddof=1) / np.sqrt(12), rtol=1e-6)
    half = stats.t.ppf(0.975, 11) * found.table["se"]
    assert_allclose(found.table["upper"], found.table["estimate"] + half)
    assert_allclose(found.covariance, np.cov(own.T) / 12, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("band", ["flip", "t"])
def test_the_joint_band_is_wider_than_the_pointwise_one_and_narrower_than_bonferronis(band):
    found = _many().curves("x", band=band, seed=1)
    assert stats.t.ppf(0.975, 11) < found.quantile < stats.t.ppf(1 - 0.025 / T, 11) * 1.1
    table = found.table
    assert_allclose(table["joint_upper"] - table["smooth"], found.quantile * table["se"])
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-12


def test_the_joint_band_of_one_time_is_the_pointwise_interval():
    influence = np.random.default_rng(0).normal(size=(40, 1))
    influence -= influence.mean()
    se = np.sqrt(40 / 39 * np.sum(influence**2, 0))
    for quantile in (curves._t_quantile, curves._flip_quantile):
        # of 5000 draws
        assert_allclose(quantile(influence, se, 0.9, 1), stats.t.ppf(0.95, 39), rtol=0.03)


def test_smoothing_is_linear_keeps_lines_and_lessens_noise():
    x = np.sort(np.random.default_rng(0).uniform(0, 10, 30))
    A, lam = curves._smoother(
        x, np.sin(x) + np.random.default_rng(1).normal(scale=0.3, size=30), "gcv"
    )
    assert_allclose(A @ (2.0 + 3.0 * x), 2.0 + 3.0 * x, rtol=1e-6)
    assert lam > 0 and 3 < np.trace(A) < 20
    strong, _ = curves._smoother(x, np.zeros(30), 1e6)
    assert np.trace(strong) < 2.5


def test_times_may_come_in_any_order():
    order = np.random.default_rng(0).permutation(T)
    Y, at = _many().work.Y.read(0, T), np.linspace(0, 1, T)
    shuffled = interlace.fit_many(
        "~ x + (1 + x | s)", _many().work.data, responses=Y[:, order], progress=False
    )
    ours, expected = (
        shuffled.curves("x", at[order], seed=1).table,
        _many().curves("x", seed=1).table,
    )
    assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(time=np.zeros(T)), "each once"),
        (dict(time=np.arange(3)), "shape \\(3,\\), but there are 25 models"),
        (dict(band="normal"), "'auto' or 't' or 'flip'"),
        (dict(level=95), "level must lie between 0 and 1"),
    ],
)
def test_what_makes_no_curve_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _many().curves("x", **arguments)
