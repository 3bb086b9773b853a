"""The factorisations against NumPy, and their derivative rules against plain autodiff through
the factorisation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from helpers.matrices import positive, symmetric
from numpy.testing import assert_allclose

from interlace_jax.numerics.linalg import matrices

pytestmark = pytest.mark.usefixtures("x64")


def plain(M, C):
    """The same by NumPy-like operations, differentiated by JAX. Symmetrised: only symmetric M
    have a meaning.
    """
    M = 0.5 * (M + M.T)
    L = jnp.linalg.cholesky(M)
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(L))), C.T @ jnp.linalg.inv(M) @ C


def scalar(function):
    """A scalar of both outputs along a line of (M, C), all of whose derivatives are then
    comparable.
    """

    def of(x, M, dM, C, dC):
        M = M + x * dM + x**2 * dM @ dM / 10
        logdet, quadratic = function(M, C + x * dC)
        return logdet**2 + jnp.sum(jnp.sin(quadratic))

    return of


@pytest.mark.parametrize("q", [2, 6])  # unrolled, and by the rule
def test_derivatives_to_third_order_are_those_of_plain_autodiff(q):
    rng = np.random.default_rng(q)
    data = (
        positive(rng, q),
        symmetric(rng, q) / 10,
        rng.normal(size=(q, 3)) / 2,
        rng.normal(size=(q, 3)) / 2,
    )

    @quick_jit
    def ours(x, *data):
        f = scalar(matrices.logdet_quadratic)
        second = jax.jacfwd(jax.grad(f))
        return (
            f(x, *data),
            jax.grad(f)(x, *data),
            second(x, *data),
            jax.jacfwd(second)(x, *data),
            _third(f, x, *data),
        )

    @quick_jit
    def theirs(x, *data):
        f = scalar(plain)
        second = jax.jacfwd(jax.jacfwd(f))
        return f(x, *data), jax.jacfwd(f)(x, *data), second(x, *data), jax.jacfwd(second)(x, *data)

    value, first, second, third, mixed = ours(0.3, *data)
    assert_allclose(
        np.array([value, first, second, third]), np.array(theirs(0.3, *data)), rtol=1e-9
    )
    assert_allclose(mixed, third, rtol=1e-9)


def _third(f, x, *data):
    """Reverse over forward over reverse."""
    return jax.grad(lambda x: jax.jvp(lambda x: jax.grad(f)(x, *data), (x,), (1.0,))[1])(x)


def test_grad_of_jvp_and_jvp_of_grad_are_those_of_plain_autodiff_in_all_entries():
    rng = np.random.default_rng(0)
    M, C, dM, dC = (
        positive(rng, 6),
        rng.normal(size=(6, 2)),
        symmetric(rng, 6),
        rng.normal(size=(6, 2)),
    )

    def both(function):
        def f(M, C):
            logdet, quadratic = function(0.5 * (M + M.T), C)
            return logdet + jnp.sum(quadratic**2)

        def of(M, C):
            gradient = jax.grad(f, (0, 1))
            return gradient(M, C), jax.jvp(gradient, (M, C), (dM, dC))[1], _grad_of_jvp(f, M, C)

        return quick_jit(of)(M, C)

    def _grad_of_jvp(f, M, C):
        return jax.grad(lambda M, C: jax.jvp(f, (M, C), (dM, dC))[1], (0, 1))(M, C)

    jax.tree.map(
        lambda a, b: assert_allclose(a, b, rtol=1e-8, atol=1e-8),
        both(matrices.logdet_quadratic),
        both(plain),
    )


def test_the_inverse_and_its_derivatives_are_those_of_plain_autodiff():
    rng = np.random.default_rng(1)
    M, dM = positive(rng, 5), symmetric(rng, 5)

    def derivatives(function):
        def f(x):
            return function(M + x * dM / 10)

        first = jax.jacfwd(f)
        second = jax.jacfwd(first)
        backwards = jax.grad(lambda x: jnp.sum(jnp.sin(first(x))))
        return quick_jit(
            lambda x: (f(x), first(x), second(x), jax.jacfwd(second)(x), backwards(x))
        )(0.2)

    ours, theirs = derivatives(matrices.inverse), derivatives(jnp.linalg.inv)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-8, atol=1e-9), ours, theirs)


def test_a_batch_is_a_loop():
    rng = np.random.default_rng(2)
    M, C = np.stack([positive(rng, 5) for _ in range(3)]), rng.normal(size=(3, 5, 2))

    def value_and_slopes(M, C):
        def f(M, C):
            logdet, quadratic = matrices.logdet_quadratic(M, C)
            return logdet + jnp.sum(quadratic)

        return f(M, C), jax.grad(f, (0, 1))(M, C), matrices.inverse(M)

    batch = quick_jit(jax.vmap(value_and_slopes))(M, C)
    one = quick_jit(value_and_slopes)
    loop = jax.tree.map(lambda *parts: np.stack(parts), *[one(M[i], C[i]) for i in range(3)])
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-12, atol=1e-12), batch, loop)


def test_nothing_to_factor_is_nothing():
    logdet, quadratic = matrices.logdet_quadratic(jnp.zeros((0, 0)), jnp.zeros((0, 2)))
    assert logdet == 0
    assert_allclose(quadratic, np.zeros((2, 2)))


def test_a_matrix_that_is_not_positive_gives_nan_and_no_error():
    logdet, _ = matrices.logdet_quadratic(-jnp.eye(5), jnp.ones((5, 1)))
    assert np.isnan(logdet)


def test_inverses_and_cholesky_have_the_derivatives_of_plain_autodiff():
    rng = np.random.default_rng(3)
    M = jnp.asarray(positive(rng, 4))
    weights = rng.normal(size=(4, 4))
    pairs = [
        (matrices.cholesky, jnp.linalg.cholesky),
        (matrices.inverse_general, jnp.linalg.inv),
        (lambda M: matrices.inverse_lower(jnp.tril(M)), lambda M: jnp.linalg.inv(jnp.tril(M))),
        (lambda M: matrices.inverse_upper(jnp.triu(M)), lambda M: jnp.linalg.inv(jnp.triu(M))),
    ]
    for own, plain in pairs:
        found, expected = (
            quick_jit(jax.hessian(lambda M, f=f: jnp.sum(weights * f(M))))(M) for f in (own, plain)
        )
        assert_allclose(found, expected, atol=1e-10)
