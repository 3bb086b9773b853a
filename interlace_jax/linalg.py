"""Linear algebra the likelihood is made of, with derivative rules that stay cheap at every order.

Per-level blocks are arrays `(k, c, m)` with the levels on the last axis: for k <= 3 factorisations are written out
as scalar operations on whole level vectors, which fuse; from k = 4 on LAPACK does them batch by batch.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

UNROLL = 3  # unrolled code at k = 8 takes seconds to compile and runs slower than LAPACK
LEAF = 160  # below this size LAPACK inverts about as fast as matrix products do, and compiles in a fifth of the time


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


def whiten(G, Lam, blocks):
    """Factor `Lam' G Lam + I = L L'` at every level and return its log-determinant and every `L^-1 Lam' C`.

    G (k, k, m): Gram matrix of each level. Lam (k, k): lower triangular relative factor. blocks: arrays C (k, c, m).
    Returns the log-determinant summed over levels, and a list of arrays (k, c, m).
    """
    k = G.shape[0]
    return (_whiten_unrolled if k <= UNROLL else _whiten_lapack)(G, Lam, blocks, k)


def _whiten_unrolled(G, Lam, blocks, k):
    lower = [[Lam[i, j] for j in range(i + 1)] for i in range(k)]
    GL = [[sum(G[i, q] * lower[q][j] for q in range(j, k)) for j in range(k)] for i in range(k)]
    M = [[sum(lower[q][i] * GL[q][j] for q in range(i, k)) + float(i == j) for j in range(k)] for i in range(k)]
    L = _cholesky_unrolled(M, k)
    pivots = L[0][0]
    for i in range(1, k):
        pivots = pivots * L[i][i]
    rows = [[L[i][j][None] for j in range(i + 1)] for i in range(k)]
    whitened = []
    for C in blocks:
        LC = [sum(lower[q][i] * C[q] for q in range(i, k)) for i in range(k)]
        whitened.append(jnp.stack(_forward_unrolled(rows, LC, k)))
    return 2.0 * jnp.sum(jnp.log(pivots)), whitened


def _whiten_lapack(G, Lam, blocks, k):
    M = jnp.einsum("qi,qrm,rj->mij", Lam, G, Lam) + jnp.eye(k, dtype=G.dtype)[None]
    L = jnp.linalg.cholesky(M, symmetrize_input=False)
    logdet = 2.0 * jnp.sum(jnp.log(jnp.diagonal(L, axis1=-2, axis2=-1)))
    whitened = [solve_triangular(L, jnp.einsum("qi,qcm->mic", Lam, C), lower=True) for C in blocks]
    return logdet, [jnp.moveaxis(U, 0, -1) for U in whitened]


def absorb(G, Sigma, blocks):
    """The same elimination from the covariance Sigma (k, k), which need not be definite: `log|I + Sigma G|`, and
    `(I + Sigma G)^-1 Sigma C` for every C of blocks (shapes as in `whiten`).
    """
    M = jnp.einsum("ij,jkm->mik", Sigma, G) + jnp.eye(G.shape[0], dtype=G.dtype)[None]
    absorbed = [jnp.linalg.solve(M, jnp.einsum("ij,jcm->mic", Sigma, C)) for C in blocks]
    return jnp.sum(jnp.linalg.slogdet(M)[1]), [jnp.moveaxis(V, 0, -1) for V in absorbed]


@jax.custom_jvp
def logdet_inverse(M):
    """`(log|M|, W = M^-1)` of a positive definite M (q, q), whose symmetric part counts, with cheap tangents.

    By halves, on matrix products: M^-1 follows from the inverses of the leading block and of its Schur complement, in
    4/3 q^3 multiplications where LAPACK's solve with the identity takes 7/3 q^3 at half the speed.
    """
    q = M.shape[0]
    if q <= UNROLL:
        return _logdet_quadratic_unrolled(symmetric(M), jnp.eye(q, dtype=M.dtype))
    if q <= LEAF:
        L = jnp.linalg.cholesky(symmetric(M), symmetrize_input=False)
        return 2.0 * jnp.sum(jnp.log(jnp.diagonal(L))), cho_solve((L, True), jnp.eye(q, dtype=M.dtype))
    half = q // 2
    logdet_a, A = logdet_inverse(M[:half, :half])
    B = 0.5 * (M[half:, :half] + M[:half, half:].T)
    T = B @ A
    logdet_s, S = logdet_inverse(M[half:, half:] - T @ B.T)
    ST = S @ T
    return logdet_a + logdet_s, jnp.block([[A + T.T @ ST, -ST.T], [-ST, S]])


@logdet_inverse.defjvp
def _logdet_inverse_jvp(primals, tangents):
    logdet, W = logdet_inverse(*primals)
    dM = tangents[0]
    return (logdet, W), (jnp.sum(W * dM), -W @ symmetric(dM) @ W)


def inverse(M):
    """Inverse of a symmetric positive definite M (q, q)."""
    return logdet_inverse(M)[1] if M.shape[0] else M


@jax.custom_jvp
def _logdet_quadratic(M, C):
    L = jnp.linalg.cholesky(symmetric(M), symmetrize_input=False)
    U = solve_triangular(L, C, lower=True)
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(L))), U.T @ U


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

    Differentiating it costs one inverse instead of differentiating the factorisation (about four times as much); the
    rule is closed under differentiation. Only up to q = 3 plain unrolled arithmetic is cheaper.
    """
    q = M.shape[0]
    if q == 0:
        return jnp.zeros((), M.dtype), jnp.zeros((C.shape[1],) * 2, M.dtype)
    return (_logdet_quadratic if q > UNROLL else _logdet_quadratic_unrolled)(M, C)


def _logdet_quadratic_unrolled(M, C):
    L = _cholesky_unrolled(M, len(M))
    U = jnp.stack(_forward_unrolled(L, C, len(M)))
    return 2.0 * sum(jnp.log(L[i][i]) for i in range(len(M))), U.T @ U
