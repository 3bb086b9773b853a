"""The grid of the fixed part's variables over which marginal means are taken, and averages over it.

Host NumPy.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.determinacy import ESTIMABLE
from ..design.new_data import new_data
from ..support.arguments import listed, numbers, one_of

WEIGHTS = ("equal", "proportional", "cells")
STEP = 5e-4  # of a number's range, to each side, over which its slope is taken

Values = Mapping[str, list[Any] | np.ndarray]
"Of every variable: a list of levels, or numbers."


def grid_values(
    design: Design, frame: pd.DataFrame, at: Mapping[str, Any]
) -> dict[str, list[Any] | np.ndarray]:
    """All levels of categorical variables and the means of numbers, or what `at` asks for in
    place of them.
    """
    coded = _numbers_as_categories(design)
    values = {name: _values(frame[name], name in coded) for name in frame}
    if unknown := [name for name in at if name not in values]:
        raise ValueError(
            f"at has {unknown[0]!r}, no variable of the fixed part; there are {listed(values)}"
        )
    return values | {name: _wanted(name, wanted, values[name]) for name, wanted in at.items()}


def _numbers_as_categories(design: Design) -> set[str]:
    """Variables that the fixed part has as `C(x)`."""
    coded = () if design.specs is None else design.specs["X"].encoder_state
    found = (re.match(r"C\(`?([^`,()]+)`?[,)]", expr) for expr in coded)
    return {match[1] for match in found if match}


def _values(column: pd.Series, is_category: bool) -> list[Any] | np.ndarray:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.cat.categories)
    is_number = column.dtype.kind in "iuf" and not is_category
    return np.array([column.mean()]) if is_number else sorted(column.unique())


def _wanted(name: str, wanted: Any, known: list[Any] | np.ndarray) -> list[Any] | np.ndarray:
    wanted = list(wanted) if pd.api.types.is_list_like(wanted) else [wanted]
    if isinstance(known, np.ndarray):
        return numbers(f"at[{name!r}]", wanted)
    if unseen := [level for level in wanted if level not in known]:
        raise ValueError(f"at[{name!r}] has {listed(unseen)}; the levels are {listed(known)}")
    return list(dict.fromkeys(known[known.index(level)] for level in wanted))


@dataclass(frozen=True, eq=False)
class Averages:
    """Averages over a grid: of rows of X, one for each combination of the variables shown."""

    cells: pd.DataFrame
    "(r, v) the combinations."
    L: np.ndarray
    "(r, p)"
    unknown: np.ndarray
    "(r, d) for every column dropped from the fit, 0 if the average does not depend on it."
    empty: list[str]
    "Cells of the data without rows that make averages unknown, in words."


@dataclass(frozen=True, eq=False)
class ReferenceGrid:
    """All combinations of the values of the variables, but those that nesting rules out.

    A factor is nested in another if each of its levels occurs with one level of the other only, as
    drugs within routes: its levels are then combined with that level alone.
    """

    design: Design
    frame: pd.DataFrame = field(repr=False)
    "(n, v) the variables in the rows used."
    values: Values

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """(m, v) Place of its value, by row of the grid and variable."""
        sizes = [len(values) for values in self.values.values()]
        codes = np.indices(sizes).reshape(len(sizes), -1).T
        for inner, outer in self._nests:
            pairs = self._pairs(inner, outer)
            met = np.zeros((len(self.values[inner]), len(self.values[outer])), bool)
            met[tuple(pairs[(pairs >= 0).all(axis=1)].T)] = True
            codes = codes[met[codes[:, self._place(inner)], codes[:, self._place(outer)]]]
        return codes

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """(m, v) The grid itself."""
        columns = {}
        for name, codes in zip(self.values, self.codes.T, strict=True):
            values = self.values[name]
            columns[name] = pd.Series([values[code] for code in codes], dtype=self._dtype(name))
        return pd.DataFrame(columns, index=range(len(self.codes)))

    def _dtype(self, name: str) -> Any:
        dtype = self.frame[name].dtype
        return dtype if isinstance(dtype, pd.CategoricalDtype) else None

    def _place(self, name: str) -> int:
        return list(self.values).index(name)

    @property
    def _categories(self) -> list[str]:
        return [name for name, values in self.values.items() if isinstance(values, list)]

    @functools.cached_property
    def _row_codes(self) -> dict[str, np.ndarray]:
        """By categorical variable the place (n,) of each row's level among the values, -1 where
        it is not there.
        """
        return {
            name: pd.Index(self.values[name], dtype=object).get_indexer(
                self.frame[name].astype(object)
            )
            for name in self._categories
        }

    def _pairs(self, inner: str, outer: str) -> np.ndarray:
        """(c, 2) Places of the levels of two variables that occur together."""
        return np.unique(np.column_stack([self._row_codes[inner], self._row_codes[outer]]), axis=0)

    @functools.cached_property
    def _nests(self) -> list[tuple[str, str]]:
        """Pairs of a factor and one that it is nested in."""
        codes = {name: pd.factorize(self.frame[name])[0] for name in self._categories}
        several = [name for name, found in codes.items() if found.max() > 0]
        return [
            (a, b) for a, b in itertools.permutations(several, 2) if _is_within(codes[a], codes[b])
        ]

    def _inside_out(self, names: Sequence[str]) -> list[str]:
        """Variables, those nested in most others first."""
        depth = {name: sum(inner == name for inner, _ in self._nests) for name in names}
        return sorted(names, key=lambda name: -depth[name])

    def averages(
        self, shown: Sequence[str], weights: str = "equal", trend: str | None = None
    ) -> Averages:
        """Averages of the rows of X over the variables that are not shown; slopes by the number
        `trend` if given.

        weights: "equal", level for level, within the levels of the factor that a factor is nested
        in; "proportional", as often as the combinations averaged over occur in the data; "cells",
        as often as they do in the cell shown.
        """
        one_of("weights", weights, WEIGHTS)
        X, unknown = self._rows(trend)
        place, first = self._cells(shown)
        w = self._equal(shown) if weights == "equal" else self._frequencies(shown, weights)
        total = np.bincount(place, w)
        share = w / np.where(total > 0.0, total, 1.0)[place]
        found = np.zeros((len(first), X.shape[1] + unknown.shape[1] + 1))
        without = np.where(total > 0.0, 0.0, 1.0)[place, None]  # no weight at all: nothing is known
        np.add.at(found, place, np.hstack([share[:, None] * X, share[:, None] * unknown, without]))
        L, unknown = found[:, : X.shape[1]], found[:, X.shape[1] :]
        cells = self.table.iloc[first][list(shown)].astype(object).infer_objects()
        return Averages(cells.reset_index(drop=True), L, unknown, self._empty(place, unknown))

    def _rows(self, trend: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows of X (m, p) and their unknown part (m, d), or their slopes by a number."""
        if trend is None:
            new = self._evaluated(self.table)
            return new.X, new.unknown
        if trend not in self.values or trend in self._categories:
            there = [name for name in self.values if name not in self._categories]
            raise ValueError(
                f"trend must be a number of the fixed part, {listed(there)}, not {trend!r}"
            )
        width = float(np.ptp(self.frame[trend].to_numpy(float))) * STEP
        low, high = (
            self._evaluated(self.table.assign(**{trend: self.table[trend] + h}))
            for h in (-width, width)
        )
        return (high.X - low.X) / (2.0 * width), (high.unknown - low.unknown) / (2.0 * width)

    def _evaluated(self, table: pd.DataFrame) -> Any:
        return new_data(self.design, table, random=False, bare=True)

    def _cells(self, shown: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The cell (m,) that each row of the grid belongs to, in the order of `shown`, and the
        first row of each.
        """
        at = [self._place(name) for name in shown]
        if not at:
            return np.zeros(len(self.codes), int), np.zeros(1, int)
        _, first, place = np.unique(
            self.codes[:, at], axis=0, return_index=True, return_inverse=True
        )
        return place.ravel(), first

    def _equal(self, shown: Sequence[str]) -> np.ndarray:
        """Weights (m,) that average the other variables out one after another, nested ones
        first.
        """
        left, w = list(self.values), np.ones(len(self.codes))
        current = np.arange(len(w))
        for name in self._inside_out([name for name in self.values if name not in shown]):
            left.remove(name)
            merged, _ = self._cells(left)
            pairs = np.unique(np.column_stack([merged, current]), axis=0)
            w = w / np.bincount(pairs[:, 0])[merged]
            current = merged
        return w

    def _frequencies(self, shown: Sequence[str], weights: str) -> np.ndarray:
        """Weights (m,): in how many rows of the data the categories of a row of the grid occur."""
        counted = [name for name in self._categories if weights == "cells" or name not in shown]
        return self._counts(counted).astype(float)

    def _counts(self, names: Sequence[str]) -> np.ndarray:
        """In how many rows of the data (m,) the levels of some variables occur together."""
        sizes = [len(self.values[name]) for name in names]
        if not names:
            return np.full(len(self.codes), len(self.frame))
        rows = np.column_stack([self._row_codes[name] for name in names])
        rows = rows[(rows >= 0).all(axis=1)]
        counts = np.bincount(
            np.ravel_multi_index(tuple(rows.T), sizes), minlength=int(np.prod(sizes))
        )
        at = [self._place(name) for name in names]
        return counts[np.ravel_multi_index(tuple(self.codes[:, at].T), sizes)]

    def _empty(self, place: np.ndarray, unknown: np.ndarray) -> list[str]:
        lost = (np.abs(unknown) > ESTIMABLE).any(axis=1)[place]
        rows = self.table[self._categories][
            lost & (self._counts(self._categories) == 0)
        ].drop_duplicates()
        return [
            ", ".join(f"{name}={value!r}" for name, value in row.items())
            for row in rows.to_dict("records")
        ]


def _is_within(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Whether each of the codes `inner` (n,) occurs with one of `outer` only."""
    return len(np.unique(np.column_stack([inner, outer]), axis=0)) == len(np.unique(inner))
