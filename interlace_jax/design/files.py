"""A file or lazy table too large for memory -> Design: read twice, in batches of rows.

The first pass finds which rows are used and the levels of text columns and grouping factors, the
second evaluates the formula. Kept are the columns of the design (shared where the random part
repeats the fixed one) and a 32-bit code a row and factor; what the formula does not use never
enters memory.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import pandas as pd
from formulaic.model_spec import ModelSpec, ModelSpecs
from formulaic.parser.types import Factor
from narwhals import selectors

from ..support.arguments import listed
from .column_contrasts import check_columns
from .design import Design, Evaluated, finish
from .evaluation import with_state
from .expressions import columns_in
from .formula import Formula
from .frames import MissingValues, check_weights, missing_values, row_vector, take_rows
from .grouping import sorted_positions
from .model_matrices import (
    Matrices,
    Part,
    check_types,
    find_gaps,
    model_matrices,
    parts_of,
    plain_variables,
    refuse_gaps,
    refuse_infinite,
    used_columns,
)

ROWS = 1 << 19  # of a batch
SAMPLE = 16  # rows of a batch that are evaluated again among others
FEW = dict(batch_readahead=1, fragment_readahead=1)  # by default 16 batches wait in memory


def is_scanned(data: Any) -> bool:
    """Whether data are read in batches: a path, a pyarrow dataset, or a lazy frame that narwhals
    knows.
    """
    if isinstance(data, str | os.PathLike) or type(data).__module__.startswith("pyarrow._dataset"):
        return True
    # narwhals would refuse columns that share a name, in words of its own
    if isinstance(data, pd.DataFrame):
        return False
    return isinstance(nw.from_native(data, pass_through=True), nw.LazyFrame)


def refuse_scanned(data: Any, what: str) -> None:
    """Refuse `what`, which needs rows, of data read in batches."""
    if is_scanned(data):
        raise ValueError(
            f"the rows of a file that was read in batches are not kept, and {what}: fit a data "
            "frame"
        )


def scan(
    formula: Formula,
    data: Any,
    weights: str | None,
    offset: str | None,
    na_action: str,
    cov: Mapping[str, Any] | None = None,
) -> Design:
    """`design.build` for data that are read in batches; weights and offset are names of columns.

    Raises ValueError as `build`; also where a batch cannot be evaluated by itself (`poly`, `scale`
    and whatever else needs all rows at once).
    """
    for what, value in (("weights", weights), ("offset", offset)):
        if not (value is None or isinstance(value, str)):
            raise ValueError(f"with data read from a file, {what} must be the name of a column")
    with tempfile.TemporaryDirectory() as folder:
        table = _Table(_dataset(data, Path(folder)), parts_of(formula), formula, weights, offset)
        found = _survey(table, na_action)
        return _fill(table, found, cov)


def _dataset(data: Any, folder: Path) -> Any:
    """A pyarrow dataset; lazy frames are written to a file first, in batches by their own
    library.
    """
    arrow = importlib.import_module("pyarrow.dataset")  # optional, and slow to import
    if isinstance(data, str | os.PathLike):
        if not Path(data).exists():
            raise ValueError(f"there is no file {str(data)!r}")
        return arrow.dataset(data, format=_format(Path(data)))
    lazy = nw.from_native(data, pass_through=True)
    if isinstance(lazy, nw.LazyFrame):
        # Categories of polars stand in the order of their rows: as in its frames, text has an order
        # of its own.
        lazy.with_columns(selectors.categorical().cast(nw.String)).sink_parquet(
            folder / "rows.parquet"
        )
        return arrow.dataset(folder / "rows.parquet")
    return data


def _format(path: Path) -> Any:
    """What a file is read as; empty text in a CSV file is a missing value."""
    if path.suffix != ".csv":
        return path.suffix[1:] or "parquet"
    files, csv = (importlib.import_module(name) for name in ("pyarrow.dataset", "pyarrow.csv"))
    return files.CsvFileFormat(convert_options=csv.ConvertOptions(strings_can_be_null=True))


class Batch(NamedTuple):
    """The columns of some rows, those with missing values left out."""

    columns: dict[str, pd.Series]
    weights: np.ndarray | None
    offset: np.ndarray | None
    n: int
    missing: dict[str, int]  # rows by the column in which something is missing
    n_dropped: int
    categories: dict[str, pd.Index]  # also of those that no row has, in their order


@dataclass(frozen=True)
class _Table:
    dataset: Any
    parts: Mapping[str, Part]
    formula: Formula
    weights: str | None
    offset: str | None

    def batches(self) -> Iterator[Batch]:
        """Rows used, batch by batch."""
        pa = importlib.import_module("pyarrow")
        schema = self.dataset.schema
        empty = self._frame(pa.Table.from_batches([], schema), pa)
        found = used_columns(empty, self.parts, self.formula.terms, None)
        check_columns(self.formula.contrasts, found, plain_variables(self.parts))
        needed = list(found)
        needed += [v for v in (self.weights, self.offset) if v is not None and v not in needed]
        for name in (v for v in (self.weights, self.offset) if v is not None):
            row_vector(empty, "weights" if name == self.weights else "offset", name)
        for batch in self.dataset.to_batches(columns=needed, batch_size=ROWS, **FEW):
            if len(batch):
                yield self._batch(self._frame(batch, pa))
            pa.default_memory_pool().release_unused()

    @staticmethod
    def _frame(rows, pa) -> pd.DataFrame:
        """Arrow's types, so that integers with missing values stay integers; categories and
        views are pandas' own.
        """

        def is_of_pandas(t):
            return pa.types.is_dictionary(t) or pa.types.is_string_view(t)

        return rows.to_pandas(types_mapper=lambda t: None if is_of_pandas(t) else pd.ArrowDtype(t))

    def _batch(self, frame) -> Batch:
        columns = used_columns(frame, self.parts, self.formula.terms, None)
        w, shift = (
            row_vector(frame, "weights", self.weights),
            row_vector(frame, "offset", self.offset),
        )
        used = np.ones(len(frame), bool) if w is None else w != 0
        missing = missing_values(columns, weights=w, offset=shift)
        complete = used & ~np.any([*missing.values(), ~used], axis=0)
        rows = np.flatnonzero(complete)
        categories = {
            n: c.cat.categories
            for n, c in columns.items()
            if isinstance(c.dtype, pd.CategoricalDtype)
        }
        columns = take_rows(columns, rows, len(frame))
        counts = {name: int((mask & used).sum()) for name, mask in missing.items()}
        w, shift = (v if v is None else v[rows] for v in (w, shift))
        return Batch(columns, w, shift, len(rows), counts, int(used.sum()) - len(rows), categories)


@dataclass
class _Survey:
    """What the first pass finds."""

    n: int = 0
    n_dropped: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    levels: dict[str, pd.Index] = field(default_factory=dict)
    categories: dict[str, pd.Index] = field(default_factory=dict)

    def add(self, batch: Batch, groups: set[str]) -> None:
        self.n += batch.n
        self.n_dropped += batch.n_dropped
        for name, count in batch.missing.items():
            self.missing[name] = self.missing.get(name, 0) + count
        for name, column in batch.columns.items():
            if batch.n and (name in groups or column.dtype.kind not in "if"):
                _extend(self.levels, name, _levels(column))
        for name, categories in batch.categories.items():
            _extend(self.categories, name, categories)

    def sort(self, groups: set[str]) -> None:
        """Put levels into the order of their categories, those of groups and of text into one of
        their own.
        """
        for name, levels in self.levels.items():
            if name in self.categories and name not in groups:
                known = self.categories[name]
                self.levels[name] = known[known.isin(levels)]
            else:
                self.levels[name] = levels.take(sorted_positions(levels))


def _extend(lists: dict[str, pd.Index], name: str, new: pd.Index) -> None:
    known = lists.get(name, new[:0])
    lists[name] = known.append(new[known.get_indexer(new) < 0])


def _levels(column: pd.Series) -> pd.Index:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.categories
    return pd.Index(column.unique())


def _survey(table: _Table, na_action: str) -> _Survey:
    found, groups = _Survey(), {name for term in table.formula.terms for name in term.group}
    for batch in table.batches():
        if batch.weights is not None and batch.n:
            check_weights(batch.weights)
        found.add(batch, groups)
    counts = ", ".join(f"{name!r} ({count})" for name, count in found.missing.items() if count)
    if counts and na_action == "raise":
        raise MissingValues(counts)
    if found.n == 0:
        raise ValueError(
            f"all rows have missing values: in {counts}" if counts else "the data have no rows"
        )
    found.sort(groups)
    return found


def _fill(table: _Table, found: _Survey, cov: Mapping[str, Any] | None) -> Design:
    """The second pass: the formula evaluated batch by batch, into whole arrays."""
    formula, n = table.formula, found.n
    whole = _Whole(table, found)
    specs, first, start = None, None, 0
    for batch in table.batches():
        if batch.n == 0:
            continue
        columns = {
            name: _categorical(c, found.levels.get(name)) for name, c in batch.columns.items()
        }
        matrices, specs = _evaluate(table.parts, columns, batch.n, specs)
        if specs is not None:
            sample = _Sample.of(columns, matrices, batch.n)
            first = first or sample
            _refuse_statistics(table.parts, first, sample, specs)
        whole.put(slice(start, start + batch.n), batch, matrices)
        start += batch.n
    made = Evaluated(
        matrices={key: (m.values, m.names) for key, m in whole.matrices.items()},
        specs=specs,
        coded={name: (codes, found.levels[name]) for name, codes in whole.codes.items()},
        weights=whole.vectors.get("weights"),
        offset=whole.vectors.get("offset"),
        index=pd.RangeIndex(n),
        rows=np.empty(0, np.int64),  # the rows themselves are not kept
        n_dropped=found.n_dropped,
        variables=frozenset(columns),
    )
    return finish(formula, made, table.offset, cov)


class _Whole:
    """Arrays of all rows, which batches are written into."""

    def __init__(self, table: _Table, found: _Survey) -> None:
        self.levels, self.n = found.levels, found.n
        groups = dict.fromkeys(name for term in table.formula.terms for name in term.group)
        given = [name for name in ("weights", "offset") if getattr(table, name) is not None]
        self.codes = {name: np.empty(found.n, np.int32) for name in groups}
        self.vectors = {name: np.empty(found.n) for name in given}
        self.matrices: dict[str, _Matrix] = {}

    def put(self, rows: slice, batch: Batch, matrices: Matrices) -> None:
        for name, codes in self.codes.items():
            codes[rows] = self.levels[name].get_indexer(batch.columns[name])
        for name, vector in self.vectors.items():
            vector[rows] = getattr(batch, name)
        if not self.matrices:
            self.matrices = _allocate(matrices, self.n)
        for key, (matrix, _) in matrices.items():
            self.matrices[key].put(rows, matrix)


def _categorical(column: pd.Series, levels: pd.Index | None) -> pd.Series:
    if levels is None or column.dtype.kind in "ifmM":  # times are no categories, as in a frame
        return column
    return pd.Series(pd.Categorical(column, categories=levels))


def _evaluate(parts, columns, n, specs) -> tuple[Matrices, ModelSpecs | None]:
    check_types(parts, columns, n + 1)  # a batch does not tell whether text is an identifier
    matrices, made = model_matrices(parts, columns, n, None, specs)
    if specs is None and made is not None:
        _refuse_state([made[key] for key in parts], columns)
    refuse_gaps(find_gaps(matrices))
    for matrix, names in matrices.values():
        refuse_infinite(matrix, names)
    return matrices, made


def _refuse_state(specs: Sequence[ModelSpec], columns: Mapping[str, pd.Series]) -> None:
    """Refuse what one batch of rows cannot tell: centres and knots, and numbers used as
    categories.
    """
    numbers = {name for name, column in columns.items() if column.dtype.kind in "if"}
    needs_all = {name: None for spec in specs for name in with_state(spec.transform_state)}
    for spec in specs:
        for name, (kind, _) in spec.encoder_state.items():
            is_call = kind is Factor.Kind.CATEGORICAL and name not in columns
            if is_call and numbers & set(columns_in(name, columns, {})):
                needs_all[name] = None
    if needs_all:
        raise ValueError(_needs_all_message(needs_all))


def _needs_all_message(names: Iterable[str]) -> str:
    return (
        f"{listed(names)} needs all rows at once, but the data are read in batches: compute it as "
        "a column of the data first (categories as text)"
    )


class _Sample(NamedTuple):
    """A few rows of a batch, and what the formula made of them among all of the batch."""

    columns: dict[str, pd.Series]
    matrices: dict[str, np.ndarray]
    n: int

    @staticmethod
    def of(columns: Mapping[str, pd.Series], matrices: Matrices, n: int) -> _Sample:
        rows = np.unique(np.linspace(0, n - 1, SAMPLE).astype(int))
        made = {key: matrix[rows] for key, (matrix, _) in matrices.items()}
        return _Sample(
            {name: column.iloc[rows] for name, column in columns.items()}, made, len(rows)
        )


def _refuse_statistics(
    parts: Mapping[str, Part], first: _Sample, sample: _Sample, specs: ModelSpecs
) -> None:
    """Refuse what is computed from other rows too, x - x.mean(): rows of two batches together
    must give the same.
    """
    columns = {
        name: pd.concat([c, sample.columns[name]], ignore_index=True)
        for name, c in first.columns.items()
    }
    again, _ = model_matrices(parts, columns, first.n + sample.n, None, specs, is_new=True)
    for key, (matrix, names) in again.items():
        before = np.concatenate([first.matrices[key], sample.matrices[key]])
        same = np.isclose(
            matrix, before, rtol=1e-6, atol=1e-9 * np.abs(before).max(0, initial=0.0)
        ).all(0)
        if not same.all():
            raise ValueError(
                _needs_all_message(name for name, ok in zip(names, same, strict=True) if not ok)
            )


@dataclass
class _Matrix:
    """A model matrix that is filled batch by batch, or stands for another or for ones."""

    values: np.ndarray
    names: tuple[str, ...]
    own: bool = True

    def put(self, rows: slice, part: np.ndarray) -> None:
        if self.own:
            self.values[rows] = part


def _allocate(matrices: Matrices, n: int) -> dict[str, _Matrix]:
    whole: dict[str, _Matrix] = {}
    for key, (_, names) in matrices.items():
        twin = next((m for m in whole.values() if m.names == names), None)
        if names == ("Intercept",):
            whole[key] = _Matrix(np.broadcast_to(1.0, (n, 1)), names, own=False)
        elif twin is not None:
            whole[key] = _Matrix(twin.values, names, own=False)
        else:
            whole[key] = _Matrix(np.empty((n, len(names))), names)
    return whole
