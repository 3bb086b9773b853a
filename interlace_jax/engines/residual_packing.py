"""The residual covariance of a design as padded arrays: by classes of pairs of rows, or row by
row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..design.design import Design
from ..design.grouping import Factor
from ..design.residual_groups import ResidualGroups
from ..numerics.covariance.correlations import ARMA11, Antedependence, Toeplitz
from ..numerics.covariance.residual import Patterns, precisions
from ..numerics.covariance.structures import AR1, CompoundSymmetry
from ..numerics.crossproducts.layout import Layout
from ..numerics.crossproducts.row_layout import class_layout, row_pairs
from ..numerics.crossproducts.row_pairs import Classes, ClassPlan
from ..numerics.crossproducts.whitening import RowPlan
from ..runtime.calls import run
from ..runtime.compilation import brief, jit
from ..support.arguments import listed

FEW = 1 << 14  # numbers of a model by classes below which nothing is gained by having fewer
# an evaluation by classes may read so many times the numbers of the rows: it does less with each
ROWS_PER_CLASS = 3
LARGEST = 1 << 27  # numbers of a model by classes, where there is no other way
PROBES = {
    AR1: 1.4,
    ARMA11: 1.4,
    Antedependence: 1.4,
    CompoundSymmetry: 0.5,
    Toeplitz: 0.3,
    type(None): 0.5,
}
"""By structure the size of the free numbers at which entries of R^-1 are compared: large where
entries of distant rows are so small otherwise that they pass for 0. Others are not compared: theirs
may be that small anywhere.
"""


def residual_plan(
    design: Design, layout: Layout, rounded: Callable[[int], int]
) -> ClassPlan | RowPlan:
    """How the rows of a design that are correlated go into its moments."""
    given = design.residual
    rows = given.rows
    size = _numbers(design, layout)
    held = sum(f.Z.shape[1] for f in design.factors) + design.X.shape[1] + 1
    classes = class_layout(rows.patterns.seen)
    if classes.size * size > FEW and type(given.covariance.within) in PROBES:
        classes = class_layout(rows.patterns.seen, _probes(given, rounded))
    crossing = _crossing(design, layout)
    if classes.size * size > max(FEW, ROWS_PER_CLASS * len(design.X) * held) and not crossing:
        return RowPlan(
            given.covariance, _padded(rows.patterns, rounded), *_padded_subjects(rows, rounded)
        )
    if classes.size * size > LARGEST:
        raise ValueError(
            f"{given} correlates all rows of a subject, and the factor "
            f"{listed(f.name for f in crossing)} crosses subjects: with "
            f"{len(rows.patterns.count)} patterns of visits that takes too much memory; use ar1"
        )
    pairs = row_pairs(rows, classes, rounded)
    entries = classes.classes
    at = [
        np.resize(a, rounded(classes.size))
        for a in (entries.first, entries.second, entries.pattern)
    ]
    patterns = _padded(rows.patterns, rounded)
    return ClassPlan(
        given.covariance, patterns, *_padded_subjects(rows, rounded), Classes(*at), pairs
    )


def _numbers(design: Design, layout: Layout) -> int:
    """Numbers of the cross-products of one class."""
    chain, q, c = layout.blocks[: layout.chain], layout.q, design.X.shape[1] + 1
    met = sum(e.level.shape[0] * b.k for e, b in zip(layout.entries, chain, strict=False))
    beside = c if layout.entries else q + c
    nested = [b.levels * b.k * other.k for i, b in enumerate(chain) for other in chain[i + 1 :]]
    return sum(b.levels * b.k * (b.k + beside) for b in chain) + sum(nested) + met + (q + c) ** 2


def _crossing(design: Design, layout: Layout) -> list[Factor]:
    """Factors that part a subject."""
    subject = design.residual.rows.subject
    found = []
    for f in design.factors:
        level = np.zeros(subject.max() + 1, f.codes.dtype)
        level[subject] = f.codes
        if (level[subject] != f.codes).any():
            found.append(f)
    return found


def _probes(given: ResidualGroups, rounded: Callable[[int], int]) -> list[np.ndarray]:
    """R^-1 (m, m, P) at a few generic values of psi."""
    size, rng = PROBES[type(given.covariance.within)], np.random.default_rng(0)
    patterns = _padded(given.rows.patterns, rounded)
    values = [size + 0.3 * rng.random(given.covariance.size) for _ in range(3)]
    found = [run(_precisions, patterns, psi, given.covariance) for psi in values]
    return [R[..., : len(given.rows.patterns.count)] for R in found]


def _padded(patterns: Patterns, rounded: Callable[[int], int]) -> Patterns:
    """Patterns without subjects after the others."""
    P = len(patterns.count)

    def grown(a):
        more = np.zeros((*a.shape[:-1], rounded(P) - P), a.dtype)
        return np.concatenate([a, more], -1)

    arrays = {name: a for name, a in vars(patterns).items() if isinstance(a, np.ndarray)}
    return replace(patterns, **{name: grown(a) for name, a in arrays.items()})


def _padded_subjects(rows, rounded) -> tuple[np.ndarray, np.ndarray]:
    """Pattern of every subject, and their rows, with subjects without rows after the others."""
    more = rounded(len(rows.pattern)) - len(rows.pattern)
    place = np.concatenate([rows.place, np.full((len(rows.place), more), -1)], 1)
    return np.append(rows.pattern, np.zeros(more, np.int32)), place.astype(np.int32)


@brief
@jit
def _precisions(patterns, psi, structure):
    return precisions(structure, psi, patterns)
