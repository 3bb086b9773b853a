"""Small blocks of all levels at once: whitening and absorbing, with derivative rules."""

from __future__ import annotations

import numpy as np

from ...support.later import custom_jvp, jnp, lax
from .batching import eigh, triangular_factor
from .matrices import UNROLL, _cholesky_unrolled, _forward_unrolled, _lower_half


def whiten(G, Lam, blocks):
    """Factor `Lam' G Lam + I = L L'` at every level and return its log-determinant and every `L^-1
    Lam' C`.

    G (k, k, m): Gram matrix of each level. Lam (k, k): lower triangular relative factor. blocks:
    arrays C (k, c, m). Returns the log-determinant summed over levels, and a list of arrays (k, c,
    m).
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
    M = [
        [sum(lower[q][i] * GL[q][j] for q in range(i, k)) + float(i == j) for j in range(k)]
        for i in range(k)
    ]
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


@custom_jvp
def _whiten_columns(M, *blocks):
    """`log|M|` summed over levels of M = L L' (k, k, m), and every L^-1 C; column by column, for
    all levels at once.
    """
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
    """d(L^-1 C) = L^-1 dC - Phi L^-1 C, with Phi the lower half of S = L^-1 dM L^-T, and d
    log|M| = tr S.
    """
    M, dM, dC = primals[0], tangents[0], tangents[1:]
    k = M.shape[0]
    logdet, *whitened, W = _whiten_columns(*primals, _identities(M))
    S = _product(_product(W, 0.5 * (dM + jnp.swapaxes(dM, 0, 1))), jnp.swapaxes(W, 0, 1))
    Phi = _lower_half(k)[:, :, None] * S
    moved = [_product(W, d) - _product(Phi, U) for d, U in zip(dC, whitened, strict=True)]
    return (logdet, *whitened), (jnp.sum(jnp.trace(S)), *moved)


def inverse_factors(M):
    """L^-1 (k, k, m) of M = L L' at every level."""
    return _whiten_columns(M, _identities(M))[1]


def _product(A, B):
    """A B at every level."""
    return jnp.einsum("iqm,qcm->icm", A, B)


def _identities(G):
    return jnp.broadcast_to(jnp.eye(G.shape[0], dtype=G.dtype)[:, :, None], G.shape)


def absorb(G, Sigma, blocks):
    """Eliminate all levels, as `whiten` does, from the covariance Sigma (k, k), which may be
    singular.

    Returns `log|I + Sigma G|` summed over levels, and `(I + Sigma G)^-1 Sigma C` for every C of
    blocks (shapes as in `whiten`).
    """
    logdet, X = _absorb(G, Sigma)
    return logdet, [_product(X, C) for C in blocks]


@custom_jvp
def _absorb(G, Sigma):
    values, vectors = eigh(Sigma)
    root = triangular_factor((vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]).T).T
    logdet, (U,) = whiten(G, root, [_identities(G)])
    return logdet, jnp.einsum("qim,qjm->ijm", U, U)


@_absorb.defjvp
def _absorb_jvp(primals, tangents):
    """With X = (I + Sigma G)^-1 Sigma and F = I - X G = (I + Sigma G)^-1: dX = F dSigma F' - X dG
    X. Unlike derivatives by a root of Sigma, these exist at the boundary.
    """
    G, dG, dSigma = primals[0], tangents[0], tangents[1]
    logdet, X = _absorb(*primals)
    F = _identities(G) - _product(X, G)
    dX = jnp.einsum("iam,ab,jbm->ijm", F, dSigma, F) - _product(_product(X, dG), X)
    return (logdet, X), (jnp.einsum("ijm,jam,ai->", G, F, dSigma) + jnp.sum(X * dG), dX)
