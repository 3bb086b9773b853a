"""The pure fit: the right optimum from anywhere, the truth about the boundary, one program for
one fit and many.
"""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from helpers import arrays, oracle
from helpers.cases import load_case
from helpers.fits import fitted
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.numerics.covariance import parameters
from interlace_jax.numerics.estimation import bfgs, boundary, estimate, start
from interlace_jax.runtime import calls

_estimate = arrays.quick_jit(estimate.estimate)
_many = arrays.quick_jit(jax.vmap(estimate.estimate, in_axes=(0, None)))


def solve(m, reml=True, t0=None):
    return calls.run(_estimate, m, reml, t0)


def stacked(problems):
    return jax.tree.map(lambda *parts: np.stack(parts), *[arrays.condition(p) for p in problems])


@pytest.fixture(scope="module")
def slope():
    return oracle.random_design(0, "slope")


@pytest.fixture(scope="module")
def singular(slope):
    """Sixteen responses with a true correlation of 1 and much noise: about half of the fits are
    on the boundary.
    """
    rng = np.random.default_rng(5)
    b = rng.normal(size=(16, 8)) * 0.6
    f = slope.factors[0]
    y = b[:, f.codes] * (f.Z @ [1.0, 0.4]) + rng.normal(size=(16, 60))
    problems = [replace(slope, y=y[i]) for i in range(16)]
    return problems, calls.run(_many, stacked(problems), True)


@pytest.mark.parametrize("name", ["sleepstudy_slope_REML", "sleepstudy_slope_ML"])
def test_the_pure_estimate_is_the_fit(name):
    fit = fitted(name)
    found = solve(fit.model.moments, fit.method == "REML")
    for field in ("t", "theta", "beta", "sigma", "vcov", "deviance"):
        assert_allclose(
            getattr(found, field), getattr(fit.estimate, field), rtol=1e-8, err_msg=field
        )
    assert found.status == bfgs.CONVERGED


@pytest.mark.parametrize("reml", [True, False])
def test_the_optimum_is_the_oracles(slope, reml):
    found, theta = solve(arrays.condition(slope), reml), oracle.fit(slope, reml)
    best = oracle.deviance(slope, theta, reml)
    assert_allclose(found.deviance, best, rtol=0, atol=1e-8)
    assert_allclose(found.theta, theta, atol=1e-5)
    assert_allclose(found.sigma, oracle.sigma(slope, theta, reml), rtol=1e-6)
    assert np.all(found.gradient < 1e-4)


def test_every_start_ends_at_the_same_optimum(slope):
    m = arrays.condition(slope)
    best = solve(m)
    # A zero column is stationary in itself, and zero everywhere is stationary altogether: only
    # curvature tells.
    for t0 in ([0.0, 0, 0], [1.0, 0.2, 0], [0, 0, 1.0], [-2, 1, -3.0], [10, -10, 10.0]):
        found = solve(m, True, np.array(t0))
        assert_allclose(found.deviance, best.deviance, rtol=0, atol=1e-9, err_msg=str(t0))
        assert_allclose(found.t, best.t, atol=1e-5, err_msg=str(t0))


def test_a_variance_without_support_is_exactly_zero():
    for name in ("dyestuff2_REML", "dyestuff2_ML"):
        found = solve(fitted(name).model.moments, name.endswith("REML"))
        assert_array_equal(found.theta, 0)
        assert_array_equal(found.gradient, 0)
        assert_allclose(found.deviance, load_case(name)["objective"], rtol=0, atol=1e-8)


def test_boundary_fits_end_in_lme4s_form(singular):
    _, found = singular
    on_boundary = found.theta[:, 2] == 0
    assert 4 <= on_boundary.sum() <= 12
    # A zero diagonal has a zero column below it; the others are positive.
    no_intercept = found.theta[:, 0] == 0
    assert_array_equal(found.theta[no_intercept, 1], 0)
    assert np.all(found.theta[:, [0, 2]] >= 0)
    # On the boundary exactly, or clearly off it: nothing in between.
    assert found.theta[~on_boundary, 2].min() > 1e-3


def test_boundary_fits_are_no_worse_than_the_best_found_without_derivatives(singular):
    problems, found = singular
    for i in range(0, 16, 3):
        best = oracle.deviance(problems[i], oracle.fit(problems[i], True, starts=2), True)
        assert found.deviance[i] < best + 1e-7


def test_a_batch_of_responses_is_a_loop(singular):
    problems, found = singular
    for i in range(4):
        alone = solve(arrays.condition(problems[i]))
        assert_allclose(found.deviance[i], alone.deviance, rtol=0, atol=1e-9)
        assert_allclose(found.theta[i], alone.theta, atol=1e-5)
        assert_allclose(found.beta[i], alone.beta, atol=1e-5)
        assert_array_equal(found.theta[i] == 0, alone.theta == 0)
        assert found.status[i] == alone.status


def test_moment_starts_are_positive_and_in_the_neighbourhood():
    problem = oracle.random_design(0, "nested_crossed")
    m = arrays.condition(problem)
    t = calls.run(arrays.quick_jit(start.moment_start), m)
    diagonals = [c[0] for c in parameters.columns(m.layout.blocks)]
    assert np.all(t[diagonals] > 0) and np.all(t[diagonals] < 5)
    assert_array_equal(np.delete(t, diagonals), 0)


def test_moment_starts_of_a_large_one_way_layout_are_nearly_the_estimates():
    rng = np.random.default_rng(0)
    m, r = 400, 5
    codes = np.repeat(np.arange(m), r)
    y = 1.5 * rng.normal(size=m)[codes] + rng.normal(size=m * r)
    factor = oracle.Factor(codes, np.ones((m * r, 1)), m, ((0,),))
    moments = arrays.condition(oracle.Problem(y, np.ones((m * r, 1)), (factor,)))
    t = calls.run(arrays.quick_jit(start.moment_start), moments)
    between, within = y.reshape(m, r).mean(1).var(ddof=1), y.reshape(m, r).var(1, ddof=1).mean()
    # the method of moments of a textbook
    assert_allclose(t, np.sqrt(between / within - 1 / r), rtol=0.02)


def test_settling_an_interior_optimum_changes_nothing(slope):
    m = arrays.condition(slope)
    t = solve(m).t
    settled = calls.run(arrays.quick_jit(boundary.settle), t, m, True)
    assert not settled.restart
    assert_allclose(settled.t, t, atol=1e-12)


def test_zero_columns_are_those_with_nothing_but_zeros(slope):
    blocks = arrays.plan(slope).layout.blocks
    with jax.enable_x64(True):
        zero = partial(boundary.zero_columns, blocks=blocks)
        assert_array_equal(zero(np.array([1.0, 0, 0]))[1], [False, False, True])
        assert_array_equal(zero(np.array([0.0, 1, 0]))[1], [False, False, True])
        assert_array_equal(zero(np.array([0.0, 0, 1]))[1], [True, True, False])
        within, _ = zero(np.zeros(3))
    assert_array_equal(within, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
