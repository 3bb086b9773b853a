"""Sparse elimination of crossed factors: exact numbers, where few levels meet many others."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ..design.design import Design
from ..numerics.crossproducts.moments import Moments
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

DONE = (
    *("satterthwaite", "prediction_intervals", "profiles"),
    *("checks", "report", "equation", "hlmdiag", "plots_of_rows"),
)
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
        return self._with_rounds(self._met, self.rounds)

    @functools.cached_property
    def _by_level(self) -> Moments:
        d, Z = self.design, [f.Z for f in self.design.factors]
        return moments_by_chunks(self._plan, d.y, d.X, Z, d.weights, d.offset)

    def _with_rounds(self, met, rounds):
        Z = [f.Z for f in self.design.factors]
        return with_rounds(self._plan, self._by_level, met, rounds, Z, self.design.weights)

    def meet(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        """Of which rows every two levels meet in the data (r,); codes as in `meeting`."""
        found = np.ones(len(codes[0]), bool)
        for f in self._met:
            others = self._plan.layout.blocks[f.h].levels
            keys = codes[f.g].astype(np.int64) * others + codes[f.h]
            is_unseen = np.minimum(codes[f.g], codes[f.h]) < 0
            found &= is_unseen | np.isin(keys, f.level * others + f.other)
        return found

    def meeting(self, codes: Sequence[np.ndarray]) -> tuple[RoundMoments, list[Meeting]]:
        """The products with places for the levels that meet in other rows too, and where these are.

        codes: per factor (r,), -1 of unseen levels.
        """
        met = meetings(self._plan, codes)
        if all(len(new.level) == len(f.level) for new, f in zip(met, self._met, strict=True)):
            return self.products, met
        return self._with_rounds(met, rounds_of(self._plan, met)), met
