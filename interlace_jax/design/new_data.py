"""The design of new rows: transforms, categories and levels are those of the fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..numerics.families.family import Ordinal
from .design import Design, _spread, without_intercept
from .frames import as_frame, missing_values, row_vector, take_rows
from .grouping import Factor, codes_in
from .model_matrices import (
    DISPERSION,
    Matrices,
    Part,
    find_gaps,
    model_matrices,
    offset_of,
    parts_of,
    refuse_other_rows,
    used_columns,
)
from .residual_groups import SubjectRows, new_rows, residual_columns


@dataclass(frozen=True, eq=False)
class NewDesign:
    """The arrays of `Design` for new data: all n rows, X and offset NaN where something is
    missing.
    """

    X: np.ndarray = field(repr=False)
    "(n, p)"
    unknown: np.ndarray = field(repr=False)
    """(n, d) what dropped columns have beyond their `dependence`, in units of their size; 0
    where X beta is estimable.
    """
    Z: tuple[np.ndarray, ...] = field(repr=False)
    "(n, k) per factor asked for; 0 in rows with missing values."
    codes: tuple[np.ndarray, ...] = field(repr=False)
    "(n,) int32 per factor; -1 for levels that the fit has not seen."
    offset: np.ndarray | None = field(repr=False)
    D: dict[str, np.ndarray] = field(repr=False)
    "(n, r) by the argument of a parameter's predictor: `dispersion`, `zero_inflation`."
    index: pd.Index = field(repr=False)
    missing: np.ndarray = field(repr=False)
    "(n,) bool: rows for which nothing can be predicted."
    residual: SubjectRows | None = field(default=None, repr=False)
    "Subjects and visits of the rows that are not missing, where they were asked for."


def new_data(
    design: Design,
    data: Any,
    offset: str | Iterable[float] | None = None,
    *,
    random: bool | Iterable[str] = True,
    unknown: Iterable[str] = (),
    context: Mapping[str, Any] | None = None,
    residual: bool = False,
    bare: bool = False,
) -> NewDesign:
    """Evaluate the formula of `design` in new data, with the fit's contrasts, knots and levels; no
    response is needed.

    offset: needed again when the fit's was an array; a column is looked up in `data` under the
    fit's name.
    random: names of the factors to evaluate (True: all, False: none); the others have no Z and no
    codes.
    unknown: names of factors whose levels are not looked up but taken as unseen.
    residual: also find the subjects and visits of the residual covariance.
    bare: leave offsets and the predictors of the family's parameters out, and the columns that only
    these need.
    """
    frame = as_frame(data)
    shift = None if bare and offset is None else _given_offset(design, frame, offset)
    wanted = _wanted(design, random, unknown, residual, bare)
    terms = [term for term in design.formula.terms if frozenset(term.group) in wanted.known]
    columns = used_columns(frame, wanted.parts, terms, context, design.variables or None)
    if residual:
        columns |= residual_columns(design.formula, frame)

    missing = np.zeros(len(frame), bool)
    for mask in missing_values(columns, offset=shift).values():
        missing |= mask
    rows = np.flatnonzero(~missing)
    columns = take_rows(columns, rows, len(frame))
    matrices, _ = model_matrices(
        wanted.parts, columns, len(rows), context, design.specs, is_new=True
    )
    refuse_other_rows(design.other_rows, matrices)
    for mask in find_gaps(matrices).values():
        missing[rows[mask]] = True

    def spread(values: np.ndarray, fill: float) -> np.ndarray:
        return _spread(values, rows, missing, fill)

    def codes(factor: Factor) -> np.ndarray:
        if frozenset(factor.variables) not in wanted.known:
            return np.full(len(frame), -1, np.int32)
        found = codes_in(factor, columns)[:, None]
        return spread(found, -1)[:, 0].astype(np.int32)

    if "offset" in matrices:
        added = spread(offset_of(matrices, None)[:, None], np.nan)[:, 0]
        shift = added if shift is None else shift + added
    X = spread(_fixed_columns(design, matrices), np.nan)
    Z = [np.hstack([matrices[key][0] for key in factor.parts]) for factor in wanted.factors]
    return NewDesign(
        X=X[:, design.kept],
        unknown=_unknown(X, design),
        Z=tuple(spread(z, 0.0) for z in Z),
        codes=tuple(codes(factor) for factor in wanted.factors),
        offset=None if shift is None else np.where(missing, np.nan, shift),
        D={key: spread(matrices[key][0], np.nan) for key in wanted.predictors},
        index=frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(len(frame)),
        missing=missing,
        residual=_subjects(design, columns, matrices, ~missing[rows]) if residual else None,
    )


class _Wanted(NamedTuple):
    """What of a design is evaluated in new data."""

    factors: list[Factor]
    known: set[frozenset[str]]
    "Grouping variables of the factors whose levels are looked up."
    predictors: set[str]
    "Keys of the predictors of the family's parameters."
    parts: dict[str, Part]


def _wanted(
    design: Design,
    random: bool | Iterable[str],
    unknown: Iterable[str],
    residual: bool,
    bare: bool,
) -> _Wanted:
    names = [f.name for f in design.factors] if random is True else list(random or ())
    factors = [f for f in design.factors if f.name in names]
    known = {frozenset(f.variables) for f in factors if f.name not in unknown}
    keys = {"X"}.union(*(f.parts for f in factors))
    predictors = set() if bare else {p.key for p in design.predictors if p.key is not None}
    if not bare:
        keys |= {"offset"} | predictors
    if residual:
        keys.add(DISPERSION)
    parts = {key: part for key, part in parts_of(design.formula).items() if key in keys}
    return _Wanted(factors, known, predictors, parts)


def _given_offset(design: Design, frame: Any, offset: str | Iterable[float] | None) -> Any:
    """The offset (n,) of new rows that is not in the formula: as given, or the fit's column."""
    if offset is None and design.offset_is_array:
        raise ValueError(
            "the model was fitted with an offset array; give offset= for the new data, one value "
            "per row"
        )
    return row_vector(frame, "offset", design.offset_column if offset is None else offset)


def _fixed_columns(design: Design, matrices: Matrices) -> np.ndarray:
    """The fixed part as evaluated; an ordinal response has thresholds in place of an intercept."""
    X, names = matrices["X"]
    if design.observed is not None and isinstance(design.observed.family, Ordinal):
        X, _ = without_intercept(X, names)
    return X


def _subjects(
    design: Design, columns: Mapping[str, pd.Series], matrices: Matrices, complete: np.ndarray
) -> SubjectRows:
    """Subjects and visits of the complete ones of the evaluated rows."""
    slopes, names = matrices.get(DISPERSION, (np.zeros((len(complete), 0)), ()))
    here = {name: values[complete] for name, values in columns.items()}
    return new_rows(design.residual, design.formula, here, (slopes[complete], names))


def _unknown(X: np.ndarray, design: Design) -> np.ndarray:
    """A function of the full coefficients is estimable if it is a sum of rows of the fit: if
    this is 0.
    """
    kept, dropped = X[:, design.kept], np.delete(X, design.kept, axis=1)
    sizes = np.abs(dropped) + np.abs(kept) @ np.abs(design.dependence)
    return (dropped - kept @ design.dependence) / np.fmax.reduce(
        sizes, initial=np.finfo(float).tiny
    )
