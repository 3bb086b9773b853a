"""Small blocks of all levels at once: factors, what they leave, and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from helpers.matrices import positive, symmetric
from numpy.testing import assert_allclose

from interlace_jax.numerics.linalg import levels as levels_module

pytestmark = pytest.mark.usefixtures("x64")


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
