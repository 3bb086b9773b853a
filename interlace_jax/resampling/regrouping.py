"""Groups drawn anew, and which groups are independent of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.determinacy import independent_columns
from ..design.grouping import Factor, is_nested
from ..many.designs import Designs
from ..models.fitted import FittedModel


def regrouped(design: Design, factor: Factor, picks: Sequence[int]) -> Design:
    """The design with the rows of the levels picked, which may repeat: every pick is a level of its
    own.

    Levels of factors nested in this one are new with each pick; other factors keep theirs.
    """
    by_level = np.split(
        np.argsort(factor.codes, kind="stable"), np.cumsum(np.bincount(factor.codes))[:-1]
    )
    rows = np.concatenate([by_level[i] for i in picks])
    pick = np.repeat(np.arange(len(picks)), [len(by_level[i]) for i in picks])

    def renewed(f: Factor) -> Factor:
        old = f.codes[rows].astype(np.int64)
        found, codes = np.unique(
            pick * len(f.levels) + old if is_nested(f, factor) else old, return_inverse=True
        )
        return replace(
            f, Z=f.Z[rows], codes=codes.astype(np.int32), levels=pd.RangeIndex(len(found))
        )

    arrays = {name: getattr(design, name) for name in ("y", "X", "weights", "offset")}
    by_row = {name: None if a is None else a[rows] for name, a in arrays.items()}
    factors = tuple(map(renewed, design.factors))
    places = design.rows[rows] if len(design.rows) else design.rows  # those of a file are not kept
    return replace(design, **by_row, factors=factors, index=design.index[rows], rows=places)


def independent_groups(design: Design, what: str) -> Factor:
    """The factor whose levels share no random effect; ValueError, which names `what` needs it,
    where there is none.
    """
    _refuse_tied(design, what)
    outer = min(design.factors, key=lambda f: len(f.levels))
    crossed = [f.name for f in design.factors if not is_nested(f, outer)]
    if crossed:
        raise ValueError(
            f"{what} needs groups that are independent of each other, but {outer.name} and "
            f"{crossed[0]} are crossed: rows of different groups share random effects"
        )
    return outer


def _refuse_tied(design: Design, what: str) -> None:
    if design.residual is not None:
        raise ValueError(
            f"{what} is not offered for models with residual= or dispersion=; use kind='parametric'"
        )
    tied = [f.name for f in design.factors if f.across is not None]
    if tied:
        raise ValueError(
            f"{what} needs groups that are independent of each other, but the levels of {tied[0]} "
            "covary"
        )


class Regrouped(Designs):
    """Models of data made from the groups of a fit, one for each row of picks."""

    def __init__(self, fit: FittedModel, factor: Factor, picks: Sequence[np.ndarray]):
        self.fit, self.factor, self.picks = fit, factor, picks
        design = fit.design
        super().__init__(design.formula, pd.RangeIndex(len(picks)), fit.model.arguments)

    def make(self, place: int) -> Design:
        """The design of one set of groups."""
        design = regrouped(self.fit.design, self.factor, self.picks[place])
        if len(independent_columns(design.X)) < design.X.shape[1]:
            raise ValueError("the fixed effects are rank deficient in the groups drawn")
        return design


def factor_named(design: Design, name: str) -> Factor:
    """A grouping factor by its name."""
    for f in design.factors:
        if f.name == name:
            return f
    raise ValueError(
        f"there is no grouping factor {name!r}; there are "
        f"{', '.join(repr(f.name) for f in design.factors)}"
    )


def _check_independent(design: Design, by: Factor, what: str) -> None:
    """Refuse a factor whose levels share random effects."""
    _refuse_tied(design, what)
    crossed = [f.name for f in design.factors if not is_nested(f, by)]
    if crossed:
        raise ValueError(
            f"{what} needs groups that are independent of each other, but rows of different "
            f"levels of {by.name!r} share random effects of {crossed[0]!r}"
        )
