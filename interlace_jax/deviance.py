"""THE MODEL: from theta to the profiled deviance.

    y = X beta + sum_g Z_g b_g + eps,   b_g ~ N(0, sigma^2 (I (x) Lambda_g Lambda_g')),   eps ~ N(0, sigma^2 W^-1)

    M(theta) = I + Lambda' Z'WZ Lambda                                                    (never formed whole)
    d(theta) = log|M| + [REML] log|R_X'R_X| + nu (1 + log(2 pi r2 / nu)) - sum(log w),    nu = n or n - p

(Bates, Maechler, Bolker & Walker 2015, JSS 67(1), eqs. 34 and 41; blocked: Bates, Alday & Kokandakar 2025,
arXiv 2505.11674). R_X'R_X = X'V^-1 X sigma^2 and r2, the penalised residual sum of squares, are what is left of the
cross-products of X and y after every random effect has been eliminated: with W_i = Lambda (Lambda' G_i Lambda + I)^-1
Lambda' for level i, eliminating it subtracts C_i' W_i C_i from the cross-products C_i touches, linear in W_i.

All functions take conditioned parameters t (see `covariance`) and `Moments`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .covariance import factors
from .linalg import logdet_quadratic, whiten
from .moments import Moments


class Reduced(NamedTuple):
    """What remains after eliminating the random effects, in conditioned units."""

    logdet: jax.Array  # () log|M|
    XX: jax.Array  # (p, p) X~'V^-1 X~ sigma^2
    Xy: jax.Array  # (p,)
    yy: jax.Array  # ()


def _gram(U, V):
    return jnp.einsum("kam,kbm->ab", U, V)


def _pass_up(U, V, parent, like):
    """Sum U'V of every level into its parent's: (k_h, c, m_h)."""
    return jnp.zeros_like(like).at[:, :, parent].add(jnp.einsum("qam,qcm->acm", U, V))


def reduce(t, m: Moments) -> Reduced:
    """Eliminate the random effects: the chain level by level, then the core."""
    layout, q = m.layout, m.layout.q
    Lams = factors(t, layout.blocks)
    C = [jnp.concatenate([zx, zy[:, None]], 1) for zx, zy in zip(m.ZX, m.Zy, strict=True)]
    S = jnp.block([[m.XX, m.Xy[:, None]], [m.Xy[None], m.yy[None, None]]])
    logdet, S = _eliminate_chain(Lams, m, C, S)
    if q:
        core_logdet, S = _eliminate_core(Lams[layout.chain :], layout, S)
        logdet = logdet + core_logdet
    return Reduced(logdet, S[:-1, :-1], S[:-1, -1], S[-1, -1])


def _eliminate_chain(Lams, m, C, S):
    layout, q = m.layout, m.layout.q
    G, B, E = list(m.G), [list(b) for b in m.B], list(m.E)
    logdet = 0.0
    for j in range(layout.chain):
        k, levels = G[j].shape[1:]
        blocks = [C[j], *B[j]]
        if E:
            blocks.append(jnp.broadcast_to(jnp.eye(k, dtype=S.dtype)[:, :, None], (k, k, levels)))
        added, (UC, *UB) = whiten(G[j], Lams[j], blocks)
        logdet = logdet + added
        if E:
            entries = layout.entries[j]
            UE = jnp.einsum("abe,be->ae", UB.pop()[:, :, entries.level], E[j])
            S = S - _sparse_update(UE, UC, entries, q, S)
        else:
            S = S - _gram(UC, UC)
        for h, parent in enumerate(layout.parents[j], j + 1):
            U = UB[h - j - 1]
            G[h] = G[h] - _pass_up(U, U, parent, G[h])
            C[h] = C[h] - _pass_up(U, UC, parent, C[h])
            for i in range(h + 1, layout.chain):
                B[h][i - h - 1] = B[h][i - h - 1] - _pass_up(U, UB[i - j - 1], parent, B[h][i - h - 1])
            if E:
                fill = jnp.einsum("qae,qe->ae", U[:, :, entries.level], UE)
                E[h] = E[h].at[:, entries.up[h - j - 1]].add(-fill)
    return logdet, S


def _sparse_update(UE, UC, entries, q, like):
    """What eliminating one factor takes from [core X y]'[core X y], scattered pair by pair."""
    first, second, place = entries.pairs
    lower = jnp.zeros(q * q, like.dtype).at[place].add(jnp.sum(UE[:, first] * UE[:, second], 0)).reshape(q, q)
    cross = jnp.zeros((q, UC.shape[1]), like.dtype)
    cross = cross.at[entries.column].add(jnp.einsum("ke,kce->ec", UE, UC[:, :, entries.level]))
    return jnp.block([[lower + jnp.tril(lower, -1).T, cross], [cross.T, _gram(UC, UC)]])


def _scale_rows(Lams, layout, S):
    """Lambda' S for the block diagonal Lambda of the core."""
    parts = []
    for Lam, block, start, end in zip(Lams, layout.core, layout.offsets, layout.offsets[1:], strict=False):
        rows = S[start:end].reshape(block.levels, block.k, S.shape[1])
        parts.append(jnp.einsum("mkc,kj->mjc", rows, Lam).reshape(end - start, S.shape[1]))
    return jnp.concatenate(parts)


def _eliminate_core(Lams, layout, S):
    q = layout.q
    scaled = _scale_rows(Lams, layout, S[:q])
    M = _scale_rows(Lams, layout, scaled[:, :q].T) + jnp.eye(q, dtype=S.dtype)
    logdet, explained = logdet_quadratic(M, scaled[:, q:])
    return logdet, S[q:, q:] - explained


def profile(t, m: Moments, reml):
    """Pieces of the profiled deviance: (log|M| + [REML] log|R_X'R_X|, r2, nu), all in the units of the data."""
    reduced = reduce(t, m)
    logdet_x, explained = logdet_quadratic(reduced.XX, reduced.Xy[:, None])
    logdet_r = 2.0 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(m.R))))
    r2 = (reduced.yy - explained[0, 0]) * m.scale**2
    return reduced.logdet + jnp.where(reml, logdet_x + logdet_r, 0.0), r2, m.n - jnp.where(reml, m.p, 0)


def deviance(t, m: Moments, reml):
    """Profiled deviance -2 log L: beta and sigma at their optimum for t. NaN where r2 is not positive.

    t (d,). reml: True for the restricted likelihood, may be traced. Returns a scalar.
    """
    logdet, r2, nu = profile(t, m, reml)
    return logdet + nu * (1.0 + jnp.log(2.0 * jnp.pi * r2 / nu)) - m.log_weights


def joint_deviance(t, log_sigma, m: Moments, reml):
    """Deviance with only beta profiled: what variance-parameter inference differentiates. log_sigma is a scalar."""
    logdet, r2, nu = profile(t, m, reml)
    return logdet + nu * (jnp.log(2.0 * jnp.pi) + 2.0 * log_sigma) + r2 * jnp.exp(-2.0 * log_sigma) - m.log_weights
