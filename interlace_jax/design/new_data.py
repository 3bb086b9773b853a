"""The design of new rows: transforms, categories and levels are those of the fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..numerics.families.family import Ordinal
from .design import Design, _spread, without_intercept
from .frames import as_frame, missing_values, row_vector, take_rows
from .grouping import Factor, codes_in
from .model_matrices import (
    DISPERSION,
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
    if offset is None and design.offset_is_array and not bare:
        raise ValueError(
            "the model was fitted with an offset array; give offset= for the new data, one value "
            "per row"
        )
    wanted = [f.name for f in design.factors] if random is True else list(random or ())
    factors = [f for f in design.factors if f.name in wanted]
    known = {frozenset(f.variables) for f in factors if f.name not in unknown}
    terms = [term for term in design.formula.terms if frozenset(term.group) in known]
    auxiliary = set() if bare else {p.key for p in design.predictors if p.key is not None}
    more = {DISPERSION} if residual else ()
    keys = {"X"}.union(() if bare else ("offset",), auxiliary, more, *(f.parts for f in factors))
    parts = {key: part for key, part in parts_of(design.formula).items() if key in keys}
    columns = used_columns(frame, parts, terms, context, design.variables or None)
    columns |= residual_columns(design.formula, frame) if residual else {}
    shift = row_vector(
        frame, "offset", design.offset_column if offset is None and not bare else offset
    )

    missing = np.zeros(len(frame), bool)
    for mask in missing_values(columns, offset=shift).values():
        missing |= mask
    rows = np.flatnonzero(~missing)
    columns = take_rows(columns, rows, len(frame))
    matrices, _ = model_matrices(parts, columns, len(rows), context, design.specs, is_new=True)
    refuse_other_rows(design.other_rows, matrices)
    for mask in find_gaps(matrices).values():
        missing[rows[mask]] = True

    def codes(factor: Factor) -> np.ndarray:
        return (
            codes_in(factor, columns)
            if frozenset(factor.variables) in known
            else np.full(len(rows), -1)
        )

    if residual:
        complete = ~missing[rows]
        slopes, names = matrices.get(DISPERSION, (np.zeros((len(rows), 0)), ()))
        here = {name: values[complete] for name, values in columns.items()}
        of_subjects = new_rows(design.residual, design.formula, here, (slopes[complete], names))
    X, names = matrices["X"]
    if design.observed is not None and isinstance(design.observed.family, Ordinal):
        X, _ = without_intercept(X, names)
    X = _spread(X, rows, missing, np.nan)
    if "offset" in matrices:
        added = _spread(offset_of(matrices, None)[:, None], rows, missing, np.nan)[:, 0]
        shift = added if shift is None else shift + added
    Z = [np.hstack([matrices[key][0] for key in factor.parts]) for factor in factors]
    return NewDesign(
        X=X[:, design.kept],
        unknown=_unknown(X, design),
        Z=tuple(_spread(z, rows, missing, 0.0) for z in Z),
        codes=tuple(
            _spread(codes(f)[:, None], rows, missing, -1)[:, 0].astype(np.int32) for f in factors
        ),
        offset=None if shift is None else np.where(missing, np.nan, shift),
        D={key: _spread(matrices[key][0], rows, missing, np.nan) for key in auxiliary},
        index=frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(len(frame)),
        missing=missing,
        residual=of_subjects if residual else None,
    )


def _unknown(X: np.ndarray, design: Design) -> np.ndarray:
    """A function of the full coefficients is estimable if it is a sum of rows of the fit: if
    this is 0.
    """
    kept, dropped = X[:, design.kept], np.delete(X, design.kept, axis=1)
    sizes = np.abs(dropped) + np.abs(kept) @ np.abs(design.dependence)
    return (dropped - kept @ design.dependence) / np.fmax.reduce(
        sizes, initial=np.finfo(float).tiny
    )
