"""The parts of a formula evaluated: response, fixed columns and slopes as model matrices.

formulaic evaluates the terms and keeps in its ModelSpecs what new data need (contrasts, knots,
centring). Formulas of plain numeric columns have no such state and are assembled here, to the same
names and numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import formulaic
import narwhals as nw
import numpy as np
import pandas as pd
from formulaic.errors import DataMismatchWarning, FormulaicError
from formulaic.materializers import PandasMaterializer
from formulaic.model_spec import ModelSpecs
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import Factor as Expression
from formulaic.parser.types import Term as Product
from formulaic.transforms import TRANSFORMS
from formulaic.utils.variables import Variable
from interface_meta import override

from ..support.arguments import listed
from .column_contrasts import CodingError, Declared, coded
from .contrasts import CODING
from .dialect import CONSTANTS, FUNCTIONS, STATISTICS, check_numbers, hint, translated
from .evaluation import evaluate
from .expressions import asks_other_rows, columns_in, normal, shown
from .formula import Formula, Term
from .frames import get_column

DISPERSION = "dispersion"
# names of parameters that tables and hypotheses have beside those of columns
TAKEN = ("Intercept", "sigma")

_Matrix = tuple[np.ndarray, tuple[str, ...]]
"A model matrix and the names of its columns."

Matrices = Mapping[str, _Matrix]
"By key of the part of the formula: `y`, `X`, and `(slopes)` for each distinct text of slopes."


# The parts of a formula ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Part:
    """The response, the fixed part, or the slopes of a random term."""

    label: str
    "For messages."
    formula: formulaic.SimpleFormula
    variables: tuple[tuple[str, bool], ...]
    "What it needs: names of columns (True), and code with more of them (False)."
    products: tuple[tuple[str, ...], ...] | None
    """The columns as products of plain variables, () the intercept; None when there is anything
    else.
    """
    contrasts: Declared = ()
    "Of the formula, by column."


@lru_cache(maxsize=1024)
def parts_of(formula: Formula) -> dict[str, Part]:
    """`y`, `X`, the slopes of each term under their own text, and `dispersion`, where it is a
    formula.
    """
    parts = {}
    if formula.response is not None:
        parts["y"] = _part("0 + " + formula.response, f"response {formula.response!r}")
    parts["X"] = _part(formula.fixed, f"fixed part {formula.fixed!r}")
    for term in formula.terms:
        parts.setdefault(key_of(term), _part(term.columns, f"term {term.text!r}"))
    if isinstance(formula.dispersion, str):
        parts[DISPERSION] = _part(formula.dispersion, f"dispersion '~ {formula.dispersion}'")
    if formula.offsets:
        summands = [
            text if text.isidentifier() or text.startswith("`") else f"I({text})"
            for text in formula.offsets
        ]
        parts["offset"] = _part(
            "0 + " + " + ".join(summands), f"offset {', '.join(map(repr, formula.offsets))}"
        )
    for name, text in formula.auxiliary:
        parts[name] = _part(text, f"argument {name}={text!r}")
    return {key: replace(part, contrasts=formula.contrasts) for key, part in parts.items()}


def offset_of(matrices: Matrices, given: np.ndarray | None) -> np.ndarray | None:
    """The offsets of the formula (n,), added to the one given as an argument."""
    if "offset" not in matrices:
        return given
    total = matrices["offset"][0].sum(axis=1)
    return total if given is None else total + given


def key_of(term: Term) -> str:
    """Key of a term's slopes among the parts: equal slopes are evaluated once."""
    return f"({term.columns})"


@lru_cache(maxsize=1024)
def _part(text: str, label: str) -> Part:
    if "`1`" in text:
        raise ValueError(
            f"the {label} has a column '1', which formulas take for the intercept; rename it"
        )
    try:
        formula = _read(translated(text))
    except (FormulaicError, SyntaxError, ValueError) as err:
        reason = _reason(err).split(". ")[0].rstrip(".")
        raise ValueError(f"the {label} cannot be read: {reason}{hint(text)}") from err
    factors = dict.fromkeys(factor for term in formula for factor in term.factors)
    variables = tuple(
        (f.expr, f.eval_method.value == "lookup")
        for f in factors
        if f.eval_method.value != "literal"
    )
    return Part(label, formula, variables, _products(formula))


def _read(text: str) -> formulaic.SimpleFormula:
    """The terms of a text. formulaic sees a plain name in place of each operand, whatever is
    written there.
    """
    check_numbers(text)
    operands: dict[str, Expression] = {}
    pieces, end = [], 0
    for token in tokenize(text):
        method = _METHODS.get(token.kind.value)
        if method is None or token.token == ".":
            continue
        expr = token.token if method == "lookup" else normal(token.token)
        name = next(
            (n for n, known in operands.items() if known.expr == expr), f"_operand{len(operands)}_"
        )
        if (
            operands.setdefault(name, Expression(expr, eval_method=method)).eval_method.value
            != method
        ):
            raise ValueError(
                f"there are a column and a call of the name {expr!r}; rename the column"
            )
        pieces += [text[end : token.source_start], name]
        end = token.source_end + 1 + (text[token.source_start] in "`{")
    try:
        formula = formulaic.Formula("".join([*pieces, text[end:]]))
    except FormulaicError as err:
        reason = str(err)
        for name, operand in operands.items():
            reason = reason.replace(name, operand.expr)
        raise ValueError(reason) from err
    if not isinstance(formula, formulaic.SimpleFormula):
        raise ValueError("it has several parts, and one is expected")
    terms = [
        Product([operands.get(factor.expr, factor) for factor in term.factors]) for term in formula
    ]
    return formulaic.SimpleFormula(terms, _ordering="none")


_METHODS = {"name": "lookup", "python": "python"}
"How formulaic evaluates the kinds of operands."


def _products(formula: formulaic.SimpleFormula) -> tuple[tuple[str, ...], ...] | None:
    products = []
    for term in formula:
        lookups = tuple(
            factor.expr for factor in term.factors if factor.eval_method.value == "lookup"
        )
        if len(lookups) < len(term.factors) and str(term) != "1":
            return None
        products.append(lookups)
    return tuple(products)


def used_columns(
    frame: pd.DataFrame | nw.DataFrame,
    parts: Mapping[str, Part],
    terms: Sequence[Term],
    context: Mapping[str, Any] | None,
    known: Container[str] | None = None,
) -> dict[str, pd.Series]:
    """The columns of the frame that the parts and the grouping factors need, by name.

    known: names that are those of columns, in new data those of the fit; by default all columns of
    the frame.
    """
    columns: dict[str, pd.Series] = {}
    if clash := next((term.factor for term in terms if term.factor.lower() == "residual"), None):
        raise ValueError(
            f"the grouping factor {clash!r} has the name of the residual in all tables; rename it"
        )
    known = frozenset(frame.columns) if known is None else known
    for key, part in parts.items():
        for text, plain in part.variables:
            if plain and text in TAKEN and key != "y":
                raise ValueError(
                    f"column {text!r} (in the {part.label}) has a parameter's name; rename it"
                )
            for name in _columns_of(text, plain, known, context or {}):
                if name not in columns:
                    columns[name] = get_column(frame, name, part.label)
    for term in terms:
        for name in term.group:
            if name not in columns:
                columns[name] = get_column(frame, name, f"term {term.text!r}")
    return columns


def plain_variables(parts: Mapping[str, Part]) -> list[str]:
    """Names of columns that terms have as they are, the response left out."""
    found = (
        text for key, part in parts.items() if key != "y" for text, plain in part.variables if plain
    )
    return list(dict.fromkeys(found))


def _columns_of(
    text: str, plain: bool, known: Container[str], context: Mapping[str, Any]
) -> list[str]:
    if not plain:
        return columns_in(text, known, _functions(context))
    return [text] if text in known or text not in context else []


def _functions(context: Mapping[str, Any] | None) -> dict[str, Any]:
    """Functions and values that code in formulas may name."""
    return {**TRANSFORMS, **FUNCTIONS, **STATISTICS, **CODING, **CONSTANTS, **(context or {})}


def check_types(parts: Mapping[str, Part], columns: Mapping[str, pd.Series], n: int) -> None:
    """Refuse a response that is no number, and identifiers used as categories."""
    for key, part in parts.items():
        for name in (v for v, plain in part.variables if plain and v in columns):
            dtype = columns[name].dtype
            if key == "y" and dtype.kind not in "iuf":
                raise ValueError(
                    f"the response {name!r} is not numeric but {dtype}; make it numbers, as by "
                    "astype(float)"
                )
            if found := _refused_kind(columns[name]):
                raise ValueError(
                    f"column {name!r} (in the {part.label}) holds {found}; make it numbers or text"
                )
            if dtype.kind not in "iufb" and columns[name].nunique() >= n > 1:
                raise ValueError(
                    f"column {name!r} (in the {part.label}) is {dtype} with another value in each "
                    f"of {n} rows; make it numbers, or leave it out"
                )


_REFUSED = (
    "date",
    "time",
    "datetime",
    "datetime64",
    "timedelta",
    "timedelta64",
    "period",
    "complex",
)


def _refused_kind(column: pd.Series) -> str | None:
    """What a column holds that is neither number nor category."""
    dtype = column.dtype
    if dtype.kind in "mMc" or isinstance(dtype, pd.PeriodDtype):
        return str(dtype)
    if dtype.kind != "O" or isinstance(dtype, pd.CategoricalDtype):
        return None
    kind = pd.api.types.infer_dtype(column)
    return (
        f"whole numbers beyond 64 bits ({dtype})"
        if kind == "integer"
        else kind
        if kind in _REFUSED
        else None
    )


def absent_factors(specs: ModelSpecs | None, keys: Container[str]) -> list[str]:
    """What has one level only, so that a term of some of the parts has no column."""
    found: dict[str, None] = {}
    for key, spec in () if specs is None else specs._to_dict().items():
        empty = [s.term for s in spec.structure if not s.columns and str(s.term) != "1"]
        for term in empty if key in keys else ():
            single = [f.expr for f in term.factors if len(_levels_of(spec, f.expr)) == 1]
            found |= dict.fromkeys(single or [str(term)])
    return list(found)


def _levels_of(spec: Any, expr: str) -> Sequence[Any]:
    return spec.encoder_state.get(expr, (None, {}))[1].get("categories", ())


ROWS = 16  # that are evaluated again by themselves


def of_other_rows(
    parts: Mapping[str, Part],
    columns: Mapping[str, pd.Series],
    matrices: Matrices,
    specs: ModelSpecs | None,
    context: Mapping[str, Any] | None,
) -> tuple[str, ...]:
    """Columns that are computed from other rows too, as `x.rank()` is: some rows by themselves
    give other numbers.
    """
    known, functions = columns.keys(), _functions(context)
    doubtful = {
        key: part
        for key, part in parts.items()
        if any(
            not plain and asks_other_rows(text, known, functions) for text, plain in part.variables
        )
    }
    n = len(next(iter(matrices.values()))[0])
    if not doubtful or specs is None or n < 2:
        return ()
    rows = np.unique(np.linspace(0, n - 1, min(ROWS, n // 2 + 1)).astype(int))
    some = {name: column.iloc[rows] for name, column in columns.items()}
    again, _ = model_matrices(doubtful, some, len(rows), context, specs, is_new=True)
    found: dict[str, None] = {}
    for key, (matrix, names) in again.items():
        before = matrices[key][0][rows]
        same = np.isclose(
            matrix, before, rtol=1e-6, atol=1e-9 * np.abs(before).max(0, initial=0.0)
        ).all(0)
        found |= {name: None for name, ok in zip(names, same, strict=True) if not ok}
    return tuple(found)


def refuse_other_rows(names: Sequence[str], matrices: Matrices) -> None:
    """Refuse new rows where one of the columns wanted is computed from other rows."""
    wanted = {name for _, columns in matrices.values() for name in columns}
    if lost := [name for name in names if name in wanted]:
        raise ValueError(
            f"{listed(lost)} is computed from several rows at once, so that a new row has no "
            "value of it: compute it as a column of the data first"
        )


def find_gaps(matrices: Matrices) -> dict[str, np.ndarray]:
    """Missing values that the formula made (log of a negative number), by name of the design
    column.
    """
    return {
        name: np.isnan(matrix[:, j])
        for matrix, names in matrices.values()
        if not np.isfinite(matrix).all()
        for j, name in enumerate(names)
        if np.isnan(matrix[:, j]).any()
    }


def refuse_gaps(gaps: Mapping[str, np.ndarray]) -> None:
    """After rows were left out there must be no new gaps: lag() makes some whatever the rows,
    and would skip rows.
    """
    if gaps:
        raise ValueError(
            f"{listed(gaps)} has missing values again when rows with missing values are left out; "
            "compute it as a column of the data first"
        )


def refuse_infinite(matrix: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a model matrix with infinite values, naming its columns."""
    if not np.isfinite(matrix).all():
        counts = np.isinf(matrix).sum(axis=0)
        found = ", ".join(
            f"{name!r} ({count} rows)" for name, count in zip(names, counts, strict=True) if count
        )
        raise ValueError(f"infinite values in {found}; make them missing or leave those rows out")


# Model matrices -----------------------------------------------------------------------------------


def model_matrices(
    parts: Mapping[str, Part],
    columns: Mapping[str, pd.Series],
    n: int,
    context: Mapping[str, Any] | None,
    specs: ModelSpecs | None = None,
    is_new: bool = False,
) -> tuple[Matrices, ModelSpecs | None]:
    """All parts over the same n rows, and formulaic's state where there is any.

    specs: the state of the fit, for new rows (is_new) or more of its own; None where its columns
    are plain numbers.
    """
    if is_new and n == 0:
        return {
            key: _empty(part, None if specs is None else specs[key]) for key, part in parts.items()
        }, specs
    if specs is None and all(_is_plain(part, columns) for part in parts.values()):
        wanted = {key: part.products or () for key, part in parts.items()}
        made = {products: _plain_matrix(products, columns, n) for products in set(wanted.values())}
        return {key: made[products] for key, products in wanted.items()}, None
    if specs is None and not is_new:
        spec, states = formulaic.Formula(**{key: part.formula for key, part in parts.items()}), {}
    elif specs is None:
        raise ValueError(_type_message(parts, columns))
    else:
        spec = ModelSpecs(**{key: specs[key] for key in parts})
        states = {name: state for key in parts for name, state in specs[key].encoder_state.items()}
        _check_kinds(columns, states)
    # Arrays instead of Series: labels of the user's rows may repeat.
    frame = pd.DataFrame(
        {name: c.array for name, c in columns.items()}, index=pd.RangeIndex(n), copy=False
    )
    found = _materialize(parts, spec, frame, context, states)
    matrices = {
        key: (np.asarray(found[key], dtype=np.float64), tuple(found[key].model_spec.column_names))
        for key in parts
    }
    return matrices, found.model_spec


def _materialize(
    parts: Mapping[str, Part],
    spec: Any,
    frame: pd.DataFrame,
    context: Mapping[str, Any] | None,
    states: _States,
) -> Any:
    """Model matrices by formulaic, with errors that name the part."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            return _materializer(frame, context, states, _contrasts_of(parts)).get_model_matrix(
                spec, output="numpy", na_action="ignore"
            )
        except (_LevelError, CodingError):
            raise
        except Exception as err:
            where, reason = _culprit(parts, frame, context), _reason(err)
            raise ValueError(
                f"{where} cannot be evaluated: {reason}{_advice(where, reason)}"
            ) from err


def _advice(where: str, reason: str) -> str:
    """What to write instead of a function that Python does not know."""
    return hint(where) if "NameError: name " in reason else ""


def _contrasts_of(parts: Mapping[str, Part]) -> Declared:
    return next((part.contrasts for part in parts.values()), ())


def evaluated(
    formula: formulaic.SimpleFormula, frame: pd.DataFrame, contrasts: Declared
) -> formulaic.ModelMatrix:
    """The matrix of a part's formula, or of a term of it, on its own."""
    return _materializer(frame, None, {}, contrasts).get_model_matrix(formula)


def _culprit(
    parts: Mapping[str, Part], frame: pd.DataFrame, context: Mapping[str, Any] | None
) -> str:
    """The part that fails on its own."""
    for part in parts.values():
        try:
            _materializer(frame, context, {}, part.contrasts).get_model_matrix(
                part.formula, output="numpy", na_action="ignore"
            )
        except Exception:
            return f"the {part.label}"
    return "the formula"


def _reason(err: Exception) -> str:
    if isinstance(err, DataMismatchWarning):
        return "the levels that it names leave out some of the data"
    return shown(str(err).strip().split("\n")[0])


def _is_plain(part: Part, columns: Mapping[str, pd.Series]) -> bool:
    return part.products is not None and all(
        name in columns and columns[name].dtype.kind in "iuf"
        for product in part.products
        for name in product
    )


def _plain_matrix(
    products: tuple[tuple[str, ...], ...], columns: Mapping[str, pd.Series], n: int
) -> _Matrix:
    matrix = np.ones((n, len(products)))
    for j, product in enumerate(products):
        for name in product:
            matrix[:, j] *= columns[name].to_numpy()
    return matrix, tuple(":".join(product) or "Intercept" for product in products)


def _empty(part: Part, spec: Any) -> _Matrix:
    """The matrix of no rows."""
    names = (
        [":".join(product) or "Intercept" for product in part.products or ()]
        if spec is None
        else spec.column_names
    )
    return np.empty((0, len(names))), tuple(names)


_States = Mapping[str, tuple[Expression.Kind, Mapping[str, Any]]]


class _LevelError(ValueError):
    """New data do not have the types or levels of the fit."""


class _Materializer(PandasMaterializer):
    """formulaic's, with bool columns as categories, and with new data checked against the fit."""

    states: _States = {}
    "The fit's, by factor; empty in the fit itself."
    contrasts: Mapping[str, tuple[Any, ...]] = {}

    @override
    def _lookup(self, name: str) -> Any:
        values, variables = super()._lookup(name)
        if name in self.contrasts:
            return coded(values, self.contrasts[name], name), variables
        if isinstance(values, pd.Series) and values.dtype.kind in "iu":
            values = values.astype(np.float64)  # products of whole numbers would overflow
        if isinstance(values, pd.Series) and values.dtype == bool:
            values = values.astype("category")
        return values, variables

    @override
    def _evaluate(self, expr: str, metadata: Any, spec: Any) -> Any:
        value, names = evaluate(
            expr, self.data, self.context, spec.transform_state, self.nrows, spec
        )
        if value is None:
            raise ValueError("it has no value")
        return value, {Variable(name, roles=("value",)) for name in names}

    @override
    def _evaluate_factor(self, factor: Expression, spec: Any, drop_rows: set[int]) -> Any:
        evaluated = super()._evaluate_factor(factor, spec, drop_rows)
        if factor.expr in self.states:
            _check_against_fit(factor.expr, evaluated, *self.states[factor.expr])
        return evaluated


def _materializer(
    frame: pd.DataFrame, context: Mapping[str, Any] | None, states: _States, contrasts: Declared
) -> _Materializer:
    materializer = _Materializer(frame, context=_functions(context))
    materializer.states, materializer.contrasts = states, dict(contrasts)
    return materializer


def _check_kinds(columns: Mapping[str, pd.Series], states: _States) -> None:
    """Before anything is evaluated: text where the fit had numbers would fail first in some
    transform.
    """
    for name, (kind, _) in states.items():
        if (
            kind is Expression.Kind.NUMERICAL
            and name in columns
            and columns[name].dtype.kind not in "iuf"
        ):
            raise _LevelError(
                f"{name!r} is numerical in the fit, but {columns[name].dtype} in the new data"
            )


def _check_against_fit(
    name: str, evaluated: Any, kind: Expression.Kind, state: Mapping[str, Any]
) -> None:
    if evaluated.metadata.kind is not kind:
        found = evaluated.metadata.kind.value
        raise _LevelError(
            f"{name!r} is {kind.value} in the fit, but {found} in the new data; give it the same "
            "type"
        )
    if "categories" in state:
        known = list(state["categories"])
        values = pd.Series(evaluated.values.__wrapped__).dropna().unique()
        if unseen := [value for value in values if value not in known]:
            raise _LevelError(
                f"{name!r} has the level {listed(unseen)} in the new data; the fit has "
                f"{listed(known)}"
            )


def _type_message(parts: Mapping[str, Part], columns: Mapping[str, pd.Series]) -> str:
    plain = {name for part in parts.values() for name, is_plain in part.variables if is_plain}
    names = {name for name in plain if name in columns and columns[name].dtype.kind not in "iuf"}
    return f"{listed(sorted(names))} is numerical in the fit, but not in the new data"


def response_of(matrix: _Matrix, part: Part) -> tuple[np.ndarray, str]:
    """The response as one column (n,), and its name."""
    values, names = matrix
    if len(names) != 1:
        raise ValueError(
            f"the {part.label} must be one column of numbers, not {listed(names) or 'nothing'}"
        )
    return values[:, 0], names[0]
