"""Conjugate gradients and their quadrature against dense linear algebra."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import arrays
from numpy.testing import assert_allclose

from interlace_jax.numerics.linalg import krylov
from interlace_jax.runtime import calls


def matrix(q=30, seed=0):
    """Symmetric with eigenvalues from 0.05 to 1.6."""
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.normal(size=(q, q)))[0]
    return (vectors * np.geomspace(0.05, 1.6, q)) @ vectors.T


@arrays.quick_jit
def solved(N, B, tol):
    run = krylov.advance(lambda V: N @ V, krylov.begin(B, 40), tol, 40)
    return run.X, krylov.quadrature(jnp.log, run), run.steps


def test_every_column_is_solved_to_its_own_tolerance():
    N, B = matrix(), np.random.default_rng(1).normal(size=(30, 3))
    B[:, 1] = 0.0
    X, _, steps = calls.run(solved, N, B, np.full(3, 1e-10))
    # The condition number, 32, is what a residual can lose.
    assert_allclose(X, np.linalg.solve(N, B), atol=32 * 1e-10 * np.linalg.norm(B[:, 0]))
    assert calls.run(solved, N, B, np.full(3, 1e-3))[2] < steps <= 40


def test_the_same_run_gives_the_quadratic_forms_of_the_logarithm():
    N, B = matrix(), np.random.default_rng(1).normal(size=(30, 3))
    values, vectors = np.linalg.eigh(N)
    expected = np.sum((vectors.T @ B) ** 2 * np.log(values)[:, None], 0)
    # The error is of the order of the square of that of the solution.
    assert_allclose(calls.run(solved, N, B, np.full(3, 1e-7))[1], expected, rtol=1e-9)


def test_a_run_that_ends_early_is_exact_in_the_space_it_has_seen():
    N = matrix()
    values, vectors = np.linalg.eigh(N)
    z = vectors[:, [3, 11]] @ np.array([[1.0], [2.0]])
    _, log, steps = calls.run(solved, N, np.hstack([z, np.zeros((30, 2))]), np.full(3, 1e-12))
    assert steps <= 3
    assert_allclose(log, [np.log(values[3]) + 4 * np.log(values[11]), 0, 0], rtol=1e-10)


def test_columns_go_on_alone():
    N, B = matrix(), np.random.default_rng(1).normal(size=(30, 3))

    @arrays.quick_jit
    def two_stages(N, B):
        run = krylov.advance(lambda V: N @ V, krylov.begin(B), jnp.full(3, 1e-2), 40)
        return krylov.advance(
            lambda V: N @ V, krylov.columns(run, slice(1, None)), jnp.full(2, 1e-11), 60
        ).X

    assert_allclose(calls.run(two_stages, N, B), np.linalg.solve(N, B)[:, 1:], rtol=1e-8)


@pytest.mark.parametrize("start", ["near", "zero"])
def test_dominant_directions_are_orthonormal_and_found(start):
    C = np.diag(np.r_[0.9, 0.8, np.full(28, 0.1)])
    Q = np.zeros((30, 2)) if start == "zero" else np.ones((30, 2)) + np.eye(30, 2)
    found = calls.run(arrays.quick_jit(lambda C, Q: krylov.dominant(lambda V: C @ V, Q, 12)), C, Q)
    assert_allclose(found.T @ found, np.eye(2), atol=1e-12)
    if start == "near":
        assert_allclose(found[:2] @ found[:2].T, np.eye(2), atol=1e-12)
