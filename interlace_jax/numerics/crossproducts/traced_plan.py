"""The plan of codes that may be traced: how many levels there are, and which factor lies in which,
is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...support.later import jnp
from ..covariance.block import Block
from .layout import Layout, Plan


def nested_chain(
    sizes: Sequence[int], nested: Mapping[int, int], separable: Sequence[bool]
) -> tuple[int, ...]:
    """Factors to eliminate level by level, finest first: the nested chain that leaves the smallest
    core.

    sizes: random effects of every factor. nested: factor -> the one that it lies in. separable:
    whether the levels of a factor are independent of each other.
    """
    chains = [_up_from(i, nested, separable) for i in range(len(sizes))]
    return max(chains, key=lambda chain: (sum(sizes[i] for i in chain), -len(chain)))


def _up_from(factor, nested, separable):
    chain = []
    while factor is not None:
        if separable[factor]:
            chain.append(factor)
        factor = nested.get(factor)
    return tuple(chain)


def traced_plan(codes, blocks: Sequence[Block], chain: Sequence[int], in_use) -> Plan:
    """A plan with a dense core, whose shapes do not depend on the codes.

    codes: per factor (n,) integers; rows that are not in use (n,) are sent to level 0, and must
    have weight 0. chain: places of the factors to be eliminated level by level, each lying in those
    after it.
    """
    order = (*chain, *(i for i in range(len(blocks)) if i not in chain))
    codes = tuple(jnp.where(in_use, codes[i], 0).astype(jnp.int32) for i in order)
    blocks = tuple(blocks[i] for i in order)
    parents = tuple(
        tuple(_parents(codes[j], codes[h], blocks[j].levels) for h in range(j + 1, len(chain)))
        for j in range(len(chain))
    )
    layout = Layout(
        blocks, tuple(order.index(i) for i in range(len(order))), len(chain), parents, ()
    )
    return Plan(layout, codes, ())


def _parents(child, parent, levels):
    """Parent (levels,) of every child, 0 of one without rows. Rows sent to level 0 do not change
    that one's.
    """
    return jnp.zeros(levels, jnp.int32).at[child].max(parent)
