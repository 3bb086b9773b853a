"""A design as padded arrays, so that similar data share an executable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..design.auxiliary import starts
from ..design.design import Design
from ..numerics.crossproducts import layout
from ..numerics.crossproducts.layout import Plan, pad_rows
from ..numerics.estimation.generalized import Given
from ..numerics.families.density import Row
from ..runtime.devices import memory
from .residual_packing import residual_plan


def plan_of(design: Design, rounded: Callable[[int], int] = int) -> Plan:
    """Layout and codes of a design, levels rounded up."""
    used = design.factors
    levels, covariances = [len(f.levels) for f in used], [(f.within, f.across) for f in used]
    codes, sizes = ([getattr(f, name) for f in used] for name in ("codes", "sizes"))
    if design.residual is None:
        return layout.plan(codes, sizes, levels, rounded, covariances, memory())
    subject = design.residual.rows.subject
    made = layout.plan(codes, sizes, levels, rounded, covariances, memory(), subject)
    return replace(made, residual=residual_plan(design, made.layout, rounded))


def padded_model(design: Design, rounded: Callable[[int], int]) -> tuple:
    """Arguments of `moments`, rows and levels rounded up.

    Rows of zeros have weight zero: they change nothing, and data of similar size share an
    executable.
    """
    plan, n = plan_of(design, rounded), len(design.y)
    weights = np.ones(n) if design.weights is None else design.weights
    offset = np.zeros(n) if design.offset is None else design.offset
    by_row = (
        plan.codes,
        plan.rows,
        design.y,
        design.X,
        [f.Z for f in design.factors],
        weights,
        offset,
    )
    codes, entries, *arrays = pad_rows(by_row, rounded(n) - n)
    return replace(plan, codes=codes, rows=entries), *arrays, [f.K for f in design.factors]


def padded_rows(design: Design, rounded: Callable[[int], int]) -> tuple[Plan, Given]:
    """Arguments of `generalized.prepare`, rows and levels rounded up; a design without a response
    has zeros.
    """
    plan, n, seen = plan_of(design, rounded), len(design.X), design.observed
    y = np.zeros(n) if design.y is None else design.y
    row = y, design.w, seen.m * np.ones(n)
    by_row = plan.codes, plan.rows, row, design.shift, design.X, [f.Z for f in design.factors]
    more = rounded(n) - n
    codes, entries, row, offset, X, Z = pad_rows(by_row, more)
    D = [None if p.D is None else pad_rows(p.D, more) for p in design.predictors]
    g0 = np.zeros(0) if design.y is None else starts(seen.family, design.predictors, y)
    given = Given(
        seen.family, Row(*row), offset, X, Z, [f.K for f in design.factors], D, g0, seen.nodes
    )
    return replace(plan, codes=codes, rows=entries), given
