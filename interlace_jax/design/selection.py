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


def with_sizes(design: Design, values: np.ndarray) -> Design:
    """The design whose SDs are a power of these values (n,), fitted ones."""
    sizes = np.abs(values)
    if not sizes.all():
        raise ValueError(
            'dispersion Power("fitted"): fitted values are 0 in some rows, where the SD would be '
            "0; give the power of a column"
        )
    return replace(design, residual=design.residual.with_slopes(np.log(sizes)[:, None]))


def with_least_squares_sizes(design: Design) -> Design:
    """The design whose SDs are a power of what least squares fits, where they are one of fitted
    values: where their search starts.
    """
    if not design.is_power_of_fitted:
        return design
    beta = np.linalg.lstsq(design.X, design.y - design.shift, rcond=None)[0]
    return with_sizes(design, design.X @ beta + design.shift)


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
