"""Groups drawn anew, and which groups are independent of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.determinacy import independent_columns
from ..design.grouping import Factor, is_nested
from ..design.selection import groupings, selected
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

    return selected(
        design, rows, tuple(map(renewed, design.factors)), _subjects(design, factor, rows, pick)
    )


def _subjects(
    design: Design, factor: Factor, rows: np.ndarray, pick: np.ndarray
) -> np.ndarray | None:
    """Codes of the subjects whose residuals covary: new with each pick."""
    given = design.residual
    if given is None or given.residual is None:
        return None
    (subjects,) = (f for f in groupings(design) if f.name == given.residual.subject)
    if not is_nested(subjects, factor):
        raise ValueError(
            f"groups of {factor.name!r} cannot be drawn anew: residuals covary within "
            f"{subjects.name!r}, which lie in several of them; draw {subjects.name!r}"
        )
    return pick * len(given.subjects) + given.by_row.subject[rows]


def independent_groups(design: Design, what: str) -> Factor:
    """The factor whose levels share no random effect; ValueError, which names `what` needs it,
    where there is none.
    """
    _refuse_tied(design, what)
    known = groupings(design)
    if not known:
        raise ValueError(
            f"{what} needs groups that are independent of each other, and this model has none"
        )
    outer = min(known, key=lambda f: len(f.levels))
    crossed = [f.name for f in known if not is_nested(f, outer)]
    if crossed:
        raise ValueError(
            f"{what} needs groups that are independent of each other, but {outer.name} and "
            f"{crossed[0]} are crossed: rows of different groups share random effects"
        )
    return outer


def _refuse_tied(design: Design, what: str) -> None:
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
        if design.residual is not None:
            design.residual.check()
        return design


def factor_named(design: Design, name: str) -> Factor:
    """A grouping factor, or the subjects whose residuals covary, by its name."""
    known = {f.name: f for f in groupings(design)}
    if name not in known:
        raise ValueError(
            f"there is no grouping factor {name!r}; there are {', '.join(map(repr, known))}"
        )
    return known[name]


def _check_independent(design: Design, by: Factor, what: str) -> None:
    """Refuse a factor whose levels share random effects."""
    _refuse_tied(design, what)
    crossed = [f.name for f in groupings(design) if not is_nested(f, by)]
    if crossed:
        raise ValueError(
            f"{what} needs groups that are independent of each other, but rows of different "
            f"levels of {by.name!r} share random effects or residuals of {crossed[0]!r}"
        )
