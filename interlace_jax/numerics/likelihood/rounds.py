"""Elimination of sparse crossed factors by rounds: a sparse Cholesky factorisation of M = I +
Lambda'Z'WZ Lambda, many columns at a time, and a dense one of the few that are left.

A column with pivot d and entries m_i below it, beside it the cross-products c with X and y,
subtracts m_i m_j / d from every two of the columns it meets, m_i c / d from what is beside these,
and c'c / d from the cross-products of X and y.
"""

from __future__ import annotations

from ...support.later import jnp
from ..crossproducts.rounds import RoundMoments, Rounds
from ..linalg.matrices import logdet_quadratic

SAFE = dict(mode="promise_in_bounds", wrap_negative_indices=False)


def eliminate_by_rounds(Lams, m: RoundMoments):
    """log|M|, and what is left (p + 1, p + 1) of the cross-products of X and y.

    Lams: relative factors Lambda~ (k, k) of the blocks.
    """
    S = jnp.block([[m.XX, m.Xy[:, None]], [m.Xy[None], m.yy[None, None]]])
    return eliminate_in_order(m.rounds, _scaled_products(Lams, m), _scaled_beside(Lams, m), S)


def eliminate_in_order(order: Rounds, M, C, S):
    """log|M| of M as the vector that `Rounds` describes, and S (c, c) less what it explains by
    the cross-products C (columns, c) beside it.
    """
    logdet, column, at = 0.0, 0, order.columns
    for r in order.rounds:
        pivots = M[column : column + r.size]
        root = jnp.sqrt(pivots)
        U = M[at : at + r.row.shape[0]] / root.at[r.column].get(**SAFE)
        beside = C[column : column + r.size] / root[:, None]
        logdet = logdet + jnp.sum(jnp.log(pivots))
        S = S - beside.T @ beside
        C = C.at[r.row].add(-U[:, None] * beside.at[r.column].get(**SAFE), **SAFE)
        product = U.at[r.first].get(**SAFE) * U.at[r.second].get(**SAFE)
        M = M.at[r.place].add(-product, **SAFE)
        column, at = column + r.size, at + r.row.shape[0]
    if not order.q:
        return logdet, S
    rest, explained = logdet_quadratic(_core(M, order, column, at), C[column:])
    return logdet + rest, S - explained


def _core(M, order, column, at):
    """The dense matrix (q, q) of the columns that no round eliminates."""
    rows, columns = order.core
    values = M[at : at + rows.shape[0]]
    below = jnp.zeros((order.q, order.q), M.dtype).at[rows, columns].add(values, **SAFE)
    return below + below.T + jnp.diag(M[column : order.columns])


def _scaled_products(Lams, m):
    """M = I + Lambda'Z'WZ Lambda as the vector that `Rounds` describes."""
    order, chain = m.rounds, range(len(Lams))
    pairs = [(g, h) for g in chain for h in chain if g < h]
    numbers = [_both_sides(Lam, G, Lam) for Lam, G in zip(Lams, m.G, strict=True)]
    numbers += [_both_sides(Lams[g], K, Lams[h]) for (g, h), K in zip(pairs, m.met, strict=True)]
    return with_identity(order, jnp.concatenate([a.reshape(-1) for a in numbers]))


def with_identity(order: Rounds, numbers):
    """M as a vector, from the numbers of Lambda'Z'WZ Lambda."""
    size = order.columns + sum(r.row.shape[0] for r in order.rounds) + order.core[0].shape[0] + 1
    start = jnp.zeros(size, numbers.dtype).at[: order.columns].set(1.0)
    return start.at[order.place].add(numbers, **SAFE)


def _both_sides(left, G, right):
    return jnp.einsum("ai,abm,bj->ijm", left, G, right)


def _scaled_beside(Lams, m):
    """Lambda'Z'W[X y] (columns, p + 1), in the order of elimination."""
    rows = []
    for Lam, ZX, Zy in zip(Lams, m.ZX, m.Zy, strict=True):
        C = jnp.einsum("ai,acm->imc", Lam, jnp.concatenate([ZX, Zy[:, None]], 1))
        rows.append(C.reshape(-1, C.shape[2]))
    return by_order(m.rounds, jnp.concatenate(rows))


def by_order(order: Rounds, C):
    """Rows C (columns, c) as `Rounds` places them."""
    return jnp.zeros((order.columns, C.shape[1]), C.dtype).at[order.column].set(C, **SAFE)
