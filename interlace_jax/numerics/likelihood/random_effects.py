"""Conditional modes (BLUPs) and variances of the random effects, for any layout, as derivatives.

With everything else at its optimum,  d r2 / d(Z'Wy) = -2 b  (r2 is a minimum over b and beta, so
its derivative is the explicit one), and  d log|M| / d(Z'WZ) = Lambda M^-1 Lambda',  the covariance
of b given y and beta over sigma^2. One reverse pass yields just the entries that the cross-products
have, whatever the order of elimination.
"""

from __future__ import annotations

from dataclasses import replace

from ...support.later import jax, jnp
from ..crossproducts.moments import Moments
from ..linalg.matrices import inverse_lower, logdet_quadratic
from .elimination import reduce


def modes(t, m: Moments):
    """Conditional modes b, one array (m, k) per factor, in the user's order and units."""
    m, _ = m.whitened(t)

    def r2(Zy, Xy):
        reduced = reduce(t, replace(m, Zy=Zy, Xy=Xy))
        return reduced.yy - logdet_quadratic(reduced.XX, reduced.Xy[:, None])[1][0, 0]

    chain, tail = jax.grad(r2, argnums=(0, 1))(m.Zy, m.Xy)
    layout = m.layout
    found = [g.T for g in chain]
    for block, start, end in zip(layout.core, layout.offsets, layout.offsets[1:], strict=False):
        found.append(tail[start:end].reshape(block.levels, block.k))
    return [-0.5 * m.scale * found[j] @ inverse_lower(m.A[j]).T for j in layout.order]


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
    covariances = []
    for j in layout.order:
        inverse = inverse_lower(m.A[j])
        # A factorisation may read one triangle only: the derivative by a symmetric matrix is the
        # symmetric part.
        covariances.append(
            jnp.einsum("ia,mab,jb->mij", inverse, 0.5 * (found[j] + found[j].mT), inverse)
        )
    return covariances
