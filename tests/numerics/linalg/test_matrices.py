"""The factorisations against NumPy, and their derivative rules against plain autodiff through
the factorisation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import batched_lapack, quick_jit
from numpy.testing import assert_allclose

from interlace_jax.numerics.linalg import batching, matrices
from interlace_jax.numerics.linalg import levels as levels_module

pytestmark = pytest.mark.usefixtures("x64")


def positive(rng, q):
    A = rng.normal(size=(q, q + 3))
    return A @ A.T / q + np.eye(q)


def symmetric(rng, q):
    A = rng.normal(size=(q, q))
    return A + A.T


@pytest.mark.parametrize("k", range(1, 6))
def test_whiten_factors_every_level(k):
    rng = np.random.default_rng(k)
    G = np.stack([positive(rng, k) - np.eye(k) for _ in range(7)], -1)
    Lam, C = np.tril(rng.normal(size=(k, k))), rng.normal(size=(k, 4, 7))
    logdet, (U, V) = levels_module.whiten(
        jnp.asarray(G), jnp.asarray(Lam), [jnp.asarray(C), jnp.asarray(C[:, :1])]
    )
    M = np.einsum("qi,qrm,rj->mij", Lam, G, Lam) + np.eye(k)
    assert_allclose(logdet, np.linalg.slogdet(M)[1].sum(), rtol=1e-12)
    scaled = np.einsum("qi,qcm->mic", Lam, C)
    expected = np.einsum("mic,mij,mjd->cdm", scaled, np.linalg.inv(M), scaled)
    assert_allclose(np.einsum("kcm,kdm->cdm", U, U), expected, atol=1e-11)
    assert_allclose(V, U[:, :1], atol=1e-13)


@pytest.mark.parametrize("k", [3, 4])
def test_whiten_of_empty_levels_is_the_identity(k):
    C = jnp.ones((k, 2, 3))
    logdet, (U,) = levels_module.whiten(jnp.zeros((k, k, 3)), jnp.eye(k), [C])
    assert logdet == 0
    assert_allclose(U, C, atol=0)


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


def test_derivatives_of_the_loop_over_columns_are_those_of_plain_autodiff():
    rng = np.random.default_rng(1)
    k, G = 5, np.stack([positive(rng, 5) for _ in range(3)], -1)
    Lam, C = np.eye(k) + 0.3 * np.tril(rng.normal(size=(k, k))), rng.normal(size=(k, 2, 3))
    weights = rng.normal(size=C.shape)

    def by_rule(Lam, G, C):
        logdet, (U,) = levels_module.whiten(G, Lam, [C])
        return logdet + jnp.sum(weights * jnp.sin(U))

    def by_lapack(Lam, G, C):
        L = jnp.linalg.cholesky(jnp.einsum("qi,qrm,rj->mij", Lam, G, Lam) + jnp.eye(k)[None])
        U = jnp.moveaxis(jnp.linalg.solve(L, jnp.einsum("qi,qcm->mic", Lam, C)), 0, -1)
        return 2.0 * jnp.sum(jnp.log(jnp.diagonal(L, axis1=1, axis2=2))) + jnp.sum(
            weights * jnp.sin(U)
        )

    at = tuple(map(jnp.asarray, (Lam, G, C)))
    for transform in (lambda f: jax.grad(f, (0, 1, 2)), jax.hessian):
        found, expected = (
            jax.tree.leaves(quick_jit(transform(f))(*at)) for f in (by_rule, by_lapack)
        )
        for one, other in zip(found, expected, strict=True):
            assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("k", [2, 4])
def test_absorbing_a_singular_covariance_has_the_derivatives_of_plain_solves(k):
    rng = np.random.default_rng(k)
    G, root = np.stack([positive(rng, k) for _ in range(3)], -1), rng.normal(size=(k, k - 1))
    Sigma, C, weights = root @ root.T, rng.normal(size=(k, 2, 3)), rng.normal(size=(k, 2, 3))

    def by_rule(G, Sigma):
        logdet, (V,) = levels_module.absorb(G, Sigma, [C])
        return logdet + jnp.sum(weights * V)

    def by_lapack(G, Sigma):
        M = jnp.einsum("ij,jkm->mik", Sigma, G) + jnp.eye(k)[None]
        V = jnp.moveaxis(jnp.linalg.solve(M, jnp.einsum("ij,jcm->mic", Sigma, C)), 0, -1)
        return jnp.sum(jnp.linalg.slogdet(M)[1]) + jnp.sum(weights * V)

    at, along = (
        (jnp.asarray(G), jnp.asarray(Sigma)),
        (jnp.asarray(G), jnp.asarray(symmetric(rng, k))),
    )
    found, expected = (
        quick_jit(lambda f=f: jax.jvp(lambda *x: jax.jvp(f, x, along), at, along))()
        for f in (by_rule, by_lapack)
    )
    assert_allclose(jax.tree.leaves(found), jax.tree.leaves(expected), rtol=1e-9)


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


def test_lapack_is_given_one_matrix_at_a_time():
    """What jaxlib does with a batch can wait for itself for ever: no compiled call may have a
    leading axis.
    """
    rng = np.random.default_rng(4)
    M, C = jnp.asarray([[positive(rng, 5)] * 2] * 3), jnp.asarray(rng.normal(size=(3, 2, 5, 2)))

    def everything(M, C):
        logdet, explained = matrices.logdet_quadratic(M, C)
        values = (
            batching.eigh(M)[0],
            batching.triangular_factor(C),
            matrices.cholesky(M),
            matrices.inverse_general(M),
        )
        return (
            logdet,
            explained,
            matrices.inverse(M),
            matrices.inverse_lower(matrices.cholesky(M)),
            values,
        )

    def levels(G, Lam):
        return levels_module.whiten(G, Lam, [G]), levels_module.absorb(G, Lam @ Lam.T, [G])

    lanes = jax.jit(jax.vmap(jax.vmap(everything)))
    expected = [
        [everything(m, c) for m, c in zip(*rows, strict=True)] for rows in zip(M, C, strict=True)
    ]
    for found, one in zip(
        jax.tree.leaves(lanes(M, C)), jax.tree.leaves(expected[1][1]), strict=True
    ):
        assert_allclose(found[1, 1], one, atol=1e-12)
    G = jnp.moveaxis(M[:, 0], 0, -1)
    for compiled in (lanes.lower(M, C).compile(), jax.jit(levels).lower(G, M[0, 0]).compile()):
        assert batched_lapack(compiled) == []
    assert batched_lapack(jax.jit(jnp.linalg.cholesky).lower(M).compile()) != []
