"""Elimination of the levels of a factor class by class, and of what is left by rounds.

Levels of class s, of equal G_s, have one w_s = lambda^2 / (1 + lambda^2 G_s): what eliminating them
subtracts is w_s times a sum that does not depend on lambda.
"""

from __future__ import annotations

from ...support.later import jnp
from ..crossproducts.merged import MergedMoments
from .rounds import SAFE, by_order, eliminate_in_order, with_identity


def eliminate_by_class(Lams, m: MergedMoments):
    """log|M|, and what is left (p + 1, p + 1) of the cross-products of X and y.

    Lams: relative factors Lambda~ (1, 1) of the blocks.
    """
    q, given = m.layout.q, m.classes
    w = weights_of_levels(Lams, given.G)
    logdet = jnp.sum(given.levels * jnp.log1p(Lams[0][0, 0] ** 2 * given.G))
    XX, Xy = m.XX[q:, q:], m.Xy[q:, None]
    S = jnp.block([[XX, Xy], [Xy.T, m.yy[None, None]]]) - jnp.einsum("s,sab->ab", w, given.rest)
    if not q:
        return logdet, S
    scale = _of_columns(Lams, m.layout)
    left = _less(m.numbers, w, given.core, given.core_class, given.core_number)
    both = scale.at[m.row].get(**SAFE) * scale.at[m.column].get(**SAFE)
    beside = jnp.concatenate([m.XX[:q, q:], m.Xy[:q, None]], 1)
    beside = _less(beside, w, given.beside, given.beside_class, given.beside_column)
    order = m.rounds
    M, C = with_identity(order, both * left), by_order(order, scale[:, None] * beside)
    added, S = eliminate_in_order(order, M, C, S)
    return logdet + added, S


def weights_of_levels(Lams, G):
    """The weight w of levels with Z_i'WZ_i = G (s,), of the factor eliminated level by level."""
    variance = Lams[0][0, 0] ** 2
    return variance / (1.0 + variance * G)


def _of_columns(Lams, layout):
    """Lambda of every column of the core (q,)."""
    each = zip(layout.core, Lams[1:], strict=True)
    return jnp.concatenate([jnp.full(block.levels, Lam[0, 0]) for block, Lam in each])


def _less(base, w, sums, owner, place):
    """A base (r, ...) less w of its class times every sum, at its place."""
    weight = w.at[owner].get(**SAFE).reshape(-1, *[1] * (sums.ndim - 1))
    return jnp.asarray(base).at[place].add(-weight * sums, **SAFE)
