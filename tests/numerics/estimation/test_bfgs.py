"""BFGS on functions whose minima are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.numerics.estimation import bfgs

pytestmark = pytest.mark.usefixtures("x64")


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quadratic(x):
    scales = 10.0 ** jnp.arange(-2, x.shape[0] - 2)
    return 0.5 * jnp.sum(scales * (x - 1) ** 2) + 0.01 * x[0] * x[1]


def minimise(function, x, tol=None):
    return _minimise(function, tol)(jnp.asarray(x, float))


def _minimise(function, tol=None):
    def run(x):
        return bfgs.minimise(jax.value_and_grad(function), bfgs.start(x, jnp.ones_like(x)), tol)

    return quick_jit(run)


@pytest.mark.parametrize("start", [[-1.2, 1.0], [3.0, -4.0], [0.0, 0.0]])
def test_rosenbrocks_valley_is_followed_to_its_end(start):
    found = minimise(rosenbrock, start)
    assert found.status == bfgs.CONVERGED
    # A predicted decrease below 1e-12 is a distance below 1e-6 / sqrt(curvature 0.4).
    assert_allclose(found.x, 1, atol=5e-6)
    assert found.f < 1e-11
    assert found.steps < 80


def test_a_badly_scaled_quadratic_is_solved_within_its_predicted_decrease():
    found = minimise(quadratic, [5.0, -3.0, 2.0, 7.0])
    H = np.asarray(jax.hessian(quadratic)(found.x))
    g = np.asarray(found.g)
    assert found.status == bfgs.CONVERGED
    assert 0.5 * g @ np.linalg.solve(H, g) < 1e-10
    assert_allclose(found.predicted_decrease, 0.5 * g @ np.asarray(found.H) @ g, rtol=1e-10)


def test_gradient_and_value_are_those_at_the_point_returned():
    found = minimise(rosenbrock, [-1.2, 1.0])
    value, gradient = jax.value_and_grad(rosenbrock)(found.x)
    assert_allclose(found.f, value, atol=1e-20)
    assert_allclose(found.g, gradient, atol=1e-12)


def test_it_agrees_with_optimistix():
    optimistix = pytest.importorskip("optimistix")

    def f(x, args=None):
        return jnp.sum(jnp.cosh(x - jnp.arange(3.0))) + 0.3 * jnp.prod(jnp.sin(x))

    theirs = optimistix.minimise(f, optimistix.BFGS(rtol=1e-10, atol=1e-10), jnp.ones(3) / 2)
    assert_allclose(minimise(f, jnp.ones(3) / 2).x, theirs.value, atol=1e-6)


def test_a_stationary_start_is_where_it_stays():
    found = minimise(rosenbrock, [1.0, 1.0])
    assert found.status == bfgs.CONVERGED
    assert found.steps == 1
    assert_array_equal(found.x, 1)


def test_steps_into_nan_are_shortened():
    def barrier(x):  # NaN for x <= 0, minimum at 0.01
        return jnp.sum(x - 0.01 * jnp.log(x))

    found = minimise(barrier, [3.0])
    assert found.status == bfgs.CONVERGED
    assert_allclose(found.x, 0.01, rtol=1e-3)


def test_a_start_where_the_function_is_nan_is_given_up_at_once():
    found = minimise(lambda x: jnp.sum(jnp.log(x)), [-1.0])
    assert found.status == bfgs.STALLED
    assert found.steps == 1
    assert_array_equal(found.x, -1)


def test_a_function_without_minimum_ends_at_the_step_limit():
    found = minimise(lambda x: jnp.sum(x), [0.0])
    assert found.status == bfgs.EXHAUSTED
    assert found.steps == bfgs.MAX_STEPS


def test_where_the_minimum_is_at_infinity_it_stops_before_digits_are_lost():
    found = minimise(lambda x: 200.0 / (1.0 + x[0] ** 2), [1.0])
    assert found.status == bfgs.CONVERGED
    assert found.f < 1e-4 and abs(found.x[0]) < 1e5


def test_a_kink_is_no_endless_loop():
    found = minimise(lambda x: jnp.sum(jnp.abs(x - 0.3)), [5.0])
    assert found.status != bfgs.RUNNING
    assert found.steps <= bfgs.MAX_STEPS
    assert_allclose(found.x, 0.3, atol=1e-3)


def test_a_batch_is_a_loop():
    starts = np.array([[-1.2, 1.0], [3.0, -4.0], [1.0, 1.0], [0.5, 0.2]])
    one = _minimise(rosenbrock)
    batch = jax.vmap(_minimise(rosenbrock))(starts)
    for i, start in enumerate(starts):
        alone = one(start)
        assert batch.status[i] == alone.status
        # Fused differently, lanes round differently: the ends agree to what convergence means.
        assert_allclose(batch.x[i], alone.x, atol=1e-5)
        assert abs(int(batch.steps[i]) - int(alone.steps)) <= 3


def test_finished_states_are_not_changed_by_further_steps():
    found = minimise(rosenbrock, [-1.2, 1.0])
    again = quick_jit(lambda s: bfgs.step(jax.value_and_grad(rosenbrock), s, 1e-12))(found)
    jax.tree.map(assert_array_equal, again, found)


def test_in_float32_it_stops_at_float32_accuracy():
    found = _minimise(rosenbrock)(jnp.asarray([-1.2, 1.0], jnp.float32))
    assert found.x.dtype == jnp.float32
    assert found.status == bfgs.CONVERGED
    assert_allclose(found.x, 1, atol=1e-2)
