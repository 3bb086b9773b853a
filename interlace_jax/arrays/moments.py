"""Rows and grouping factors to moments: by a plan made on the host, or by one that codes may be
traced through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields

from ..numerics.crossproducts.layout import STATIC, plan
from ..numerics.crossproducts.moments import Moments
from ..numerics.crossproducts.moments import moments as moments_of_rows
from ..numerics.crossproducts.traced_plan import nested_chain, traced_plan
from ..runtime.compilation import jit
from ..support.containers import container
from ..support.later import jnp
from .groups import Grouping

_moments = jit(moments_of_rows)


@container
class NamedMoments(Moments):
    """Moments whose grouping factors have names."""

    names: tuple[str, ...] = field(default=(), kw_only=True, metadata=STATIC)


def named(m: Moments, groups: Sequence[Grouping]) -> Moments:
    """The moments with the names of their factors, if these have any."""
    if not all(isinstance(g.key, str) for g in groups):
        return m
    return NamedMoments(
        **{f.name: getattr(m, f.name) for f in fields(m)}, names=tuple(g.key for g in groups)
    )


def moments_by_host(
    y, X, groups: Sequence[Grouping], levels: Sequence[int], weights, offset
) -> Moments:
    """Moments of known codes: the plan finds which factors are nested, and lists the pairs of
    levels that meet.
    """
    blocks, K = zip(*(g.structure(m) for g, m in zip(groups, levels, strict=True)), strict=True)
    covariances = [(block.within, block.across) for block in blocks]
    codes, sizes = [g.codes for g in groups], [block.sizes for block in blocks]
    made = plan(codes, sizes, levels, covariances=covariances)
    y, X, Z, offset = _where_weighted(weights, y, X, [g.Z for g in groups], offset)
    return named(_moments(made, y, X, Z, weights, offset, K), groups)


def moments_by_levels(
    y,
    X,
    groups: Sequence[Grouping],
    levels: Sequence[int],
    nested: Mapping[int, int],
    weights,
    offset,
) -> Moments:
    """Moments of codes that may be traced.

    nested: factor -> the factor it lies in, by place. Rows with a code outside of 0 to levels - 1
    have weight 0.
    """
    blocks, K = zip(*(g.structure(m) for g, m in zip(groups, levels, strict=True)), strict=True)
    weights = jnp.ones_like(y) if weights is None else weights
    in_use = weights != 0
    for g, m in zip(groups, levels, strict=True):
        in_use = in_use & (g.codes >= 0) & (g.codes < m)
    weights = jnp.where(in_use, weights, 0.0)
    sizes = [block.levels * block.k for block in blocks]
    chain = nested_chain(sizes, nested, [block.across is None for block in blocks])
    made = traced_plan([g.codes for g in groups], blocks, chain, in_use)
    y, X, Z, offset = _where_weighted(weights, y, X, [g.Z for g in groups], offset)
    return named(_moments(made, y, X, Z, weights, offset, K), groups)


def _where_weighted(weights, y, X, Z, offset):
    """The rows with zeros where the weights (n,) are 0: NaN times 0 would be NaN, and so would its
    derivative.
    """
    if weights is None:
        return y, X, Z, offset
    y, X, *Z = (_without(weights, a) for a in (y, X, *Z))
    return y, X, Z, None if offset is None else _without(weights, offset)


def _without(weights, rows):
    is_there = (weights != 0).reshape(-1, *(1,) * (rows.ndim - 1))
    return jnp.where(is_there, rows, 0.0)
