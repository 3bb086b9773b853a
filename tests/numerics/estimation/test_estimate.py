"""The pure fit: the right optimum from anywhere, the truth about the boundary, one program for
one fit and many.
"""

import numpy as np
import pytest
from helpers import arrays, oracle
from helpers.cases import load_case
from helpers.estimates import solve
from helpers.fits import fitted
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.numerics.estimation import bfgs


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


def test_a_batch_of_responses_is_a_loop(singular):
    problems, found = singular
    for i in range(4):
        alone = solve(arrays.condition(problems[i]))
        assert_allclose(found.deviance[i], alone.deviance, rtol=0, atol=1e-9)
        assert_allclose(found.theta[i], alone.theta, atol=1e-5)
        assert_allclose(found.beta[i], alone.beta, atol=1e-5)
        assert_array_equal(found.theta[i] == 0, alone.theta == 0)
        assert found.status[i] == alone.status
