"""Conditional modes (BLUPs) and variances of the random effects, for any layout, as derivatives.

With everything else at its optimum,  d r2 / d(Z'Wy) = -2 b  (r2 is a minimum over b and beta, so
its derivative is the explicit one), and  d log|M| / d(Z'WZ) = Lambda M^-1 Lambda',  the covariance
of b given y and beta over sigma^2. One reverse pass yields just the entries that the cross-products
have, whatever the order of elimination.
"""

from __future__ import annotations

from dataclasses import replace

from ...support.later import jax, jnp
from ..covariance.parameters import conditioned_factors
from ..crossproducts.merged import MergedMoments
from ..crossproducts.moments import Moments
from ..linalg.matrices import inverse_lower, logdet_quadratic
from .elimination import reduce
from .merged import weights_of_levels


def modes(t, m: Moments):
    """Conditional modes b, one array (m, k) per factor, in the user's order and units."""
    m, _ = m.whitened(t)

    def r2(Zy, Xy):
        reduced = reduce(t, replace(m, Zy=Zy, Xy=Xy))
        return reduced.yy - logdet_quadratic(reduced.XX, reduced.Xy[:, None])[1][0, 0]

    chain, tail = jax.grad(r2, argnums=(0, 1))(m.Zy, m.Xy)
    return _modes_in_user_units([-0.5 * g.T for g in chain], -0.5 * tail, m)


def modes_by_class(t, m: MergedMoments, ZX, E):
    """`modes` where the moments are by class; ZX and E: those of `Moments`, by level.

    With the effects of the core and beta at hand, b_i = w_i (Z_i'Wy - Z_i'W[Z_core X] [b_core;
    beta]).
    """

    def r2(Xy):
        reduced = reduce(t, replace(m, Xy=Xy))
        return reduced.yy - logdet_quadratic(reduced.XX, reduced.Xy[:, None])[1][0, 0]

    tail = -0.5 * jax.grad(r2)(m.Xy)
    layout = m.layout
    explained = tail[layout.q if layout.entries else 0 :] @ ZX[0][0]
    if layout.entries:
        entries = layout.entries[0]
        met = E[0][0] * tail[entries.column]
        explained = explained.at[entries.level].add(met)
    Lams = conditioned_factors(t, layout.blocks, m.A)
    found = weights_of_levels(Lams, m.G[0][0, 0]) * (m.Zy[0][0] - explained)
    return _modes_in_user_units([found[:, None]], tail, m)


def _modes_in_user_units(chain, tail, m):
    """Modes by factor, from those of the blocks of the chain (m, k) and of the core (q + ...,)."""
    layout, found = m.layout, list(chain)
    for block, start, end in zip(layout.core, layout.offsets, layout.offsets[1:], strict=False):
        found.append(tail[start:end].reshape(block.levels, block.k))
    return [m.scale * found[j] @ inverse_lower(m.A[j]).T for j in layout.order]


def mode_covariances(t, m: Moments):
    """Cov(b | y, beta) / sigma^2 of every level, one array (m, k, k) per factor, in the user's
    order and units.
    """
    m, _ = m.whitened(t)
    layout = m.layout
    chain, tail = jax.grad(lambda G, XX: reduce(t, replace(m, G=G, XX=XX)).logdet, argnums=(0, 1))(
        m.G, m.XX
    )
    found = [jnp.moveaxis(g, -1, 0) for g in chain]
    for block, start, end in zip(layout.core, layout.offsets, layout.offsets[1:], strict=False):
        within = tail[start:end, start:end].reshape(block.levels, block.k, block.levels, block.k)
        found.append(jnp.einsum("mamb->mab", within))
    return _covariances_in_user_units(found, m)


def mode_covariances_by_level(t, m: MergedMoments):
    """`mode_covariances`, from products in which every level is a class of its own."""
    layout = m.layout
    levels, core = jax.grad(
        lambda G, numbers: (
            reduce(t, replace(m, classes=replace(m.classes, G=G), numbers=numbers)).logdet
        ),
        argnums=(0, 1),
    )(m.classes.G, m.numbers)
    found = [levels[: layout.blocks[0].levels, None, None]]
    for start, end in zip(layout.offsets, layout.offsets[1:], strict=False):
        found.append(core[start:end, None, None])
    return _covariances_in_user_units(found, m)


def _covariances_in_user_units(found, m):
    """Covariances by factor, from derivatives (m, k, k) by block.

    A factorisation may read one triangle only: the derivative by a symmetric matrix is the
    symmetric part.
    """
    covariances = []
    for j in m.layout.order:
        inverse, within = inverse_lower(m.A[j]), 0.5 * (found[j] + found[j].mT)
        covariances.append(jnp.einsum("ia,mab,jb->mij", inverse, within, inverse))
    return covariances
