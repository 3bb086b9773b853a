"""Random effects drawn from their distribution, and what they add to rows."""

from __future__ import annotations

from collections.abc import Sequence

from ..numerics.covariance.block import Block
from ..numerics.covariance.parameters import factors
from ..support.later import jax, jnp


def draw_effects(key, theta, sigma, blocks: Sequence[Block]):
    """Effects b ~ N(0, sigma^2 Lambda Lambda'), (levels, k) per factor, at theta (d,), sigma ().

    For factors whose levels are independent of each other.
    """
    each = zip(blocks, factors(theta, blocks), jax.random.split(key, len(blocks)), strict=True)
    return [
        sigma * jax.random.normal(own, (block.levels, block.k), theta.dtype) @ L.T
        for block, L, own in each
    ]


def contribution(codes, Z, effects):
    """What effects add to rows, (n,), by codes (n,) and columns Z (n, k); 0 of unknown codes."""
    is_seen = (codes >= 0) & (codes < len(effects))
    own = jnp.sum(Z * effects[jnp.where(is_seen, codes, 0)], 1)
    return jnp.where(is_seen, own, 0.0)
