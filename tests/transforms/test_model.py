"""model.loglik and the fit under JAX's transformations, whether JAX is 64 bits wide or not."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import oracle
from helpers.cases import load_case
from helpers.fits import fitted
from numpy.testing import assert_allclose

import interlace_jax as interlace

CASE = load_case("sleepstudy_slope_REML")
THETA = np.array([0.8, 0.1, 0.3])
WIDTHS = pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])


@pytest.fixture(scope="module")
def model():
    return fitted(CASE.name).model


@pytest.fixture(scope="module")
def expected():
    """Value, gradient and Hessian of the log-likelihood by the dense oracle."""

    def loglik(theta):
        return -0.5 * oracle.deviance(CASE.problem, theta, True)

    return loglik(THETA), oracle.gradient(loglik, THETA), oracle.hessian(loglik, THETA)


def rtol(wide):
    # float32 in and out, float64 between: the value is rounded once, theta is another one by 6e-8
    # relative.
    return 1e-7 if wide else 2e-6


def theta_of(wide):
    return jnp.asarray(THETA, jnp.float64 if wide else jnp.float32)


@WIDTHS
def test_value_gradient_and_hessian_are_the_oracles(model, expected, wide):
    with jax.enable_x64(wide):
        theta = theta_of(wide)
        value, gradient = jax.value_and_grad(model.loglik)(theta)
        hessian = jax.hessian(model.loglik)(theta)
        assert value.dtype == gradient.dtype == hessian.dtype == theta.dtype
    for ours, theirs in zip((value, gradient, hessian), expected, strict=True):
        assert_allclose(ours, theirs, rtol=rtol(wide), atol=rtol(wide) * np.abs(theirs).max())


@WIDTHS
def test_compiled_and_batched_it_is_the_same(model, wide):
    with jax.enable_x64(wide):
        theta = theta_of(wide)
        thetas = jnp.stack([theta, 2 * theta, jnp.zeros_like(theta)])
        loop = [model.loglik(t) for t in thetas]
        assert_allclose(jax.jit(model.loglik)(theta), loop[0], rtol=1e-7)
        assert_allclose(jax.vmap(model.loglik)(thetas), loop, rtol=1e-7)
        slopes = jax.jit(jax.vmap(jax.grad(model.loglik)))(thetas)
        assert_allclose(slopes[1], jax.grad(model.loglik)(thetas[1]), rtol=rtol(wide))


@WIDTHS
def test_jvp_of_grad_is_a_product_with_the_hessian(model, expected, wide):
    along = np.array([1.0, -2.0, 0.5])
    with jax.enable_x64(wide):
        theta = theta_of(wide)
        _, product = jax.jvp(jax.grad(model.loglik), (theta,), (jnp.asarray(along, theta.dtype),))
    assert_allclose(
        product, expected[2] @ along, rtol=rtol(wide), atol=rtol(wide) * np.abs(expected[2]).max()
    )


def test_in_float32_the_value_is_float64_rounded_once(model):
    with jax.enable_x64(False):
        theta = theta_of(False)
        value = model.loglik(theta)
    exact = model.loglik(np.asarray(theta, np.float64))
    assert_allclose(value, exact, rtol=2.0**-24 * 1.001)


def test_deviance_is_minus_twice_the_loglik_for_both_criteria(model):
    with jax.enable_x64(True):
        for reml in (True, False):
            assert_allclose(
                model.deviance(theta_of(True), reml),
                -2 * model.loglik(theta_of(True), reml),
                rtol=1e-12,
            )
            assert_allclose(
                model.deviance(THETA, reml), oracle.deviance(CASE.problem, THETA, reml), rtol=1e-12
            )


def test_newtons_method_written_by_the_user_ends_where_the_fit_does(model):
    with jax.enable_x64(True):

        @jax.jit
        def newton(theta):
            return theta - jnp.linalg.solve(
                jax.hessian(model.deviance)(theta), jax.grad(model.deviance)(theta)
            )

        theta = jnp.asarray([0.9, 0.05, 0.25])
        for _ in range(6):
            theta = newton(theta)
        assert_allclose(theta, CASE.theta, atol=1e-7)
        assert_allclose(model.deviance(theta), CASE["objective"], rtol=0, atol=1e-8)


def one_way(m, n, seed=0):
    rng = np.random.default_rng(seed)
    g = rng.permutation(np.arange(n) % m)
    y = rng.normal(size=m)[g] + rng.normal(size=n)
    return dict(y=y, x=rng.normal(size=n), g=[f"g{i:03d}" for i in g])


def test_data_of_similar_size_share_their_executables(caplog):
    interlace.fit("y ~ x + (1 | g)", pd.DataFrame(one_way(101, 1000)))
    with jax.log_compiles():
        for m, n in ((101, 1000), (103, 1020), (97, 1024)):
            interlace.fit("y ~ x + (1 | g)", pd.DataFrame(one_way(m, n, seed=n)))
            interlace.fit("y ~ x + (1 | g)", pd.DataFrame(one_way(m, n, seed=n)), method="ML")
    assert not [message for message in caplog.messages if message.startswith("Compiling")]


def test_models_are_not_kept_alive_by_the_compiled_programs():
    fit = interlace.fit("y ~ x + (1 | g)", pd.DataFrame(one_way(101, 1000)))
    reference = weakref.ref(fit.model)
    del fit
    gc.collect()
    assert reference() is None
