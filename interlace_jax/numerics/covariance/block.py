"""The shape of one grouping factor and its parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .across import Kernel, Known
from .structures import Structure


@dataclass(frozen=True)
class Block:
    """Shape of one grouping factor: its levels (padding included), the sizes of its independent
    terms, and how the columns of a level and the levels covary (by default: freely within terms,
    and not at all).
    """

    levels: int
    sizes: tuple[int, ...]
    within: Structure | None = None
    across: Known | Kernel | None = None

    @property
    def k(self) -> int:
        """Random-effect columns on the factor."""
        return sum(self.sizes)

    @property
    def is_pattern(self) -> bool:
        """Whether the parameters of Lambda are its entries."""
        return self.within is None or self.within.pattern

    @property
    def of_any_levels(self) -> Block:
        """The block for programs of Lambda alone, to which the number of levels is nothing."""
        return replace(self, levels=0)

    @property
    def own(self) -> int:
        """Parameters of Lambda, the first of the block's; those of K follow."""
        return len(self.parameters) if self.is_pattern else 1 + len(self.within.names(self.k))

    @property
    def size(self) -> int:
        """Parameters of the block."""
        return self.own + (0 if self.across is None else len(self.across.names))

    @property
    def parameters(self) -> tuple[tuple[int, int], ...]:
        """Position (row, column) in Lambda of every entry of a pattern: term by term, lower
        triangle by columns.
        """
        starts = np.cumsum((0, *self.sizes))
        return tuple(
            (a + i, a + j)
            for a, s in zip(starts, self.sizes, strict=False)
            for j in range(s)
            for i in range(j, s)
        )


def parameter_count(blocks) -> int:
    """Length of theta."""
    return sum(b.size for b in blocks)
