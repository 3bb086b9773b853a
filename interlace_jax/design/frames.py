"""Any data frame -> the columns a model uses, as pandas, with their types checked and missing
values found. Host.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from .alignment import in_order_of


def as_frame(data: Any) -> pd.DataFrame | nw.DataFrame:
    """A frame as pandas, or as narwhals wraps it; refuses what is none."""
    native = nw.to_native(data, pass_through=True)
    if isinstance(native, pd.DataFrame):
        if native.columns.nlevels > 1:
            raise ValueError(
                "the columns of the data are a MultiIndex, whose names have several parts; join "
                "them first, as by "
                'data.columns = ["_".join(map(str, parts)) for parts in data.columns]'
            )
        return native
    try:
        return nw.from_native(data, eager_only=True)
    except nw.exceptions.DuplicateError as err:
        found = " ".join(str(err).split())
        raise ValueError(
            f"the data have several columns of one name: {found}; rename all but one"
        ) from None
    except TypeError:
        raise TypeError(
            f"data must be a pandas or polars data frame, not {type(data).__name__}; "
            "collect() a lazy frame, wrap arrays in pandas.DataFrame"
        ) from None


def get_column(frame: pd.DataFrame | nw.DataFrame, name: str, where: str) -> pd.Series:
    """One column as a pandas Series; `where` says in which term a missing one was asked for."""
    try:
        column = frame[name]
    except (KeyError, nw.exceptions.ColumnNotFoundError):
        raise ValueError(_unknown_message(name, where, frame)) from None
    if isinstance(column, pd.DataFrame):
        raise ValueError(
            f"the data have {column.shape[1]} columns named {name!r}; rename all but one"
        )
    column = column if isinstance(column, pd.Series) else _to_pandas(column)
    if isinstance(column.dtype, pd.ArrowDtype) and column.dtype.type in (list, dict):
        column = column.astype(object)
    if column.dtype == object and not column.map(pd.api.types.is_hashable).all():
        found = next(type(v).__name__ for v in column if not pd.api.types.is_hashable(v))
        raise ValueError(
            f"column {name!r} (in the {where}) holds values of type {found}; make it numbers or "
            "text"
        )
    return column


def _unknown_message(name: str, where: str, frame: pd.DataFrame | nw.DataFrame) -> str:
    names = [str(column) for column in frame.columns]
    what = f"column {name!r} (in the {where}) is not in the data"
    if name in names:
        return f"{what} under that text; make all names text, as by data.rename(columns=str)"
    if isinstance(frame, pd.DataFrame) and name in frame.index.names:
        return f"{what} but in their index; make it a column, as by data.reset_index()"
    folded = {column.lower(): column for column in names}
    near = [
        folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)
    ]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    listing = f" The columns are {', '.join(map(repr, names))}." if len(names) <= 20 else ""
    return f"{what}{hint}{listing}"


def snapshot(data: Any) -> Any:
    """Data as they are now, whatever is done to the frame later.

    Files and lazy tables are returned as they are.

    Nothing is copied where the library copies on write.
    """
    native = nw.to_native(data, pass_through=True)
    if isinstance(native, pd.DataFrame):
        return native.copy(deep=int(pd.__version__.split(".")[0]) < 3)
    wrapped = nw.from_native(data, pass_through=True)
    return nw.to_native(wrapped.clone()) if isinstance(wrapped, nw.DataFrame) else data


def snapshot_vector(value: Any) -> Any:
    """Weights or an offset as they are now: a name, None and what cannot be changed as they are,
    else a copy.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, np.ndarray | pd.Series | pd.Index):
        return value.copy()
    is_own = (
        isinstance(value, Iterable)
        and not hasattr(value, "to_numpy")
        and not hasattr(value, "__array__")
    )
    return list(value) if is_own else value


def _to_pandas(column: nw.Series) -> pd.Series:
    """A column of another library; integers keep their type when some are missing."""
    dtype = column.dtype
    if isinstance(dtype, nw.Enum):
        return pd.Series(pd.Categorical(column.to_list(), categories=list(dtype.categories)))
    if isinstance(dtype, nw.Categorical) and column.implementation.is_pyarrow():
        return column.to_native().to_pandas()
    if isinstance(dtype, nw.Categorical):  # of polars, in the order of their rows
        return pd.Series(column.cast(nw.String).to_list())
    if isinstance(dtype, nw.Int128 | nw.UInt128) or dtype.is_nested():
        return pd.Series(column.to_list(), dtype=object)
    if dtype.is_integer() and column.is_null().any():
        null = column.is_null().to_numpy()
        width = nw.UInt64 if dtype == nw.UInt64 else nw.Int64
        return pd.Series(pd.arrays.IntegerArray(column.fill_null(0).cast(width).to_numpy(), null))
    return pd.Series((column.cast(nw.Float64) if dtype.is_decimal() else column).to_numpy())


def _usable(column: pd.Series) -> pd.Series:
    """Without missing values a column needs no nullable or object type; narrow integers would
    overflow in products.
    """
    dtype = column.dtype
    if dtype == "float64" or dtype == "int64" or dtype == "str":
        return column
    if isinstance(dtype, pd.ArrowDtype) and issubclass(dtype.type, pd.CategoricalDtype.type):
        column = pd.Series(column.array.__arrow_array__().to_pandas().array, column.index)
        dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return column.cat.remove_unused_categories()
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        return _inferred(column)
    if (
        pd.api.types.is_unsigned_integer_dtype(dtype)
        and len(column)
        and column.max() > np.iinfo(np.int64).max
    ):
        return column.astype(np.uint64)
    for kind, target in _TARGETS:
        if kind(dtype):
            return column.astype(target)
    return column


def _inferred(column: pd.Series) -> pd.Series:
    """A column of Python's objects as the type that they all have, if they have one."""
    kind = pd.api.types.infer_dtype(column, skipna=False)
    if kind in ("decimal", "mixed-integer-float"):
        return column.astype(float)
    if kind == "integer":
        for width in (np.int64, np.uint64):
            limits = np.iinfo(width)
            if column.min() >= limits.min and column.max() <= limits.max:
                return column.astype(width)
    return column.infer_objects()


_TARGETS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (pd.api.types.is_bool_dtype, "bool"),
    (pd.api.types.is_integer_dtype, "int64"),
    (pd.api.types.is_float_dtype, "float64"),
    (lambda dtype: dtype.type is Decimal, "float64"),
    (pd.api.types.is_string_dtype, "str"),
)


def row_vector(
    frame: pd.DataFrame | nw.DataFrame, what: str, value: str | Iterable[float] | None
) -> np.ndarray | None:
    """Weights or offset as (n,) float64, NaN where missing.

    A series with the labels of the data in another order is put into theirs. Raises ValueError for
    labels that are others, for what is no number or infinite, and for another number of values than
    rows.
    """
    if value is None:
        return None
    shown = f"the {what} {value!r}" if isinstance(value, str) else f"the {what}"
    values = (
        get_column(frame, value, what)
        if isinstance(value, str)
        else in_order_of(frame, value, f"the {what}")
    )
    try:
        vector = _floats(values)
    except (TypeError, ValueError):
        raise ValueError(
            f"{shown} must be numbers: a column name, or one number per row of the data"
        ) from None
    if len(vector) != len(frame):
        raise ValueError(
            f"{shown}: {len(vector)} values, but the data have {len(frame)} rows; give one per row"
        )
    if np.isinf(vector).any():
        raise ValueError(f"{shown} has infinite values in {np.isinf(vector).sum()} rows")
    return vector


def _floats(values: Any) -> np.ndarray:
    """Numbers as float64, NaN where missing; a TypeError of times and text, which NumPy would
    count or parse.
    """
    series = pd.Series(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if pd.api.types.infer_dtype(series, skipna=True) in _NUMBERS or series.dtype.kind in "fiub":
        return series.to_numpy(np.float64, na_value=np.nan)
    raise TypeError


_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")


def check_weights(weights: np.ndarray) -> None:
    """Refuse prior weights that are negative, infinite, or all zero."""
    if (weights < 0).any():
        raise ValueError(
            f"the weights are negative in {(weights < 0).sum()} rows; they must be 0 or more"
        )
    if not (weights != 0).any():
        raise ValueError("the weights are zero in all rows; at least some must be positive")


class MissingValues(ValueError):
    """Missing values where none may be. `where`: the columns with their counts, in words."""

    def __init__(self, where: str):
        super().__init__(
            f"na_action='raise': missing values in {where}; drop or fill them, or use "
            "na_action='drop'"
        )
        self.where = where


def missing_values(
    columns: Mapping[str, pd.Series], **vectors: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Where values are missing, by name of the column; only columns with any."""
    masks = {name: column.isna().to_numpy() for name, column in columns.items()}
    masks |= {name: np.isnan(vector) for name, vector in vectors.items() if vector is not None}
    return {name: mask for name, mask in masks.items() if mask.any()}


def complete_rows(
    missing: Mapping[str, np.ndarray], used: np.ndarray, na_action: str
) -> tuple[np.ndarray, int]:
    """Positions of the rows with nothing missing, and the number of rows left out for that."""
    complete = used
    for mask in missing.values():
        complete = complete & ~mask
    rows = np.flatnonzero(complete)
    counts = ", ".join(
        f"{name!r} ({(mask & used).sum()})" for name, mask in missing.items() if (mask & used).any()
    )
    if counts and na_action == "raise":
        raise MissingValues(counts)
    if len(rows) == 0:
        raise ValueError(f"all {used.sum()} rows have missing values: in {counts}")
    return rows, int(used.sum()) - len(rows)


def take_rows(columns: Mapping[str, pd.Series], rows: np.ndarray, n: int) -> dict[str, pd.Series]:
    """Columns in some of their n rows, with types that can be computed with.

    A row may be there twice.
    """
    if not np.array_equal(rows, np.arange(n)):
        columns = {name: column.iloc[rows] for name, column in columns.items()}
    return {name: _usable(column) for name, column in columns.items()}
