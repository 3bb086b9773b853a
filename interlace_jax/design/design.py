"""Formula + data frame -> Design: the response, the fixed columns, and per grouping factor its
codes and slope columns.

Host NumPy. Every input that does not determine a model is refused here, in a sentence that names
the column or term.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from formulaic.model_spec import ModelSpecs

from ..numerics.covariance.block import parameter_count
from ..numerics.families.family import Distribution, Ordinal
from ..support.arguments import listed
from ..support.warnings import RankWarning
from .auxiliary import Predictor, predictors
from .column_contrasts import check_columns
from .counts import Coding, Observed, coding_of, observed, response_parts, without_response
from .covariances import structured, tied_factors
from .determinacy import _dependence, independent_columns
from .formula import Formula
from .frames import as_frame, check_weights, complete_rows, missing_values, row_vector, take_rows
from .grouping import Factor, factorized, grouping_factors
from .model_matrices import (
    DISPERSION,
    Matrices,
    Part,
    absent_factors,
    check_types,
    find_gaps,
    model_matrices,
    of_other_rows,
    offset_of,
    parts_of,
    plain_variables,
    refuse_gaps,
    refuse_infinite,
    response_of,
    used_columns,
)
from .residual_formula import Power
from .residual_groups import ResidualGroups, residual_columns, residual_groups


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
    dependence: np.ndarray = field(repr=False)
    "(p, d) the dropped columns as sums of the kept ones, in the rows used."
    offset_column: str | None = field(repr=False)
    "Where new data have the offset; None when it was given as an array, or not at all."
    specs: ModelSpecs | None = field(repr=False)
    "formulaic's state for new data; None when all columns are plain numbers."
    offset_is_array: bool = False
    "Whether new data need an offset given again."
    observed: Observed | None = None
    "What the family needs of the response; None in a linear mixed model."
    predictors: tuple[Predictor, ...] = ()
    "Of the family's parameters besides the mean."
    variables: frozenset[str] = field(default=frozenset(), repr=False)
    """The columns of the data that the formula uses; any other name in it is that of a function
    or value.
    """
    other_rows: tuple[str, ...] = field(default=(), repr=False)
    "Columns, of X or of slopes, that are computed from several rows at once."
    residual: ResidualGroups | None = None
    "How residuals covary, and on what their SD depends; None: independent, with one SD."

    @property
    def is_power_of_fitted(self) -> bool:
        """Whether residual SDs are a power of the fitted values."""
        dispersion = None if self.residual is None else self.residual.dispersion
        return isinstance(dispersion, Power) and dispersion.is_of_fitted

    @property
    def w(self) -> np.ndarray:
        """Weights (n,) of the rows, 1 where none were given."""
        return np.ones(len(self.X)) if self.weights is None else self.weights

    @property
    def shift(self) -> np.ndarray:
        """Offset (n,) of the rows, 0 where none was given."""
        return np.zeros(len(self.X)) if self.offset is None else self.offset

    @property
    def groups(self) -> list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]]:
        """Per factor its codes (n,), columns Z (n, k) and sizes of terms, as the array-level
        functions take them.

        Without covariance structures: give `cov` in place of the sizes there.
        """
        return [(f.codes, f.Z, f.sizes) for f in self.factors]

    @property
    def parameter_count(self) -> int:
        """Length d of theta, with the numbers of the residual covariance."""
        return parameter_count([f.block for f in self.factors]) + (
            self.residual.covariance.size if self.residual else 0
        )


class Evaluated(NamedTuple):
    """What a formula makes of the rows used."""

    matrices: Matrices
    specs: ModelSpecs | None
    coded: Mapping[str, tuple[np.ndarray, pd.Index]]
    "By grouping variable: code (n,) of every row, and the sorted levels."
    weights: np.ndarray | None
    offset: np.ndarray | None
    index: pd.Index
    rows: np.ndarray
    n_dropped: int
    variables: frozenset[str] = frozenset()
    other_rows: tuple[str, ...] = ()
    residual: ResidualGroups | None = None


def build(
    formula: Formula,
    data: Any,
    *,
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    na_action: str = "drop",
    response: bool = True,
    context: Mapping[str, Any] | None = None,
    cov: Mapping[str, Any] | None = None,
    family: Distribution | None = None,
    trials: str | float | Iterable[float] | None = None,
) -> Design:
    """Evaluate `formula` in `data` (pandas, polars, or any frame that narwhals reads; never
    modified).

    weights, offset: a column name, or one number per row of `data` (by position). Rows of zero
    weight are left out.
    na_action: "drop" leaves out rows with a missing value in any column used; "raise" refuses them.
    response: False leaves the left side alone (y is None).
    context: names beyond formulaic's (`np`, `log`, `poly`, `bs`, `scale`, `C`, ...) that the
    formula may use.
    cov: covariance structures by the name of the grouping factor.
    family: the distribution of the response in a generalised model; trials: of binomial families, a
    column name, one number per row, or one number.

    Fixed columns that depend linearly on those before them are left out with a warning, as R does.
    Raises ValueError or TypeError, naming the column or term, when the data do not determine the
    model.
    """
    if na_action not in ("drop", "raise"):
        raise ValueError(f"na_action must be 'drop' or 'raise', not {na_action!r}")
    frame = as_frame(data)
    if len(frame) == 0:
        raise ValueError("the data have no rows")
    parts = {key: part for key, part in parts_of(formula).items() if key != "y"}
    if response:
        parts = _response_parts(formula, family) | parts
    columns = used_columns(frame, parts, formula.terms, context) | residual_columns(formula, frame)
    check_columns(formula.contrasts, columns, plain_variables(parts))
    w, shift = row_vector(frame, "weights", weights), row_vector(frame, "offset", offset)
    if w is not None:
        check_weights(w)

    m = row_vector(frame, "trials", _for_each_row(trials, len(frame)))
    coding = (
        None
        if family is None
        else coding_of(formula, family, columns)
        if response
        else without_response(family)
    )
    used = np.ones(len(frame), bool) if w is None else w != 0
    missing = missing_values(columns, weights=w, offset=shift, trials=m)
    rows, n_dropped, columns, matrices, specs = _evaluate(
        parts, columns, missing, used, na_action, context, coding
    )
    if absent := absent_factors(specs, parts.keys() - {"y", "of"}):
        warnings.warn(_absent_message(absent), RankWarning, stacklevel=2)
    index = frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(len(frame))
    made = Evaluated(
        matrices=matrices,
        specs=specs,
        coded=factorized(columns, formula.terms),
        weights=_at(w, rows),
        offset=_at(shift, rows),
        index=index if len(rows) == len(index) else index[rows],
        rows=rows,
        n_dropped=n_dropped,
        variables=frozenset(columns),
        other_rows=of_other_rows(parts, columns, matrices, specs, context),
        residual=residual_groups(formula, columns, matrices.get(DISPERSION), len(rows)),
    )
    return finish(formula, made, offset, cov, coding, _at(m, rows))


def _response_parts(formula: Formula, family: Distribution | None) -> dict[str, Part]:
    """The left side of a formula, to be evaluated."""
    if formula.response is None:
        raise ValueError(
            f"the formula '{formula}' has no response; write one before '~', as in 'y ~ x + (1 | "
            "g)'"
        )
    if family is None:
        return {"y": parts_of(formula)["y"]}
    return response_parts(formula, family)[0]


def _at(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[rows]


def finish(
    formula: Formula,
    e: Evaluated,
    offset: Any,
    cov: Mapping[str, Any] | None = None,
    coding: Coding | None = None,
    trials: np.ndarray | None = None,
) -> Design:
    """The design of an evaluated formula: aliased columns left out, random terms joined by
    factor.
    """
    response = _response(formula, e, coding, trials)
    e, family = e._replace(weights=response.weights), None
    if response.observed is not None:
        family = response.observed.family
    fixed = _fixed_part(e, isinstance(family, Ordinal))
    if fixed.dropped:
        warnings.warn(_alias_message(fixed.dropped), RankWarning, stacklevel=2)
    # Where nothing else scatters the rows, an effect a row is how they are let scatter more than
    # the family has it.
    most = np.inf if family is not None and family.is_count else len(fixed.X)
    found = grouping_factors(formula.terms, e.matrices, e.coded, most, tied_factors(cov))
    factors = structured(found, cov)
    for factor in factors:
        twins = _undetermined(factor)
        if twins:
            warnings.warn(_twin_message(factor, twins), RankWarning, stacklevel=2)
    return Design(
        formula=formula,
        response=response.name,
        y=response.y,
        X=fixed.X,
        columns=fixed.names,
        dropped_columns=fixed.dropped,
        weights=e.weights,
        offset=offset_of(e.matrices, e.offset),
        factors=factors,
        index=e.index,
        rows=e.rows,
        n_dropped=e.n_dropped,
        kept=np.array(fixed.kept, dtype=int),
        dependence=fixed.dependence,
        offset_column=offset if isinstance(offset, str) else None,
        specs=e.specs,
        offset_is_array=offset is not None and not isinstance(offset, str),
        observed=response.observed,
        predictors=response.predictors,
        variables=e.variables,
        other_rows=e.other_rows,
        residual=e.residual,
    )


class _Response(NamedTuple):
    """The left side of a model."""

    y: np.ndarray | None
    name: str | None
    weights: np.ndarray | None
    observed: Observed | None = None
    predictors: tuple[Predictor, ...] = ()


def _response(
    formula: Formula, e: Evaluated, coding: Coding | None, trials: np.ndarray | None
) -> _Response:
    if coding is not None:
        y, weights, seen = observed(coding, e.matrices, e.weights, trials, e.index)
        others = predictors(seen.family, e.matrices)
        return _Response(y, formula.response, weights, seen, others)
    if "y" in e.matrices:
        return _Response(*response_of(e.matrices["y"], parts_of(formula)["y"]), e.weights)
    return _Response(None, formula.response, e.weights)


class _Fixed(NamedTuple):
    """Columns of the fixed part that do not depend on those before them, and the others' names."""

    X: np.ndarray
    names: tuple[str, ...]
    kept: list[int]
    dropped: tuple[str, ...]
    dependence: np.ndarray


def _fixed_part(e: Evaluated, is_ordinal: bool) -> _Fixed:
    X, names = e.matrices["X"]
    if is_ordinal:  # the thresholds are its intercept
        X, names = without_intercept(X, names)
    weighted = X if e.weights is None else X * np.sqrt(e.weights)[:, None]
    kept = independent_columns(weighted)
    dropped = tuple(name for j, name in enumerate(names) if j not in kept)
    dependence = np.zeros((len(kept), 0))
    if dropped:
        dependence = _dependence(weighted, kept)
        X, names = X[:, kept], tuple(names[j] for j in kept)
    if len(X) <= len(names):
        raise ValueError(
            f"{len(X)} rows are too few for {len(names)} fixed-effects columns: {listed(names)}"
        )
    return _Fixed(X, names, kept, dropped, dependence)


def _for_each_row(value: Any, n: int) -> Any:
    """One number as one for each of n rows; anything else as it is."""
    return np.full(n, float(value)) if np.isscalar(value) and not isinstance(value, str) else value


def without_intercept(X: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The other columns of X (n, p)."""
    kept = [j for j, name in enumerate(names) if name != "Intercept"]
    return X[:, kept], tuple(names[j] for j in kept)


def _evaluate(
    parts: Mapping[str, Part],
    columns: Mapping[str, pd.Series],
    missing: Mapping[str, np.ndarray],
    used: np.ndarray,
    na_action: str,
    context: Mapping[str, Any] | None,
    coding: Coding | None = None,
) -> tuple[np.ndarray, int, dict[str, pd.Series], Matrices, ModelSpecs | None]:
    """The rows with nothing missing, how many are not, and everything evaluated on exactly those
    rows.

    The formula itself may make gaps (log of a negative number): then it is evaluated again without
    those rows, so that poly(), scale() and the like never see a row that is not used.
    """
    rows, n_dropped = complete_rows(missing, used, na_action)
    columns = take_rows(columns, rows, len(used))
    columns = columns if coding is None else coding.numbers(columns)
    check_types(parts, columns, len(rows))
    matrices, specs = model_matrices(parts, columns, len(rows), context)
    if gaps := find_gaps(matrices):
        kept, more = complete_rows(gaps, np.ones(len(rows), bool), na_action)
        rows, n_dropped, columns = rows[kept], n_dropped + more, take_rows(columns, kept, len(rows))
        matrices, specs = model_matrices(parts, columns, len(rows), context)
        refuse_gaps(find_gaps(matrices))
    for matrix, names in matrices.values():
        refuse_infinite(matrix, names)
    return rows, n_dropped, columns, matrices, specs


def _spread(values: np.ndarray, rows: np.ndarray, missing: np.ndarray, fill: float) -> np.ndarray:
    """The evaluated rows put back among all rows, `fill` elsewhere."""
    out = np.full((len(missing), values.shape[1]), fill)
    out[rows] = values
    out[missing] = fill
    return out


def _undetermined(f: Factor) -> list[str]:
    """Columns that vary as others of their term do together, or as one of another term: Z Sigma
    Z' has both in sum.
    """
    if (
        f.columns == ("(Intercept)",)
        or not f.block.is_pattern
        or len(independent_columns(f.Z)) == len(f.columns)
    ):
        return []
    ends = np.cumsum(f.sizes)
    terms = [np.arange(end - size, end) for size, end in zip(f.sizes, ends, strict=True)]
    kept = [term[independent_columns(f.Z[:, term])] for term in terms]
    pairs = ((i, j) for a, b in itertools.combinations(kept, 2) for i in a for j in b)
    lost = {j for i, j in pairs if len(independent_columns(f.Z[:, [i, j]])) < 2}
    lost |= set(range(len(f.columns))).difference(*kept)
    return [f.columns[j] for j in sorted(lost)]


def _twin_message(f: Factor, columns: Sequence[str]) -> str:
    return (
        f"the random effects {listed(columns)} of {f.name!r} depend linearly on the columns "
        "before them: their variances are not determined by data, only sums with those of the "
        "others; leave them out"
    )


def _alias_message(dropped: Sequence[str]) -> str:
    return (
        f"the fixed part is rank deficient: {listed(dropped)} depends linearly on the columns "
        "before it and is left out; it has no coefficient"
    )


def _absent_message(names: Iterable[str]) -> str:
    return (
        f"{listed(names)} has one level only in the rows used, like the intercept: it has no "
        "coefficient of its own"
    )
