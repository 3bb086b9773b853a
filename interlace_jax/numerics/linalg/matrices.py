"""Inverses, Cholesky factors and log-determinants, with derivative rules that stay cheap at
every order.
"""

from __future__ import annotations

import numpy as np

from ...support.later import Later, custom_jvp, jnp
from .batching import in_turn

scipy_linalg = Later("jax.scipy.linalg")
# unrolled code at k = 8 takes seconds to compile and runs slower than a loop over columns
UNROLL = 3
# below this size LAPACK inverts about as fast as matrix products do, and compiles in a fifth of the
# time
LEAF = 160

_inverse_lower = in_turn(
    lambda L: scipy_linalg.solve_triangular(L, jnp.eye(L.shape[0], dtype=L.dtype), lower=True)
)
_inverse_general = in_turn(lambda M: jnp.linalg.inv(M))
_cholesky = in_turn(lambda M: jnp.linalg.cholesky(M, symmetrize_input=False))


def _inverse_jvp(inverse):
    @inverse.defjvp
    def _(primals, tangents):
        W = inverse(*primals)
        return W, -W @ tangents[0] @ W

    return inverse


@_inverse_jvp
@custom_jvp
def inverse_lower(L):
    """Inverse of a lower triangular L (k, k)."""
    return _inverse_lower(L)


@_inverse_jvp
@custom_jvp
def inverse_general(M):
    """Inverse of M (k, k)."""
    return _inverse_general(M)


def inverse_upper(R):
    """Inverse of an upper triangular R (k, k)."""
    return inverse_lower(R.T).T


@custom_jvp
def cholesky(M):
    """L (k, k), lower triangular, with L L' = M, of which the symmetric part counts."""
    return _cholesky(symmetric(M))


@cholesky.defjvp
def _cholesky_jvp(primals, tangents):
    L = cholesky(*primals)
    W = inverse_lower(L)
    return L, L @ (_lower_half(L.shape[0]) * (W @ symmetric(tangents[0]) @ W.T))


def _lower_half(k):
    """What of a symmetric matrix (k, k) belongs to the lower triangle, so that the half and its
    transpose add up.
    """
    return np.tril(np.ones((k, k)), -1) + 0.5 * np.eye(k)


def _is_at_most(size, limit):
    """Whether a size is small; one that tracing leaves open is not: LAPACK takes matrices of any
    size.
    """
    return isinstance(size, int) and size <= limit


def _cholesky_unrolled(A, k):
    L = [[None] * k for _ in range(k)]
    for j in range(k):
        L[j][j] = jnp.sqrt(A[j][j] - sum(L[j][q] ** 2 for q in range(j)))
        for i in range(j + 1, k):
            L[i][j] = (A[i][j] - sum(L[i][q] * L[j][q] for q in range(j))) / L[j][j]
    return L


def _forward_unrolled(L, B, k):
    X = []
    for i in range(k):
        X.append((B[i] - sum(L[i][q] * X[q] for q in range(i))) / L[i][i])
    return X


@custom_jvp
def logdet_inverse(M):
    """`(log|M|, W = M^-1)` of a positive definite M (q, q), whose symmetric part counts, with cheap
    tangents.

    By halves, on matrix products: M^-1 follows from the inverses of the leading block and of its
    Schur complement, in 4/3 q^3 operations where LAPACK's solve with the identity takes 7/3 q^3 at
    half the speed.
    """
    q = M.shape[0]
    if _is_at_most(q, UNROLL):
        return _logdet_quadratic_unrolled(symmetric(M), jnp.eye(q, dtype=M.dtype))
    if not isinstance(q, int) or q <= LEAF:
        return _logdet_inverse_lapack(symmetric(M))
    half = q // 2
    logdet_a, A = logdet_inverse(M[:half, :half])
    B = 0.5 * (M[half:, :half] + M[:half, half:].T)
    T = A @ B.T  # of products of a transpose, XLA has slow ones: X'Y
    logdet_s, S = logdet_inverse(M[half:, half:] - B @ T)
    ST = S @ T.T
    return logdet_a + logdet_s, jnp.block([[A + T @ ST, -ST.T], [-ST, S]])


@in_turn
def _logdet_inverse_lapack(M):
    L = _cholesky(M)
    U = scipy_linalg.solve_triangular(L, jnp.eye(M.shape[0], dtype=M.dtype), lower=True, trans=1)
    return _logdet_of(L), U @ U.T


def _logdet_of(L):
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(L)))


@logdet_inverse.defjvp
def _logdet_inverse_jvp(primals, tangents):
    logdet, W = logdet_inverse(*primals)
    dM = tangents[0]
    return (logdet, W), (jnp.sum(W * dM), -W @ symmetric(dM) @ W)


def inverse(M):
    """Inverse of a symmetric positive definite M (q, q)."""
    return logdet_inverse(M)[1] if M.shape[0] else M


@custom_jvp
def _logdet_quadratic(M, C):
    return _logdet_quadratic_lapack(symmetric(M), C)


@in_turn
def _logdet_quadratic_lapack(M, C):
    L = _cholesky(M)
    U = scipy_linalg.solve_triangular(L, C, lower=True)
    return _logdet_of(L), U.T @ U


@_logdet_quadratic.defjvp
def _logdet_quadratic_jvp(primals, tangents):
    M, C = primals
    dM, dC = tangents
    logdet, W = logdet_inverse(M)
    X = W @ C
    half = X.T @ (dC - 0.5 * dM @ X)
    return (logdet, C.T @ X), (jnp.sum(W * dM), half + half.T)


def symmetric(M):
    """The symmetric part of M (q, q)."""
    return 0.5 * (M + M.T)


def logdet_quadratic(M, C):
    """`(log|M|, C' M^-1 C)` for a symmetric positive definite M (q, q) and C (q, c).

    Differentiating it costs one inverse instead of differentiating the factorisation (about four
    times as much); the rule is closed under differentiation. Only up to q = 3 plain unrolled
    arithmetic is cheaper.
    """
    q = M.shape[0]
    if q == 0:
        return jnp.zeros((), M.dtype), jnp.zeros((C.shape[1],) * 2, M.dtype)
    return (_logdet_quadratic_unrolled if _is_at_most(q, UNROLL) else _logdet_quadratic)(M, C)


def _logdet_quadratic_unrolled(M, C):
    L = _cholesky_unrolled(M, len(M))
    U = jnp.stack(_forward_unrolled(L, C, len(M)))
    return 2.0 * sum(jnp.log(L[i][i]) for i in range(len(M))), U.T @ U
