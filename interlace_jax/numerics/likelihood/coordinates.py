"""Conditioned parameters t to theta and back, roots of covariances across levels, and priors as
functions of t.
"""

from __future__ import annotations

from ...support.later import jnp
from ..covariance.parameters import (
    _each,
    _fill,
    _rescaled,
    _unit,
    factors,
    following,
    has_prior,
    read,
)
from ..crossproducts.layout import Layout
from ..linalg.matrices import inverse_lower


def to_user(t, layout: Layout, A):
    """The user's theta (d,) of conditioned parameters t (d,): `Lambda = A^-1 Lambda~`."""
    split = list(_each(t, layout.blocks))
    return jnp.concatenate(
        [*(_to_user(*split[j], A[j]) for j in layout.order), *following(t, layout.blocks)]
    )


def _to_user(values, block, a):
    if not block.is_pattern:
        return _rescaled(values, 1.0 / _unit(a))
    own = read(inverse_lower(a) @ _fill(values[: block.own], block), block)
    return own if block.size == block.own else jnp.concatenate([own, values[block.own :]])


def user_blocks(layout: Layout):
    """The blocks in the user's order."""
    return tuple(layout.blocks[j] for j in layout.order)


def to_conditioned(theta, layout: Layout, A):
    """Conditioned parameters t (d,) of the user's theta (d,)."""
    split = list(_each(theta, user_blocks(layout)))
    own = [_to_conditioned(*split[layout.order.index(j)], A[j]) for j in range(len(A))]
    return jnp.concatenate([*own, *following(theta, layout.blocks)])


def _to_conditioned(values, block, a):
    if not block.is_pattern:
        return _rescaled(values, _unit(a))
    own = read(a @ _fill(values[: block.own], block), block)
    return own if block.size == block.own else jnp.concatenate([own, values[block.own :]])


def roots(t, m):
    """Per block of the core a root L (m, m) of the covariance K = L L' of its levels; None where
    they do not covary.
    """
    split = list(_each(t, m.layout.blocks))[m.layout.chain :]
    known = m.K[m.layout.chain :]
    return [
        None if b.across is None else b.across.root(values[b.own :], K).astype(t.dtype)
        for (values, b), K in zip(split, known, strict=True)
    ]


def log_prior(t, m):
    """Sum of the log-densities of the priors at conditioned parameters t (d,); 0.0 if there are
    none.
    """
    blocks = user_blocks(m.layout)
    if not has_prior(blocks):
        return 0.0
    theta, total = to_user(t, m.layout, m.A), 0.0
    for (values, b), Lam in zip(_each(theta, blocks), factors(theta, blocks), strict=True):
        if b.within is not None and b.within.prior is not None:
            total = total + b.within.prior(Lam)
        if b.across is not None and b.across.prior is not None:
            total = total + b.across.prior(jnp.exp(values[b.own :]))
    return total
