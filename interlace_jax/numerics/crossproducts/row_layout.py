"""The integer side of correlated rows: which subjects are alike, and which pairs of rows share an
entry of R^-1.

Host NumPy. Subjects with the same visits, group and covariates share a *pattern*; the entries of
R^-1 of all patterns are the *classes* of pairs of rows, those that are the same function of psi
taken together, those that vanish left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..covariance.residual import Patterns
from .row_pairs import Classes, Pairs

# entries of R^-1 that differ by less than this part of the largest, at every probe, are one
# function
SAME = 1e-9
CHUNK = 4096  # pairs whose products are formed at a time


@dataclass(frozen=True, eq=False)
class RowLayout:
    """N subjects of at most m rows each, and what tells them apart."""

    patterns: Patterns
    pattern: np.ndarray  # (N,) of every subject
    place: np.ndarray  # (m, N) row of the data at every place of a subject; -1 where there is none

    @property
    def subject(self) -> np.ndarray:
        """(n,) subject of every row."""
        found = np.empty(self.place.max() + 1, int)
        slot, who = np.nonzero(self.place >= 0)
        found[self.place[slot, who]] = who
        return found

    @property
    def slot(self) -> np.ndarray:
        """(n,) place of every row within its subject."""
        found = np.empty(self.place.max() + 1, int)
        slot, who = np.nonzero(self.place >= 0)
        found[self.place[slot, who]] = slot
        return found


def row_layout(subject, order, group, position, visit, coordinates=None, slopes=None) -> RowLayout:
    """Lay out n rows by subject and time.

    subject (n,): codes from 0. order (n,): the rows of a subject are put in this order. group (N,):
    group of every subject. position, visit (n,): integers, see `Patterns`. coordinates (n, r): from
    which distances follow, in typical gaps. slopes (n, h): covariates of log SD.
    """
    n, N = len(subject), len(group)
    slopes = np.zeros((n, 0)) if slopes is None else slopes
    rows = np.lexsort((order, subject))
    sizes = np.bincount(subject, minlength=N)
    m = int(sizes.max())
    slot = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.full((m, N), -1)
    place[slot, subject[rows]] = rows
    seen = place >= 0

    def spread(values):
        return np.where(seen.reshape(m, N, *(1,) * (values.ndim - 1)), values[place], 0)

    by_place = [spread(position), spread(visit), spread(slopes)]
    points = None
    if coordinates is not None:
        # where a subject begins does not matter
        points = spread(coordinates - coordinates[place[0]][subject])
        by_place.append(points)
    parts = [np.moveaxis(values, 1, 0).reshape(N, -1) for values in (seen, *by_place)]
    key = np.column_stack([np.asarray(group, float), *parts])
    _, first, pattern, count = np.unique(
        key, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    distance = None
    if points is not None:
        of_pattern = points[:, first]
        distance = np.sqrt(((of_pattern[:, None] - of_pattern[None]) ** 2).sum(-1))
    patterns = Patterns(
        seen=seen[:, first],
        group=np.asarray(group, np.int32)[first],
        position=by_place[0][:, first].astype(np.int32),
        visit=by_place[1][:, first].astype(np.int32),
        distance=distance,
        slopes=np.moveaxis(by_place[2][:, first], -1, 0),
        count=count.astype(float),
    )
    return RowLayout(patterns, pattern.ravel().astype(np.int32), place)


@dataclass(frozen=True, eq=False)
class ClassLayout:
    """The classes of pairs of rows, and which class the pair of two places of a pattern belongs
    to.
    """

    classes: Classes
    kind: np.ndarray  # (m, m, P); -1 where R^-1 vanishes or there is no row

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.classes.first)


def class_layout(seen: np.ndarray, inverses: Sequence[np.ndarray] = ()) -> ClassLayout:
    """Classes of the entries of R^-1 on and above the diagonal. seen (m, P): the places that have a
    row.

    inverses: R^-1 (m, m, P) at a few values of psi; entries that agree in all of them become one
    class. Without them every entry is a class of its own.
    """
    m, P = seen.shape
    upper = np.triu(np.ones((m, m), bool))[:, :, None]
    first, second, pattern = np.nonzero(upper & seen[:, None] & seen[None])
    label = np.arange(len(first))
    if inverses:
        values = [inverse[first, second, pattern] for inverse in inverses]
        label = _alike(values, first == second)
    kept = label >= 0
    _, one, kind = np.unique(label[kept], return_index=True, return_inverse=True)
    at = tuple(a[kept] for a in (first, second, pattern))
    table = np.full((m, m, P), -1)
    table[at] = kind
    table[at[1], at[0], at[2]] = kind
    return ClassLayout(Classes(*(a[one].astype(np.int32) for a in at)), table)


def _alike(values, diagonal):
    """Labels of entries that agree at every probe; -1 where they are 0."""
    label = diagonal.astype(np.int64)
    scale = max(np.abs(v).max() for v in values)
    for v in values:
        order = np.lexsort((v, label))
        new = np.diff(label[order], prepend=-1) != 0
        new |= np.diff(v[order], prepend=np.inf) > SAME * scale
        label[order] = np.cumsum(new)
    zero = np.all([np.abs(v) <= SAME * scale for v in values], axis=0)
    return np.where(zero, -1, label)


def row_pairs(rows: RowLayout, layout: ClassLayout, rounded: Callable[[int], int] = int) -> Pairs:
    """Every pair of rows of one subject that has a class, in chunks."""
    m = len(rows.place)
    found = []
    for a in range(m):
        kinds = layout.kind[a, a:, rows.pattern].T  # (m - a, N)
        b, who = np.nonzero(kinds >= 0)
        left, right = rows.place[a, who], rows.place[a + b, who]
        found.append(np.stack([left, right, kinds[b, who]]))
    left, right, kind = np.concatenate(found, 1)
    weight = np.where(left == right, 0.5, 1.0)
    size = min(CHUNK, rounded(len(left)))
    chunks = rounded(-(-len(left) // size))

    def cut(values):
        padded = np.zeros(chunks * size, values.dtype)
        padded[: len(values)] = values
        return padded.reshape(chunks, size)

    return Pairs(*(cut(a.astype(np.int32)) for a in (left, right, kind)), cut(weight))
