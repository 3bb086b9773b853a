"""Formula + data frame -> Design: the response, the fixed columns, and per grouping factor its codes and slope columns.

Host NumPy. formulaic evaluates the terms and keeps in its ModelSpecs what new data need (contrasts, knots, centring).
Formulas of plain numeric columns have no such state and are assembled here, to the same names and numbers.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import formulaic
import narwhals as nw
import numpy as np
import pandas as pd
from formulaic.errors import DataMismatchWarning, FormulaicError
from formulaic.materializers import PandasMaterializer
from formulaic.model_spec import ModelSpecs
from formulaic.parser.types import Factor as Expression
from formulaic.transforms import TRANSFORMS
from formulaic.utils.variables import Variable, get_required_variables
from interface_meta import override

from .errors import RankWarning
from .formula import Formula, Term

_Matrix = tuple[np.ndarray, tuple[str, ...]]
"A model matrix and the names of its columns."

_Matrices = Mapping[str, _Matrix]
"By key of the part of the formula: `y`, `X`, and `(slopes)` for each distinct text of slopes."


@dataclass(frozen=True, eq=False)
class Factor:
    """One grouping factor with m levels; every random term on it is joined into k columns."""

    name: str
    "lme4's label: `Subject`, `cask:batch`."
    variables: tuple[str, ...]
    levels: pd.Index = field(repr=False)
    "(m,) labels of the levels used, sorted by the first variable, then the second ...; interactions as `a1:b1`."
    codes: np.ndarray = field(repr=False)
    "(n,) int32 level of each row."
    Z: np.ndarray = field(repr=False)
    "(n, k) slope columns."
    columns: tuple[str, ...]
    "k names, `(Intercept)` first."
    sizes: tuple[int, ...]
    "Widths of the mutually independent unstructured blocks, in column order: (1 + x | g) -> (2,), || -> (1, 1)."
    parts: tuple[str, ...] = field(repr=False)
    "Which evaluated parts of the formula the columns come from, in order."
    variable_levels: tuple[pd.Index, ...] = field(repr=False)
    "Sorted levels of each variable."
    keys: np.ndarray = field(repr=False)
    "(m,) position of each level in the full crossing of `variable_levels` (row-major), increasing."


@dataclass(frozen=True, eq=False)
class Design:
    """The arrays of a mixed model for the n rows used, p fixed columns kept; see `build`."""

    formula: Formula
    response: str | None
    y: np.ndarray | None = field(repr=False)
    "(n,)"
    X: np.ndarray = field(repr=False)
    "(n, p)"
    columns: tuple[str, ...]
    "p names, formulaic's."
    dropped_columns: tuple[str, ...]
    "Aliased columns, left out of X."
    weights: np.ndarray | None = field(repr=False)
    "(n,) positive."
    offset: np.ndarray | None = field(repr=False)
    "(n,)"
    factors: tuple[Factor, ...]
    "lme4's order: most levels first, ties as written."
    index: pd.Index = field(repr=False)
    "(n,) labels of the rows used in the user's frame."
    rows: np.ndarray = field(repr=False)
    "(n,) their positions there."
    n_dropped: int
    "Rows left out for missing values; rows of zero weight do not count."
    kept: np.ndarray = field(repr=False)
    "(p,) positions of the kept columns among all fixed columns."
    offset_column: str | None = field(repr=False)
    "Where new data have the offset; None when it was given as an array, or not at all."
    specs: ModelSpecs | None = field(repr=False)
    "formulaic's state for new data; None when all columns are plain numbers."


@dataclass(frozen=True, eq=False)
class NewDesign:
    """The arrays of `Design` for new data: all n rows, X and offset NaN where something is missing."""

    X: np.ndarray = field(repr=False)
    "(n, p)"
    Z: tuple[np.ndarray, ...] = field(repr=False)
    "(n, k) per factor of the design; 0 in rows with missing values."
    codes: tuple[np.ndarray, ...] = field(repr=False)
    "(n,) int32 per factor; -1 for levels that the fit has not seen."
    offset: np.ndarray | None = field(repr=False)
    index: pd.Index = field(repr=False)
    missing: np.ndarray = field(repr=False)
    "(n,) bool: rows for which nothing can be predicted."


def build(
    formula: Formula,
    data: Any,
    *,
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    na_action: str = "drop",
    response: bool = True,
    context: Mapping[str, Any] | None = None,
) -> Design:
    """Evaluate `formula` in `data` (pandas, polars, or any frame that narwhals reads; never modified).

    weights, offset: a column name, or one number per row of `data` (by position). Rows of zero weight are left out.
    na_action: "drop" leaves out rows with a missing value in any column used; "raise" refuses them.
    response: False leaves the left side alone (y is None).
    context: names beyond formulaic's (`np`, `log`, `poly`, `bs`, `scale`, `C`, ...) that the formula may use.

    Fixed columns that depend linearly on those before them are left out with a warning, as R does.
    Raises ValueError or TypeError, naming the column or term, when the data do not determine the model.
    """
    if na_action not in ("drop", "raise"):
        raise ValueError(f"na_action must be 'drop' or 'raise', not {na_action!r}")
    if response and formula.response is None:
        raise ValueError(f"the formula '{formula}' has no response; write one before '~', as in 'y ~ x + (1 | g)'")
    frame = _frame(data)
    if len(frame) == 0:
        raise ValueError("the data have no rows")
    parts = _parts(formula)
    if not response:
        parts = {key: part for key, part in parts.items() if key != "y"}
    columns = _used_columns(frame, parts, formula.terms, context)
    w, shift = _vector(frame, "weights", weights), _vector(frame, "offset", offset)
    if w is not None:
        _check_weights(w)

    used = np.ones(len(frame), bool) if w is None else w != 0
    missing = _missing(columns, weights=w, offset=shift)
    rows, n_dropped, columns, matrices, specs = _evaluate(parts, columns, missing, used, na_action, context)
    w, shift = (v if v is None else v[rows] for v in (w, shift))
    y, name = _response(matrices["y"], parts["y"]) if response else (None, formula.response)
    X, names = matrices["X"]
    kept = _independent_columns(X if w is None else X * np.sqrt(w)[:, None])
    dropped = tuple(name for j, name in enumerate(names) if j not in kept)
    if dropped:
        warnings.warn(_alias_message(dropped), RankWarning, stacklevel=2)
        X, names = X[:, kept], tuple(names[j] for j in kept)
    if len(rows) <= len(names):
        raise ValueError(f"{len(rows)} rows are too few for {len(names)} fixed-effects columns: {_listed(names)}")
    factors = _factors(formula.terms, matrices, columns, len(rows))
    index = frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(len(frame))
    return Design(
        formula=formula,
        response=name,
        y=y,
        X=X,
        columns=names,
        dropped_columns=dropped,
        weights=w,
        offset=shift,
        factors=factors,
        index=index if len(rows) == len(index) else index[rows],
        rows=rows,
        n_dropped=n_dropped,
        kept=np.array(kept, dtype=int),
        offset_column=offset if isinstance(offset, str) else None,
        specs=specs,
    )


def new_data(
    design: Design,
    data: Any,
    offset: str | Iterable[float] | None = None,
    *,
    random: bool = True,
    context: Mapping[str, Any] | None = None,
) -> NewDesign:
    """Evaluate the formula of `design` in new data, with the fit's contrasts, knots and levels; no response is needed.

    offset: needed again when the fit's was an array; a column is looked up in `data` under the fit's name.
    random: False leaves grouping factors and slopes alone (Z and codes are empty).
    """
    frame = _frame(data)
    if offset is None and design.offset_column is None and design.offset is not None:
        raise ValueError("the model was fitted with an offset array; give offset= for the new data, one value per row")
    terms = design.formula.terms if random else ()
    parts = _parts(design.formula)
    parts = {key: part for key, part in parts.items() if key == "X" or (random and key != "y")}
    columns = _used_columns(frame, parts, terms, context)
    shift = _vector(frame, "offset", design.offset_column if offset is None else offset)

    missing = np.zeros(len(frame), bool)
    for mask in _missing(columns, offset=shift).values():
        missing |= mask
    rows = np.flatnonzero(~missing)
    columns = _take(columns, rows, len(frame))
    matrices, _ = _matrices(parts, columns, len(rows), context, design)
    for mask in _gaps(matrices).values():
        missing[rows[mask]] = True

    factors = design.factors if random else ()
    X = _spread(matrices["X"][0][:, design.kept], rows, missing, np.nan)
    Z = [np.hstack([matrices[key][0] for key in factor.parts]) for factor in factors]
    codes = [_codes(factor, columns)[:, None] for factor in factors]
    return NewDesign(
        X=X,
        Z=tuple(_spread(z, rows, missing, 0.0) for z in Z),
        codes=tuple(_spread(code, rows, missing, -1)[:, 0].astype(np.int32) for code in codes),
        offset=None if shift is None else np.where(missing, np.nan, shift),
        index=frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(len(frame)),
        missing=missing,
    )


def _evaluate(
    parts: Mapping[str, _Part],
    columns: Mapping[str, pd.Series],
    missing: Mapping[str, np.ndarray],
    used: np.ndarray,
    na_action: str,
    context: Mapping[str, Any] | None,
) -> tuple[np.ndarray, int, dict[str, pd.Series], _Matrices, ModelSpecs | None]:
    """The rows with nothing missing, how many are not, and everything evaluated on exactly those rows.

    The formula itself may make gaps (log of a negative number): then it is evaluated again without those rows, so that
    poly(), scale() and the like never see a row that is not used.
    """
    rows, n_dropped = _complete_rows(missing, used, na_action)
    columns = _take(columns, rows, len(used))
    _check_types(parts, columns, len(rows))
    matrices, specs = _matrices(parts, columns, len(rows), context)
    if gaps := _gaps(matrices):
        kept, more = _complete_rows(gaps, np.ones(len(rows), bool), na_action)
        rows, n_dropped, columns = rows[kept], n_dropped + more, _take(columns, kept, len(rows))
        matrices, specs = _matrices(parts, columns, len(rows), context)
        _refuse_gaps(_gaps(matrices))
    for matrix, names in matrices.values():
        _refuse_infinite(matrix, names)
    return rows, n_dropped, columns, matrices, specs


def _spread(values: np.ndarray, rows: np.ndarray, missing: np.ndarray, fill: float) -> np.ndarray:
    """The evaluated rows put back among all rows, `fill` elsewhere."""
    out = np.full((len(missing), values.shape[1]), fill)
    out[rows] = values
    out[missing] = fill
    return out


# The parts of a formula ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Part:
    """The response, the fixed part, or the slopes of a random term."""

    label: str
    "For messages."
    formula: formulaic.SimpleFormula
    variables: tuple[tuple[Variable, bool], ...]
    "What it needs from the data; False: found by reading Python code, so that it may be a name from elsewhere."
    products: tuple[tuple[str, ...], ...] | None
    "The columns as products of plain variables, () the intercept; None when there is anything else."


@lru_cache(maxsize=1024)
def _parts(formula: Formula) -> dict[str, _Part]:
    """`y`, `X`, and the slopes of each term under their own text."""
    parts = {}
    if formula.response is not None:
        parts["y"] = _part("0 + " + formula.response, f"response {formula.response!r}")
    parts["X"] = _part(formula.fixed, f"fixed part {formula.fixed!r}")
    for term in formula.terms:
        parts.setdefault(_key(term), _part(term.columns, f"term {term.text!r}"))
    return parts


def _key(term: Term) -> str:
    return f"({term.columns})"


def _part(text: str, label: str) -> _Part:
    try:
        formula = formulaic.Formula(text)
        if not isinstance(formula, formulaic.SimpleFormula):
            raise ValueError(f"the {label} has several parts; one is expected")
        variables = [pair for term in formula for factor in term.factors for pair in _variables(factor)]
    except (FormulaicError, SyntaxError) as err:
        raise ValueError(f"the {label} cannot be read: {_reason(err)}") from err
    return _Part(label, formula, tuple(dict.fromkeys(variables)), _products(formula))


def _variables(factor: Expression) -> list[tuple[Variable, bool]]:
    method = factor.eval_method.value
    if method == "lookup":
        return [(Variable(factor.expr), True)]
    found = get_required_variables(factor.expr) if method == "python" else ()
    # A call names a function, unless it is the method of a variable: x.clip(0).
    return [(v, False) for v in sorted(found) if Variable.Role.VALUE in v.roles or "." in v]


def _products(formula: formulaic.SimpleFormula) -> tuple[tuple[str, ...], ...] | None:
    products = []
    for term in formula:
        lookups = tuple(factor.expr for factor in term.factors if factor.eval_method.value == "lookup")
        if len(lookups) < len(term.factors) and str(term) != "1":
            return None
        products.append(lookups)
    return tuple(products)


# Columns -------------------------------------------------------------------------------------------------------------


def _frame(data: Any) -> pd.DataFrame | nw.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    try:
        native = nw.to_native(data, pass_through=True)
        return native if isinstance(native, pd.DataFrame) else nw.from_native(data, eager_only=True)
    except TypeError:
        raise TypeError(
            f"data must be a pandas or polars data frame, not {type(data).__name__}; "
            "collect() a lazy frame, wrap arrays in pandas.DataFrame"
        ) from None


def _used_columns(
    frame: pd.DataFrame | nw.DataFrame,
    parts: Mapping[str, _Part],
    terms: Sequence[Term],
    context: Mapping[str, Any] | None,
) -> dict[str, pd.Series]:
    columns: dict[str, pd.Series] = {}
    for part in parts.values():
        for variable, plain in part.variables:
            name = _name(variable, plain, frame.columns, context or {})
            if name is not None and name not in columns:
                columns[name] = _column(frame, name, part.label)
    for term in terms:
        for name in term.group:
            if name not in columns:
                columns[name] = _column(frame, name, f"term {term.text!r}")
    return columns


def _name(variable: Variable, plain: bool, known: Sequence[str], context: Mapping[str, Any]) -> str | None:
    """The column that a variable of the formula refers to; None when it comes from elsewhere (np.pi, a function)."""
    root = variable.root
    if variable in known:
        return str(variable)
    if not plain and root in known:
        return str(root)
    if variable in context or (not plain and (root in context or root in TRANSFORMS)):
        return None
    return str(root if Variable.Role.CALLABLE in variable.roles else variable)


def _column(frame: pd.DataFrame | nw.DataFrame, name: str, where: str) -> pd.Series:
    try:
        column = frame[name]
    except (KeyError, nw.exceptions.ColumnNotFoundError):
        raise ValueError(_unknown_message(name, where, list(frame.columns))) from None
    if isinstance(column, pd.DataFrame):
        raise ValueError(f"the data have {column.shape[1]} columns named {name!r}; rename all but one")
    return column if isinstance(column, pd.Series) else _to_pandas(column)


def _unknown_message(name: str, where: str, columns: list[Any]) -> str:
    names = [str(column) for column in columns]
    folded = {column.lower(): column for column in names}
    near = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    listing = f" The columns are {', '.join(map(repr, names))}." if len(names) <= 20 else ""
    return f"column {name!r} (in the {where}) is not in the data{hint or ';' if listing else hint}{listing}"


def _to_pandas(column: nw.Series) -> pd.Series:
    """A column of another library; integers keep their type when some are missing."""
    dtype = column.dtype
    if isinstance(dtype, nw.Enum):
        return pd.Series(pd.Categorical(column.to_list(), categories=list(dtype.categories)))
    if isinstance(dtype, nw.Categorical):
        return pd.Series(column.cast(nw.String).to_list())
    if dtype.is_integer() and column.is_null().any():
        null = column.is_null().to_numpy()
        return pd.Series(pd.arrays.IntegerArray(column.fill_null(0).cast(nw.Int64).to_numpy(), null))
    return pd.Series((column.cast(nw.Float64) if dtype.is_decimal() else column).to_numpy())


def _check_types(parts: Mapping[str, _Part], columns: Mapping[str, pd.Series], n: int) -> None:
    for key, part in parts.items():
        for name in (str(v) for v, plain in part.variables if plain and v in columns):
            dtype = columns[name].dtype
            if key == "y" and dtype.kind not in "if":
                raise ValueError(
                    f"the response {name!r} is not numeric but {dtype}; make it numbers, as by astype(float)"
                )
            if dtype.kind in "mMc":
                raise ValueError(f"column {name!r} (in the {part.label}) holds {dtype}; make it numbers or text")
            if dtype.kind not in "ifb" and columns[name].nunique() >= n > 1:
                raise ValueError(
                    f"column {name!r} (in the {part.label}) is {dtype} with another value in each of {n} rows; "
                    "make it numbers, or leave it out"
                )


def _usable(column: pd.Series) -> pd.Series:
    """Without missing values a column needs no nullable or object type; narrow integers would overflow in products."""
    dtype = column.dtype
    if dtype == "float64" or dtype == "int64" or dtype == "str":
        return column
    if isinstance(dtype, pd.CategoricalDtype):
        return column.cat.remove_unused_categories()
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        column = column.infer_objects()
        return column.astype(float) if pd.api.types.infer_dtype(column, skipna=False) == "decimal" else column
    for kind, target in _TARGETS:
        if kind(dtype):
            return column.astype(target)
    return column


_TARGETS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (pd.api.types.is_bool_dtype, "bool"),
    (pd.api.types.is_integer_dtype, "int64"),
    (pd.api.types.is_float_dtype, "float64"),
    (pd.api.types.is_string_dtype, "str"),
)


def _vector(frame: pd.DataFrame | nw.DataFrame, what: str, value: str | Iterable[float] | None) -> np.ndarray | None:
    """Weights or offset as (n,) float64, NaN where missing."""
    if value is None:
        return None
    shown = f"the {what} {value!r}" if isinstance(value, str) else f"the {what}"
    values = _column(frame, value, what) if isinstance(value, str) else value
    try:
        values = pd.Series(values.to_numpy() if hasattr(values, "to_numpy") else values)
        vector = values.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise ValueError(f"{shown} must be numbers: a column name, or one number per row of the data") from None
    if len(vector) != len(frame):
        raise ValueError(f"{shown}: {len(vector)} values, but the data have {len(frame)} rows; give one per row")
    if np.isinf(vector).any():
        raise ValueError(f"{shown} has infinite values in {np.isinf(vector).sum()} rows")
    return vector


def _check_weights(weights: np.ndarray) -> None:
    if (weights < 0).any():
        raise ValueError(f"the weights are negative in {(weights < 0).sum()} rows; they must be 0 or more")
    if not (weights != 0).any():
        raise ValueError("the weights are 0 in all rows; at least some must be positive")


# Rows ----------------------------------------------------------------------------------------------------------------


def _missing(columns: Mapping[str, pd.Series], **vectors: np.ndarray | None) -> dict[str, np.ndarray]:
    """Where values are missing, by name of the column; only columns with any."""
    masks = {name: column.isna().to_numpy() for name, column in columns.items()}
    masks |= {name: np.isnan(vector) for name, vector in vectors.items() if vector is not None}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _complete_rows(missing: Mapping[str, np.ndarray], used: np.ndarray, na_action: str) -> tuple[np.ndarray, int]:
    """Positions of the rows with nothing missing, and the number of rows left out for that."""
    complete = used
    for mask in missing.values():
        complete = complete & ~mask
    rows = np.flatnonzero(complete)
    counts = ", ".join(f"{name!r} ({(mask & used).sum()})" for name, mask in missing.items() if (mask & used).any())
    if counts and na_action == "raise":
        raise ValueError(f"na_action='raise': missing values in {counts}; drop or fill them, or use na_action='drop'")
    if len(rows) == 0:
        raise ValueError(f"all {used.sum()} rows have missing values: in {counts}")
    return rows, int(used.sum()) - len(rows)


def _take(columns: Mapping[str, pd.Series], rows: np.ndarray, n: int) -> dict[str, pd.Series]:
    if len(rows) < n:
        columns = {name: column.iloc[rows] for name, column in columns.items()}
    return {name: _usable(column) for name, column in columns.items()}


def _gaps(matrices: _Matrices) -> dict[str, np.ndarray]:
    """Missing values that the formula made (log of a negative number), by name of the design column."""
    return {
        name: np.isnan(matrix[:, j])
        for matrix, names in matrices.values()
        if not np.isfinite(matrix).all()
        for j, name in enumerate(names)
        if np.isnan(matrix[:, j]).any()
    }


def _refuse_gaps(gaps: Mapping[str, np.ndarray]) -> None:
    """After rows were left out there must be no new gaps: lag() makes some whatever the rows, and would skip rows."""
    if gaps:
        raise ValueError(
            f"{_listed(gaps)} has missing values again when rows with missing values are left out; "
            "compute it as a column of the data first"
        )


def _refuse_infinite(matrix: np.ndarray, names: Sequence[str]) -> None:
    if not np.isfinite(matrix).all():
        counts = np.isinf(matrix).sum(axis=0)
        found = ", ".join(f"{name!r} ({count} rows)" for name, count in zip(names, counts, strict=True) if count)
        raise ValueError(f"infinite values in {found}; make them missing or leave those rows out")


# Model matrices ------------------------------------------------------------------------------------------------------


def _matrices(
    parts: Mapping[str, _Part],
    columns: Mapping[str, pd.Series],
    n: int,
    context: Mapping[str, Any] | None,
    trained: Design | None = None,
) -> tuple[_Matrices, ModelSpecs | None]:
    """All parts over the same n rows, and formulaic's state where there is any; `trained` holds the fit's."""
    if (trained is None or trained.specs is None) and all(_is_plain(part, columns) for part in parts.values()):
        return {key: _plain_matrix(part, columns, n) for key, part in parts.items()}, None
    if trained is None:
        spec, states = formulaic.Formula(**{key: part.formula for key, part in parts.items()}), {}
    elif trained.specs is None:
        raise ValueError(_type_message(parts, columns))
    else:
        spec = ModelSpecs(**{key: trained.specs[key] for key in parts})
        states = {name: state for key in parts for name, state in trained.specs[key].encoder_state.items()}
        _check_kinds(columns, states)
    # Arrays instead of Series: labels of the user's rows may repeat.
    frame = pd.DataFrame({name: c.array for name, c in columns.items()}, index=pd.RangeIndex(n), copy=False)
    found = _materialize(parts, spec, frame, context, states)
    matrices = {
        key: (np.asarray(found[key], dtype=np.float64), tuple(found[key].model_spec.column_names)) for key in parts
    }
    return matrices, found.model_spec


def _materialize(
    parts: Mapping[str, _Part], spec: Any, frame: pd.DataFrame, context: Mapping[str, Any] | None, states: _States
) -> Any:
    """Model matrices by formulaic, with errors that name the part."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            return _materializer(frame, context, states).get_model_matrix(spec, output="numpy", na_action="ignore")
        except _LevelError:
            raise
        except Exception as err:
            where = _culprit(parts, frame, context)
            raise ValueError(f"{where} cannot be evaluated: {_reason(err)}") from err


def _culprit(parts: Mapping[str, _Part], frame: pd.DataFrame, context: Mapping[str, Any] | None) -> str:
    """The part that fails on its own."""
    for part in parts.values():
        try:
            _materializer(frame, context, {}).get_model_matrix(part.formula, output="numpy", na_action="ignore")
        except Exception:
            return f"the {part.label}"
    return "the formula"


def _reason(err: Exception) -> str:
    if isinstance(err, DataMismatchWarning):
        return "the levels that it names leave out some of the data"
    return str(err).strip().split("\n")[0]


def _is_plain(part: _Part, columns: Mapping[str, pd.Series]) -> bool:
    return part.products is not None and all(
        name in columns and columns[name].dtype.kind in "if" for product in part.products for name in product
    )


def _plain_matrix(part: _Part, columns: Mapping[str, pd.Series], n: int) -> _Matrix:
    products = part.products or ()
    matrix = np.ones((n, len(products)))
    for j, product in enumerate(products):
        for name in product:
            matrix[:, j] *= columns[name].to_numpy()
    return matrix, tuple(":".join(product) or "Intercept" for product in products)


_States = Mapping[str, tuple[Expression.Kind, Mapping[str, Any]]]


class _LevelError(ValueError):
    """New data do not have the types or levels of the fit."""


class _Materializer(PandasMaterializer):
    """formulaic's, with bool columns as categories, and with new data checked against the fit."""

    states: _States = {}
    "The fit's, by factor; empty in the fit itself."

    @override
    def _lookup(self, name: str) -> Any:
        values, variables = super()._lookup(name)
        if isinstance(values, pd.Series) and values.dtype == bool:
            values = values.astype("category")
        return values, variables

    @override
    def _evaluate_factor(self, factor: Expression, spec: Any, drop_rows: set[int]) -> Any:
        evaluated = super()._evaluate_factor(factor, spec, drop_rows)
        if factor.expr in self.states:
            _check_against_fit(factor.expr, evaluated, *self.states[factor.expr])
        return evaluated


def _materializer(frame: pd.DataFrame, context: Mapping[str, Any] | None, states: _States) -> _Materializer:
    materializer = _Materializer(frame, context=context)
    materializer.states = states
    return materializer


def _check_kinds(columns: Mapping[str, pd.Series], states: _States) -> None:
    """Before anything is evaluated: text where the fit had numbers would fail first in some transform."""
    for name, (kind, _) in states.items():
        if kind is Expression.Kind.NUMERICAL and name in columns and columns[name].dtype.kind not in "if":
            raise _LevelError(f"{name!r} is numerical in the fit, but {columns[name].dtype} in the new data")


def _check_against_fit(name: str, evaluated: Any, kind: Expression.Kind, state: Mapping[str, Any]) -> None:
    if evaluated.metadata.kind is not kind:
        raise _LevelError(f"{name!r} is {kind.value} in the fit, but {evaluated.metadata.kind.value} in the new data")
    if "categories" in state:
        known = list(state["categories"])
        values = pd.Series(evaluated.values.__wrapped__).dropna().unique()
        if unseen := [value for value in values if value not in known]:
            raise _LevelError(f"{name!r} has the level {_listed(unseen)} in the new data; the fit has {_listed(known)}")


def _type_message(parts: Mapping[str, _Part], columns: Mapping[str, pd.Series]) -> str:
    names = {n for part in parts.values() for n, _ in part.variables if columns[n].dtype.kind not in "if"}
    return f"{_listed(sorted(names))} is numerical in the fit, but not in the new data"


def _listed(names: Iterable[Any], most: int = 10) -> str:
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _response(matrix: _Matrix, part: _Part) -> tuple[np.ndarray, str]:
    values, names = matrix
    if len(names) != 1:
        raise ValueError(f"the {part.label} must be one column of numbers, not {_listed(names) or 'nothing'}")
    return values[:, 0], names[0]


_CONSTANT = 1e-13
"Relative spread below which a response does not vary."

# Rank ----------------------------------------------------------------------------------------------------------------

_ALIASED = 1e-7
"R's tolerance (dqrdc2): a column is aliased when its residual on the columns before it is below this part of its norm."

_CLEARLY_INDEPENDENT = 1e-5
"Residuals computed from a cross-product are off by about 1e-8 of the norm; above this they need no second look."


def _independent_columns(X: np.ndarray) -> list[int]:
    """The columns that R keeps: scanned from the left, each measured against those kept before it."""
    if X.shape[1] == 0:
        return []
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    if norms.all():
        scaled = X / norms
        try:
            if np.linalg.cholesky(scaled.T @ scaled).diagonal().min() > _CLEARLY_INDEPENDENT:
                return list(range(X.shape[1]))
        except np.linalg.LinAlgError:
            pass
    basis = np.empty(X.T.shape)
    kept: list[int] = []
    for j in np.flatnonzero(norms):
        Q = basis[: len(kept)]
        residual = X[:, j] / norms[j]
        for _ in range(2):  # the second pass removes the rounding of the first
            residual = residual - Q.T @ (Q @ residual)
        size = np.linalg.norm(residual)
        if size >= _ALIASED:
            basis[len(kept)] = residual / size
            kept.append(int(j))
    return kept


def _alias_message(dropped: Sequence[str]) -> str:
    return (
        f"the fixed part is rank deficient: {_listed(dropped)} depends linearly on the columns before it and is left "
        "out; it has no coefficient"
    )


# Grouping factors ----------------------------------------------------------------------------------------------------


def _factors(
    terms: Sequence[Term],
    matrices: _Matrices,
    columns: Mapping[str, pd.Series],
    n: int,
) -> tuple[Factor, ...]:
    joined: dict[frozenset[str], list[Term]] = {}
    for term in terms:
        joined.setdefault(frozenset(term.group), []).append(term)
    coded = {name: _factorize(columns[name]) for name in dict.fromkeys(name for t in terms for name in t.group)}
    factors = [_factor(group, matrices, coded, n) for group in joined.values()]
    return tuple(sorted(factors, key=lambda factor: -len(factor.levels)))


def _factor(
    terms: Sequence[Term],
    matrices: _Matrices,
    coded: Mapping[str, tuple[np.ndarray, pd.Index]],
    n: int,
) -> Factor:
    terms = sorted(terms, key=lambda term: "Intercept" not in matrices[_key(term)][1])
    variables = terms[0].group
    codes, levels, keys = _crossed([coded[name] for name in variables])
    _check_levels(terms[0], levels)
    sizes = []
    for term in terms:
        k = len(matrices[_key(term)][1])
        sizes += [1] * k if term.independent else [k]
        _check_size(term, len(levels), k, n)
    names = ["(Intercept)" if name == "Intercept" else name for term in terms for name in matrices[_key(term)][1]]
    _check_duplicates(terms, names)
    return Factor(
        name=terms[0].factor,
        variables=variables,
        levels=levels,
        codes=codes.astype(np.int32),
        Z=np.hstack([matrices[_key(term)][0] for term in terms]) if len(terms) > 1 else matrices[_key(terms[0])][0],
        columns=tuple(names),
        sizes=tuple(sizes),
        parts=tuple(_key(term) for term in terms),
        variable_levels=tuple(coded[name][1] for name in variables),
        keys=keys,
    )


def _check_levels(term: Term, levels: pd.Index) -> None:
    if len(levels) == 1:
        raise ValueError(
            f"the grouping factor {term.factor!r} of {term.text!r} has one level only, {levels[0]!r}, in the rows "
            "used; it needs at least two"
        )


def _check_size(term: Term, m: int, k: int, n: int) -> None:
    if k == 0:
        raise ValueError(f"the term {term.text!r} has no columns; write (1 | {term.factor}) for a random intercept")
    each = 1 if term.independent else k
    if m * each >= n:
        raise ValueError(
            f"the term {term.text!r} has {m} levels of {term.factor!r} x {each} columns = {m * each} random effects "
            f"for {n} rows; there must be more rows than random effects, or they cannot be told from the residual"
        )


def _check_duplicates(terms: Sequence[Term], names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        texts = ", ".join(repr(term.text) for term in terms)
        raise ValueError(
            f"the column {_listed(twice)} occurs twice on the grouping factor {terms[0].factor!r} ({texts}); "
            "leave it out of one term, as in (1 | g) + (0 + x | g)"
        )


def _factorize(column: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """(n,) codes and the sorted levels."""
    codes, levels = pd.factorize(column)
    if isinstance(levels, pd.CategoricalIndex):
        levels = levels.categories.take(levels.codes)
    order = _sorted_positions(levels)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], levels.take(order).rename(None)


def _sorted_positions(levels: pd.Index) -> np.ndarray:
    try:
        return np.asarray(levels.argsort())
    except TypeError:  # labels of several types: by type, then by text
        return np.array(sorted(range(len(levels)), key=lambda i: (type(levels[i]).__name__, str(levels[i]))))


def _crossed(variables: Sequence[tuple[np.ndarray, pd.Index]]) -> tuple[np.ndarray, pd.Index, np.ndarray]:
    """Codes, labels and keys of the level combinations that occur."""
    if len(variables) == 1:
        codes, levels = variables[0]
        return codes, levels, np.arange(len(levels))
    shape = [len(levels) for _, levels in variables]
    combined = np.ravel_multi_index([codes for codes, _ in variables], shape)
    codes, keys = pd.factorize(combined, sort=True)
    positions = np.unravel_index(keys, shape)
    labels = [map(_label, levels.take(at)) for (_, levels), at in zip(variables, positions, strict=True)]
    return codes, pd.Index([":".join(label) for label in zip(*labels, strict=True)]), keys


def _label(level: Any) -> str:
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def _codes(factor: Factor, columns: Mapping[str, pd.Series]) -> np.ndarray:
    """(n,) codes of new rows, -1 for combinations that the fit has not seen."""
    pairs = zip(factor.variables, factor.variable_levels, strict=True)
    known = [_known(name, columns[name], levels) for name, levels in pairs]
    unseen = np.any([codes < 0 for codes in known], axis=0)
    combined = np.ravel_multi_index([np.maximum(c, 0) for c in known], [len(v) for v in factor.variable_levels])
    return np.where(unseen, -1, pd.Index(factor.keys).get_indexer(combined))


def _known(name: str, column: pd.Series, levels: pd.Index) -> np.ndarray:
    codes, found = _factorize(column)
    at = levels.get_indexer(found)
    unseen = found[at < 0]
    labels = {_label(level): level for level in levels} if len(unseen) else {}
    for level in unseen:
        if (twin := labels.get(_label(level))) is not None:
            raise ValueError(
                f"the grouping variable {name!r} has {level!r} ({type(level).__name__}) in the new data, but {twin!r} "
                f"({type(twin).__name__}) in the fit; give both the same type"
            )
    return at[codes]


def is_constant(y: np.ndarray) -> bool:
    """Whether a response (n,) does not vary."""
    return bool(np.ptp(y) <= _CONSTANT * np.abs(y).max())
