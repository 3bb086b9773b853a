"""Linear algebra the likelihood is made of, with derivative rules that stay cheap at every order.

Per-level blocks are arrays `(k, c, m)` with the levels on the last axis: for k <= 3 factorisations are written out
as scalar operations on whole level vectors, which fuse; from k = 4 on a loop eliminates column by column.

LAPACK is never given a batch on a processor. jaxlib 0.10 spreads a batch over XLA's threads from one of these threads,
which waits for the others; as many such calls as there are threads wait for each other for ever. `in_turn` has the
matrices of a batch follow each other: that costs about a microsecond a matrix, and saves time from 32 columns on.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.scipy.linalg import solve_triangular

UNROLL = 3  # unrolled code at k = 8 takes seconds to compile and runs slower than a loop over columns
LEAF = 160  # below this size LAPACK inverts about as fast as matrix products do, and compiles in a fifth of the time


def in_turn(function):
    """A function of matrices which `vmap` on a processor computes matrix by matrix; on other devices in a batch.

    It has no derivatives of its own in reverse mode: give it what is not differentiated, or a rule.
    """

    @custom_vmap
    def single(*args):
        return function(*args)

    @single.def_vmap
    def _(_, batched, *args):
        axes = [0 if b else None for b in batched]

        def one_by_one(*args):
            def one(lanes):
                lanes = iter(lanes)
                return single(*[next(lanes) if b else a for a, b in zip(args, batched, strict=True)])

            return lax.map(one, [a for a, b in zip(args, batched, strict=True) if b])

        made = lax.platform_dependent(*args, cpu=one_by_one, default=jax.vmap(function, axes))
        return made, jax.tree.map(lambda _: True, made)

    return single


eigh = in_turn(lambda M: tuple(jnp.linalg.eigh(M)))
triangular_factor = in_turn(lambda X: jnp.linalg.qr(X, mode="r"))
_inverse_lower = in_turn(lambda L: solve_triangular(L, jnp.eye(L.shape[0], dtype=L.dtype), lower=True))
_inverse_general = in_turn(jnp.linalg.inv)
_cholesky = in_turn(functools.partial(jnp.linalg.cholesky, symmetrize_input=False))


def _inverse_jvp(inverse):
    @inverse.defjvp
    def _(primals, tangents):
        W = inverse(*primals)
        return W, -W @ tangents[0] @ W

    return inverse


@_inverse_jvp
@jax.custom_jvp
def inverse_lower(L):
    """Inverse of a lower triangular L (k, k)."""
    return _inverse_lower(L)


@_inverse_jvp
@jax.custom_jvp
def inverse_general(M):
    """Inverse of M (k, k)."""
    return _inverse_general(M)


def inverse_upper(R):
    """Inverse of an upper triangular R (k, k)."""
    return inverse_lower(R.T).T


@jax.custom_jvp
def cholesky(M):
    """L (k, k), lower triangular, with L L' = M, of which the symmetric part counts."""
    return _cholesky(symmetric(M))


@cholesky.defjvp
def _cholesky_jvp(primals, tangents):
    L = cholesky(*primals)
    W = inverse_lower(L)
    return L, L @ (_lower_half(len(L)) * (W @ symmetric(tangents[0]) @ W.T))


def _lower_half(k):
    """What of a symmetric matrix (k, k) belongs to the lower triangle, so that the half and its transpose add up."""
    return np.tril(np.ones((k, k)), -1) + 0.5 * np.eye(k)


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
    if k <= UNROLL:
        return _whiten_unrolled(G, Lam, blocks, k)
    M = jnp.einsum("qi,qrm,rj->ijm", Lam, G, Lam) + jnp.eye(k, dtype=G.dtype)[:, :, None]
    logdet, *whitened = _whiten_columns(M, *[jnp.einsum("qi,qcm->icm", Lam, C) for C in blocks])
    return logdet, whitened


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


@jax.custom_jvp
def _whiten_columns(M, *blocks):
    """`log|M|` summed over levels of M = L L' (k, k, m), and every L^-1 C; column by column, for all levels at once."""
    k = M.shape[0]
    ends = np.cumsum([k, *(C.shape[1] for C in blocks)])

    def eliminate(j, carry):
        rows, pivots = carry
        row = rows[j]
        pivot = jnp.sqrt(row[j])
        row = row / pivot[None]
        below = jnp.where((np.arange(k) > j)[:, None], row[:k], 0.0)
        return (rows - below[:, None] * row[None]).at[j].set(row), pivots * pivot

    start = jnp.concatenate([M, *blocks], 1), jnp.ones(M.shape[2:], M.dtype)
    rows, pivots = lax.fori_loop(0, k, eliminate, start)
    return 2.0 * jnp.sum(jnp.log(pivots)), *jnp.split(rows, ends[:-1], 1)[1:]


@_whiten_columns.defjvp
def _whiten_columns_jvp(primals, tangents):
    """d(L^-1 C) = L^-1 dC - Phi L^-1 C, with Phi the lower half of S = L^-1 dM L^-T, and d log|M| = tr S."""
    M, dM, dC = primals[0], tangents[0], tangents[1:]
    k = M.shape[0]
    logdet, *whitened, W = _whiten_columns(*primals, _identities(M))
    S = _product(_product(W, 0.5 * (dM + jnp.swapaxes(dM, 0, 1))), jnp.swapaxes(W, 0, 1))
    Phi = _lower_half(k)[:, :, None] * S
    moved = [_product(W, d) - _product(Phi, U) for d, U in zip(dC, whitened, strict=True)]
    return (logdet, *whitened), (jnp.sum(jnp.trace(S)), *moved)


def _product(A, B):
    """A B at every level."""
    return jnp.einsum("iqm,qcm->icm", A, B)


def _identities(G):
    return jnp.broadcast_to(jnp.eye(G.shape[0], dtype=G.dtype)[:, :, None], G.shape)


def absorb(G, Sigma, blocks):
    """The same elimination from the covariance Sigma (k, k), which may be singular: `log|I + Sigma G|` summed over
    levels, and `(I + Sigma G)^-1 Sigma C` for every C of blocks (shapes as in `whiten`).
    """
    logdet, X = _absorb(G, Sigma)
    return logdet, [_product(X, C) for C in blocks]


@jax.custom_jvp
def _absorb(G, Sigma):
    values, vectors = eigh(Sigma)
    root = triangular_factor((vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]).T).T
    logdet, (U,) = whiten(G, root, [_identities(G)])
    return logdet, jnp.einsum("qim,qjm->ijm", U, U)


@_absorb.defjvp
def _absorb_jvp(primals, tangents):
    """With X = (I + Sigma G)^-1 Sigma and F = I - X G = (I + Sigma G)^-1: dX = F dSigma F' - X dG X. Unlike derivatives
    by a root of Sigma, these exist at the boundary.
    """
    G, dG, dSigma = primals[0], tangents[0], tangents[1]
    logdet, X = _absorb(*primals)
    F = _identities(G) - _product(X, G)
    dX = jnp.einsum("iam,ab,jbm->ijm", F, dSigma, F) - _product(_product(X, dG), X)
    return (logdet, X), (jnp.einsum("ijm,jam,ai->", G, F, dSigma) + jnp.sum(X * dG), dX)


@jax.custom_jvp
def logdet_inverse(M):
    """`(log|M|, W = M^-1)` of a positive definite M (q, q), whose symmetric part counts, with cheap tangents.

    By halves, on matrix products: M^-1 follows from the inverses of the leading block and of its Schur complement, in
    4/3 q^3 operations where LAPACK's solve with the identity takes 7/3 q^3 at half the speed.
    """
    q = M.shape[0]
    if q <= UNROLL:
        return _logdet_quadratic_unrolled(symmetric(M), jnp.eye(q, dtype=M.dtype))
    if q <= LEAF:
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
    U = solve_triangular(L, jnp.eye(M.shape[0], dtype=M.dtype), lower=True, trans=1)
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


@jax.custom_jvp
def _logdet_quadratic(M, C):
    return _logdet_quadratic_lapack(symmetric(M), C)


@in_turn
def _logdet_quadratic_lapack(M, C):
    L = _cholesky(M)
    U = solve_triangular(L, C, lower=True)
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
