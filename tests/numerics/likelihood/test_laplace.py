"""The Laplace deviance against dense matrices and quadrature; its gradient and its derivatives
of every order.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import generalized as helper
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose
from scipy import integrate, special

from interlace_jax.numerics.covariance.across import Known
from interlace_jax.numerics.covariance.structures import AR1
from interlace_jax.numerics.estimation import generalized
from interlace_jax.numerics.families import family as F
from interlace_jax.numerics.likelihood import laplace
from interlace_jax.runtime import calls


def rows(seed=0, n=120):
    """Crossed and nested codes, a covariate, and random numbers to draw with."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 6, n)
    return rng, a, a // 2, rng.integers(0, 5, n), rng.normal(size=n)


def columns(x):
    return np.column_stack([np.ones(len(x)), x])


def model(kind):
    """A model of some structure; its family is not always concave."""
    rng, a, outer, b, x = rows()
    X, one, n = columns(x), np.ones((len(x), 1)), len(x)
    binary, counts = rng.integers(0, 2, n), rng.poisson(2.0, n)
    m = rng.integers(1, 6, n)
    K = np.eye(6) + 0.5
    return {
        "slope": lambda: helper.case(F.Bernoulli(), binary, X, [a], [X]),
        "independent": lambda: helper.case(F.Poisson(), counts, X, [a], [X], sizes=[(1, 1)]),
        "four_columns": lambda: helper.case(
            F.Poisson(), counts, X, [a], [np.column_stack([X, x**2, rng.normal(size=n)])]
        ),
        "nested": lambda: helper.case(
            F.Binomial("probit"), rng.binomial(m, 0.4), X, [a, outer], [X, one], m=m
        ),
        "crossed": lambda: helper.case(
            F.NegativeBinomial(), counts, X, [a, b], [one, one], g0=[0.4]
        ),
        "crossed_slopes": lambda: helper.case(F.Poisson(), counts, X, [a, b], [X, X]),
        "weights": lambda: helper.case(
            F.Gamma(),
            rng.gamma(2, 1, n),
            X,
            [a],
            [one],
            w=rng.uniform(0.5, 2, n),
            offset=0.1 * x,
            g0=[-0.5],
        ),
        "dispersion": lambda: helper.case(
            F.NegativeBinomial(variance="linear"), counts, X, [a], [one], D=[X], g0=[0.2, 0.1]
        ),
        "inflated": lambda: helper.case(
            F.ZeroInflated(F.Poisson()),
            counts * rng.integers(0, 2, n),
            X,
            [a],
            [one],
            D=[X],
            g0=[-0.3, 0.2],
        ),
        "student": lambda: helper.case(
            F.Student(), rng.standard_t(4, n), X, [a], [one], g0=[0.1, 1.5]
        ),
        "ordinal": lambda: helper.case(
            F.Ordinal("probit", ("a", "b", "c")),
            rng.integers(0, 3, n),
            X[:, 1:],
            [a],
            [one],
            g0=[-0.5, 0.1],
        ),
        "autoregressive": lambda: helper.case(
            F.Poisson(), counts, X, [a], [X], covariances=[(AR1(), None)]
        ),
        "known": lambda: helper.case(
            F.Poisson(),
            counts,
            X,
            [a],
            [X],
            covariances=[(None, Known(K))],
            K=[np.linalg.cholesky(K)],
        ),
    }[kind]()


KINDS = (
    "slope",
    "independent",
    "four_columns",
    "nested",
    "crossed",
    "crossed_slopes",
    "weights",
    "dispersion",
    "inflated",
    "student",
    "ordinal",
    "autoregressive",
    "known",
)


@pytest.fixture(scope="module", params=KINDS)
def placed(request):
    """Data, a place that is no optimum, and the mode there."""
    begun = helper.begun(model(request.param))
    rng = np.random.default_rng(3)
    x = laplace.Place(*(part + 0.2 * rng.uniform(0.5, 1.0, len(part)) for part in begun.x))
    u = calls.run(helper.mode, x, helper.zero_modes(begun.data), begun.data)
    return begun.data, x, u


@quick_jit
def predictor(x, data, u):
    """Linear predictors (n,)."""
    return laplace.linear_predictor(x, data, laplace.factors_at(x.t, data), u)


def test_the_deviance_and_the_modes_are_those_of_dense_matrices(placed):
    data, x, u = placed
    value, along = helper.dense_laplace(x, data)
    # Sums of a hundred rows, each good to rounding; modes end where h is flat to rounding.
    assert calls.run(helper.deviance_at, x, data, u) == pytest.approx(value, abs=1e-9)
    eta = calls.run(predictor, x, data, u)
    assert_allclose(eta - data.offset - data.X @ x.c, along, atol=1e-8)


def test_the_gradient_is_that_of_autodiff_and_of_differences(placed):
    data, x, u = placed
    f, explicit = calls.run(helper.gradient, x, u, data)
    assert f == pytest.approx(float(calls.run(helper.deviance_at, x, data, u)), abs=1e-9)
    by_autodiff = calls.run(quick_jit(lambda *at: jax.grad(laplace.deviance_at)(*at)), x, data, u)
    for mine, theirs in zip(explicit, by_autodiff, strict=True):
        assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
    h, v = 1e-5, np.concatenate(x)
    for i in range(len(v)):
        ends = []
        for sign in (1, -1):
            moved = laplace.Place(
                *np.split(v + sign * h * np.eye(len(v))[i], np.cumsum([len(p) for p in x])[:-1])
            )
            at = calls.run(helper.mode, moved, u, data)
            ends.append(float(calls.run(helper.deviance_at, moved, data, at)))
        assert np.concatenate(explicit)[i] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-5)


def integral(base, sd, yes, n):
    """-2 log of the integral of a Bernoulli group with one random intercept."""

    def log_integrand(b):
        p = base + sd * b
        return yes * special.log_expit(p) + (n - yes) * special.log_expit(-p) - 0.5 * b * b

    top = max(log_integrand(b) for b in np.linspace(-6, 6, 4001))
    options = dict(epsabs=1e-13, limit=400, points=[0.0])
    area = integrate.quad(lambda b: np.exp(log_integrand(b) - top), -8, 8, **options)[0]
    return -2 * (top + np.log(area / np.sqrt(2 * np.pi)))


def test_the_deviance_tends_to_the_integral_as_groups_grow():
    """Laplace's error falls with the rows of a group."""
    errors = []
    for n in (10, 1000):
        y, code = np.random.default_rng(1).binomial(1, 0.6, 2 * n), np.repeat([0, 1], n)
        one = np.ones((2 * n, 1))
        data, x = helper.begun(helper.case(F.Bernoulli(), y, one, [code], [one]))[:2]
        x = x._replace(t=np.array([0.8]))
        sd, base = 0.8 / float(data.A[0][0, 0]), float(data.offset[0])
        exact = sum(integral(base, sd, y[code == level].sum(), n) for level in (0, 1))
        u = calls.run(helper.mode, x, helper.zero_modes(data), data)
        errors.append(abs(float(calls.run(helper.deviance_at, x, data, u)) - exact))
    assert errors[1] < 0.1 * errors[0] < 0.01


def test_the_hessian_and_third_derivatives_follow_by_differences():
    begun = helper.begun(model("crossed"))
    data, x = begun.data, begun.x
    u = calls.run(helper.mode, x, helper.zero_modes(data), data)
    v, like = np.concatenate(x), x
    hessian = quick_jit(
        lambda v, u: jax.hessian(
            lambda v: laplace.deviance_at(generalized.split(v, like), data, u)
        )(v)
    )
    slope = quick_jit(
        lambda v, u: jax.grad(lambda v: laplace.deviance_at(generalized.split(v, like), data, u))(v)
    )
    at_mode = quick_jit(lambda v, u: laplace.mode(generalized.split(v, like), u, data))
    H, h, numeric, third = calls.run(hessian, v, u), 1e-4, [], []
    for e in np.eye(len(v)):
        ends = [(v + s * h * e, calls.run(at_mode, v + s * h * e, u)) for s in (1, -1)]
        up, down = (calls.run(slope, *end) for end in ends)
        numeric.append((up - down) / (2 * h))
        up, down = (calls.run(hessian, *end) for end in ends)
        third.append((up - down) / (2 * h))
    assert_allclose(H, np.array(numeric), atol=1e-4)
    jet = quick_jit(
        lambda v, u: jax.jacfwd(
            jax.hessian(lambda v: laplace.deviance_at(generalized.split(v, like), data, u))
        )(v)
    )
    assert_allclose(calls.run(jet, v, u), np.moveaxis(np.array(third), 0, -1), atol=2e-3)


def test_derivatives_by_the_rows_are_those_of_the_implicit_function():
    begun = helper.begun(model("weights"))
    data, x = begun.data, begun.x
    u = calls.run(helper.mode, x, helper.zero_modes(data), data)

    def deviance(offset, y):
        return laplace.deviance_at(x, data_with(data, offset, y), u)

    slopes = calls.run(
        quick_jit(lambda *at: jax.grad(deviance, (0, 1))(*at)), data.offset, data.row.y
    )
    h = 1e-5
    for i in (0, 17):
        for j, slope in enumerate(slopes):
            ends = []
            for sign in (1, -1):
                arrays = [np.array(data.offset), np.array(data.row.y)]
                arrays[j][i] += sign * h
                there = data_with(data, *arrays)
                at = calls.run(helper.mode, x, u, there)
                ends.append(float(calls.run(helper.deviance_at, x, there, at)))
            assert slope[i] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-6)


def data_with(data, offset, y):
    """The same rows with another offset and response."""
    return replace(data, offset=offset, row=data.row._replace(y=y))


def test_padded_rows_and_levels_change_nothing():
    rng, a, _, _, x = rows()
    X, one, y = columns(x), np.ones((len(x), 1)), rng.poisson(2.0, len(x))
    plain = helper.case(F.Poisson(), y, X, [a], [one])
    w = np.append(np.ones(len(x)), np.zeros(8))
    padded = [np.concatenate([v, np.zeros((8, *v.shape[1:]), v.dtype)]) for v in (y, X, a, one)]
    wide = helper.case(F.Poisson(), padded[0], padded[1], [padded[2]], [padded[3]], w=w)
    values = []
    for case in (plain, wide):
        data, place = helper.begun(case)[:2]
        u = calls.run(helper.mode, place, helper.zero_modes(data), data)
        values.append(float(calls.run(helper.deviance_at, place, data, u)))
    assert values[0] == pytest.approx(values[1], abs=1e-10)
