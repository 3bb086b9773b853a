"""Some rows of a design as a design of their own, and everything that groups its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from .design import Design
from .grouping import Factor


def selected(
    design: Design,
    rows: np.ndarray,
    factors: tuple[Factor, ...] | None = None,
    subject: np.ndarray | None = None,
) -> Design:
    """The design of some rows (r,), which may repeat.

    factors: of these rows, by default as they were, levels without rows included. subject (r,):
    codes of the subjects whose residuals covary, where they are not as they were.
    """
    arrays = {name: getattr(design, name) for name in ("y", "X", "weights", "offset")}
    by_row = {name: None if a is None else a[rows] for name, a in arrays.items()}
    if factors is None:
        factors = tuple(replace(f, Z=f.Z[rows], codes=f.codes[rows]) for f in design.factors)
    residual = None if design.residual is None else design.residual.selected(rows, subject)
    places = design.rows[rows] if len(design.rows) else design.rows  # those of a file are not kept
    return replace(
        design, **by_row, factors=factors, index=design.index[rows], rows=places, residual=residual
    )


def groupings(design: Design) -> tuple[Factor, ...]:
    """The grouping factors, and the subjects whose residuals covary where they are none of them."""
    given = design.residual
    if (
        given is None
        or given.residual is None
        or given.residual.subject in {f.name for f in design.factors}
    ):
        return design.factors
    name, levels = given.residual.subject, pd.Index(given.subjects)
    subjects = Factor(
        name=name,
        variables=(name,),
        levels=levels,
        codes=given.by_row.subject.astype(np.int32),
        Z=np.zeros((len(design.X), 0)),
        columns=(),
        sizes=(),
        parts=(),
        variable_levels=(levels,),
        keys=np.arange(len(levels)),
    )
    return (*design.factors, subjects)
