"""Sparse elimination of crossed factors: exact numbers, where few levels meet many others."""

from __future__ import annotations

import functools

from ..design.design import Design
from ..numerics.crossproducts.rounds import (
    Meeting,
    RoundMoments,
    Rounds,
    meetings,
    rounds_of,
    separate,
    with_rounds,
)
from .chunked_moments import moments_by_chunks
from .dense import Dense
from .engine import CAPABILITIES

DONE = ("satterthwaite", "checks", "report", "equation", "hlmdiag", "plots_of_rows")
NEEDS_MATRIX = (
    'needs the dense core, but this model is fitted with core="sparse"; fit it with core="dense" '
    "where its levels are few enough"
)


class Sparse(Dense):
    """A model by the `RoundMoments` of a sparse elimination."""

    name = "sparse"
    missing = dict.fromkeys((name for name in CAPABILITIES if name not in DONE), NEEDS_MATRIX)

    def __init__(self, design: Design):
        super().__init__(design)
        codes, blocks = ([getattr(f, a) for f in design.factors] for a in ("codes", "block"))
        self._plan = separate(codes, blocks)

    @functools.cached_property
    def _met(self) -> list[Meeting]:
        return meetings(self._plan)

    @functools.cached_property
    def rounds(self) -> Rounds:
        """The order of elimination, found from the levels alone."""
        return rounds_of(self._plan, self._met)

    @functools.cached_property
    def products(self) -> RoundMoments:
        """Conditioned cross-products of the data, as NumPy arrays."""
        d, Z = self.design, [f.Z for f in self.design.factors]
        made = moments_by_chunks(self._plan, d.y, d.X, Z, d.weights, d.offset)
        return with_rounds(self._plan, made, self._met, self.rounds, Z, d.weights)
