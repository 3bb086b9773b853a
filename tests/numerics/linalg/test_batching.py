"""Batches of matrices on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import batched_lapack
from helpers.matrices import positive
from numpy.testing import assert_allclose

from interlace_jax.numerics.linalg import batching, matrices
from interlace_jax.numerics.linalg import levels as levels_module

pytestmark = pytest.mark.usefixtures("x64")


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
