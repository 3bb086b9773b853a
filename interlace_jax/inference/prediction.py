"""Predictions with intervals: how far the truth may be from them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.determinacy import ESTIMABLE
from ..design.frames import as_frame, get_column
from ..design.grouping import Factor, is_nested
from ..design.new_data import NewDesign, new_data
from ..design.residual_groups import SubjectRows
from ..models.fitted import FittedModel
from ..models.linear_predictor import Rows, _of_fit, expected
from ..numerics.crossproducts import layout
from ..numerics.crossproducts.layout import bucket, pad_rows, power_of_two
from ..numerics.likelihood import gaussian
from ..numerics.likelihood.coordinates import to_user
from ..numerics.likelihood.elimination import reduce
from ..numerics.likelihood.random_effects import modes
from ..numerics.uncertainty.curvature import jacobian
from ..numerics.uncertainty.sensitivity import prediction_variances
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.arguments import check_level, listed, one_of, texts
from ..support.later import jax
from ..support.warnings import RankWarning
from .coefficients import coefficients
from .conditional import conditional, refuse_observed
from .row_variances import row_variances
from .tails import t_quantile

INTERVALS = ("confidence", "prediction")
CHUNK = 2**16  # new rows at a time, at least: the rows of the fit go with every chunk

_variances = jit(prediction_variances)


def predict(
    fit: FittedModel,
    newdata: Any = None,
    include_re: bool | Iterable[str] = True,
    allow_new_levels: bool = True,
    offset: str | Iterable[float] | None = None,
    interval: str | None = None,
    level: float = 0.95,
    theta_uncertainty: bool = False,
    include_residual: bool = False,
) -> pd.Series | pd.DataFrame:
    """Expected response for the rows of a frame (by default those of the fit), or `fit lower upper
    se`.

    newdata: a frame with the columns of the formula; transforms and categories are those of the
    fit. A row with missing values gives NaN.
    include_re: add the random effects of the levels known; False gives population values; names of
    factors add those of these factors only.
    allow_new_levels: a level the fit has not seen has random effect 0, with a warning where none is
    known but some are spelled like those that are; False refuses it.
    offset: needed again when the fit's was an array; an offset column is read from newdata.
    interval: "confidence", for the expected response in the row: from the joint distribution of
    beta^ - beta and b^ - b given theta (Henderson 1975), a new level counting with its full
    variance z'Sigma z and factors left out of include_re not at all. "prediction", for a new
    response in the row: factors left out of include_re count as new levels, and the residual adds
    sigma^2, over the weights for the rows of the fit (new rows have weight 1).
    theta_uncertainty: add by the delta method what the predictions owe to the estimation of theta.
    include_residual: where residuals covary (`residual=`), add the part of the row's residual that
    the other rows of its subject predict, for visits that were not observed; of a new subject there
    is none. SEs are those of the error for the response itself.

    Quantiles are Student's t with Satterthwaite's df of the variance in question, or normal if
    `df_method` is "normal". Confidence intervals of population values are those of linear
    combinations of coefficients: they follow `df_method`, Kenward-Roger included.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> new = sleep.head(2).assign(Subject=["S308", "somebody new"])
    >>> fit.predict(new, interval="prediction").round(1)
         fit  lower  upper    se
    0  253.7  197.6  309.7  28.4
    1  261.9  187.1  336.6  37.0
    """
    if interval is not None:
        one_of("interval", interval, INTERVALS)
        check_level(level)
    design = fit.design
    included = included_factors(design, include_re or include_residual)
    conditional_on_rows = include_residual or _is_conditional(
        fit, included, interval, theta_uncertainty
    )
    if include_residual:
        _check_residual_prediction(design, newdata)
    if conditional_on_rows:
        fit.model.engine.require("prediction_intervals")
    rows, subjects = _rows(
        design, newdata, included, offset, interval == "prediction", conditional_on_rows
    )
    if not allow_new_levels:
        _refuse_unseen(design, rows, included)
    if conditional_on_rows:
        found = _conditional(
            fit, rows, subjects, included, include_residual, interval, theta_uncertainty
        )
        return (
            _table(*found, rows.index, level) if interval else pd.Series(found[0], index=rows.index)
        )
    fitted = expected(rows, fit.estimate.beta, fit.mode_arrays)
    if interval is None:
        return pd.Series(fitted, index=rows.index)
    se, df = _standard_errors(fit, rows, included, interval, theta_uncertainty)
    return _table(fitted, se, df, rows.index, level)


def _table(fitted, se, df, index, level) -> pd.DataFrame:
    half = t_quantile(0.5 + level / 2.0, df) * se
    return pd.DataFrame(
        dict(fit=fitted, lower=fitted - half, upper=fitted + half, se=se), index=index
    )


def _is_conditional(
    fit: FittedModel, included: tuple[str, ...], interval: str | None, theta_uncertainty: bool
) -> bool:
    """Whether an interval needs the covariance matrix of rows: not where it is that of
    coefficients alone.
    """
    of_coefficients = interval == "confidence" and not included and not theta_uncertainty
    return fit.design.residual is not None and interval is not None and not of_coefficients


def _check_residual_prediction(design: Design, data: Any) -> None:
    if design.residual is None or not design.residual.is_correlated:
        raise ValueError(
            "include_residual=True needs residuals that covary, as residual= says; those here do "
            "not"
        )
    if data is None:
        raise ValueError("include_residual=True is for newdata: the rows of the fit were observed")


def _conditional(
    fit: FittedModel,
    rows: Rows,
    subjects: SubjectRows,
    included: tuple[str, ...],
    with_residual: bool,
    interval: str | None,
    theta_uncertainty: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fitted values, SEs and df (n,) from the rows of the fit that covary with those to predict."""
    known = ~rows.missing
    if with_residual:
        refuse_observed(fit, subjects, rows.index[known])
    by_t = None if interval is None else (estimates_by_t(fit)[0], theta_by_t(fit))
    weights = None if rows.weights is None else rows.weights[known]
    new_response = with_residual or interval == "prediction"
    some = replace(rows.take(known), offset=None if rows.offset is None else rows.offset[known])
    found = conditional(fit, some, subjects, weights, included, with_residual, new_response, by_t)
    fitted, se, df = np.full((3, len(rows.X)), np.nan)
    fitted[known] = found.fitted
    if interval is None:
        return fitted, se, df
    by_x = np.column_stack([found.variance_by_t, 2.0 * found.variance])
    W, variance = fit.curvature.W, found.variance
    df[known] = (
        np.inf
        if fit.df_method == "normal"
        else 2.0 * variance**2 / np.einsum("nx,xy,ny->n", by_x, W, by_x)
    )
    if theta_uncertainty:
        variance = variance + np.einsum(
            "nx,xy,ny->n", found.fitted_by_t, W[:-1, :-1], found.fitted_by_t
        )
    se[known] = np.sqrt(variance)
    return fitted, se, df


def included_factors(design: Design, include_re: bool | Iterable[str]) -> tuple[str, ...]:
    """Names of the factors whose random effects are to be predicted."""
    names = [f.name for f in design.factors]
    if isinstance(include_re, bool | np.bool_):
        return tuple(names) if include_re else ()
    wanted = texts("include_re", include_re, names[0])
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(
            f"include_re has {listed(unknown)}; the grouping factors are {listed(names)}"
        )
    return tuple(name for name in names if name in wanted)


def _rows(
    design: Design,
    data: Any,
    included: tuple[str, ...],
    offset: Any,
    new_response: bool,
    with_subjects: bool,
) -> tuple[Rows, SubjectRows | None]:
    """Rows of the fit or of new data.

    Factors not included are unseen levels of a new response, else left out.

    with_subjects: also whose residual it is and when, in the rows that lack nothing.
    """
    subjects = design.residual.by_row if with_subjects and data is None else None
    excluded = [f.name for f in design.factors if f.name not in included]
    if data is None:
        if offset is not None:
            raise ValueError(
                "offset= belongs to newdata; the rows of the fit have the offset of the fit"
            )
        rows = _of_fit(design)
        found = {
            f.name: (f.Z, f.codes) for f in design.factors if new_response or f.name in included
        }
    else:
        random = [f.name for f in design.factors if new_response or f.name in included]
        _check_groups(design, data, [name for name in random if name in included])
        new = new_data(
            design, data, offset, random=random, unknown=excluded, residual=with_subjects
        )
        _warn_of_unknown(design, new)
        _warn_of_strangers(design, data, new, dict(zip(random, new.codes, strict=True)), included)
        subjects = new.residual
        rows = Rows(new.X, (), (), new.offset, new.index, D=new.D)
        found = dict(zip(random, zip(new.Z, new.codes, strict=True), strict=True))
    n = len(rows.X)
    none = np.full(n, -1, np.int32)
    Z = [
        found[f.name][0] if f.name in found else np.zeros((n, len(f.columns)))
        for f in design.factors
    ]
    codes = [found[f.name][1] if f.name in included else none for f in design.factors]
    return replace(rows, Z=Z, codes=codes), subjects


def _check_groups(design: Design, data: Any, included: Sequence[str]) -> None:
    """Refuse rows that do not say which level they are of."""
    there = set(as_frame(data).columns)
    for factor in design.factors:
        absent = [name for name in factor.variables if name not in there]
        if factor.name in included and absent:
            raise ValueError(
                f"newdata has no column {absent[0]!r}, whose levels have random effects; predict "
                "with include_re=False for population values, without any"
            )


def _warn_of_unknown(design: Design, new: NewDesign) -> None:
    if count := np.count_nonzero((np.abs(new.unknown) > ESTIMABLE).any(axis=1)):
        warnings.warn(
            f"{count} rows of newdata ask for what the data of the fit cannot tell: their "
            f"predictions take the coefficient of {listed(design.dropped_columns)}, which was "
            "left out, as 0",
            RankWarning,
            stacklevel=4,
        )


def _warn_of_strangers(
    design: Design,
    data: Any,
    new: NewDesign,
    codes: Mapping[str, np.ndarray],
    included: tuple[str, ...],
) -> None:
    """Warn where no row has a level that the fit knows, though some are spelled like one: `s308`
    for `S308`.
    """
    frame = as_frame(data)
    for factor in design.factors:
        rows = codes[factor.name][~new.missing] if factor.name in included else ()
        if len(rows) == 0 or (rows >= 0).any():
            continue
        for name, levels in zip(factor.variables, factor.variable_levels, strict=True):
            pair = _look_alikes(get_column(frame, name, f"factor {factor.name!r}"), levels)
            if pair:
                warnings.warn(
                    f"none of the levels of {factor.name!r} in newdata is known to the fit, where "
                    f"{pair[0]!r} is spelled {pair[1]!r}: their random effects are taken as 0",
                    UserWarning,
                    stacklevel=4,
                )


def _look_alikes(column: pd.Series, levels: pd.Index) -> tuple[Any, Any] | None:
    """A value that is not among the levels, and one of them that differs in case, spaces, zeros
    or a prefix.
    """
    known = {_folded(level): level for level in levels}
    numbers = {re.sub(r"\D", "", text): level for text, level in known.items()}
    for value in column.dropna().unique():
        text = _folded(value)
        level = known.get(
            text, numbers.get(text) if text.isdigit() else known.get(re.sub(r"\D", "", text))
        )
        if level is not None and level != value:
            return value, level
    return None


def _folded(level: Any) -> str:
    """A label without case, spaces and signs, and without zeros before numbers."""
    text = re.sub(r"[\W_]", "", str(level)).casefold()
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _refuse_unseen(design: Design, rows: Rows, included: tuple[str, ...]) -> None:
    for factor, codes in zip(design.factors, rows.codes, strict=True):
        unseen = np.count_nonzero((codes < 0) & ~rows.missing)
        if unseen and factor.name in included:
            raise ValueError(
                f"{unseen} rows of newdata have levels of {factor.name!r} that the fit has not "
                "seen; allow_new_levels=True predicts the population value for them"
            )


def _standard_errors(
    fit: FittedModel, rows: Rows, included: tuple[str, ...], interval: str, theta_uncertainty: bool
) -> tuple[np.ndarray, np.ndarray]:
    """SE (n,) of the prediction errors, and degrees of freedom of its square."""
    known = ~rows.missing
    se, df = np.full((2, len(rows.X)), np.nan)
    if interval == "confidence" and not included and not theta_uncertainty:
        by_rule, X = coefficients(fit), rows.X[known]
        se[known], df[known] = np.sqrt(np.einsum("np,pq,nq->n", X, by_rule.vcov, X)), by_rule.df(X)
        return se, df
    fit.model.engine.require("prediction_intervals")
    variance, slopes = _conditional_variances(fit, rows.take(known))
    if interval == "prediction":
        weights = np.ones(known.sum()) if rows.weights is None else rows.weights[known]
        variance = variance + fit.scale / weights
    if fit.df_method == "normal":
        df[known] = np.inf
    else:
        # by (t, log sigma): all of it is proportional to sigma^2
        by_x = np.column_stack([slopes, 2.0 * variance])
        with np.errstate(divide="ignore"):
            df[known] = 2.0 * variance**2 / np.einsum("nx,xy,ny->n", by_x, fit.curvature.W, by_x)
    if theta_uncertainty:
        by_t = expected(rows.take(known), *estimates_by_t(fit))
        variance = variance + np.einsum("nx,xy,ny->n", by_t, fit.curvature.W[:-1, :-1], by_t)
    se[known] = np.sqrt(variance)
    return se, df


def _conditional_variances(fit: FittedModel, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Var(x'(beta^ - beta) + z'(b^ - b)) of the rows (n,), theta and sigma held, and its
    derivatives by t (n, d).
    """
    _refuse_new_covariances(fit.design.factors, rows)
    variance, slopes, is_known = row_variances(fit, rows)
    others = np.flatnonzero(~is_known)
    if len(others):
        fit.model.engine.require("moments")
        size = max(CHUNK, power_of_two(len(fit.design.y)))
        for start in range(0, len(others), size):
            some = others[start : start + size]
            variance[some], slopes[some] = _chunk_variances(fit, rows.take(some))
    return fit.scale * variance, fit.scale * slopes


def _refuse_new_covariances(factors: Sequence[Factor], rows: Rows) -> None:
    for f, code, z in zip(factors, rows.codes, rows.Z, strict=True):
        if f.across is not None and z[code < 0].any():
            raise ValueError(
                f"the levels of {f.name!r} covary, and how a new one does with them is not known: "
                "intervals need levels of the fit, and include_re with this factor"
            )


def _chunk_variances(fit: FittedModel, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Variances over sigma^2 of some rows, appended to those of the fit with weight zero."""
    design, m = fit.design, fit.model.moments
    n = len(design.y)
    codes, levels = _codes_of_all(design.factors, rows)
    K = [f.K for f in design.factors]
    sizes, covariances = (
        [f.sizes for f in design.factors],
        [(f.within, f.across) for f in design.factors],
    )
    plan = layout.plan(codes, sizes, levels, bucket, covariances)
    weights = np.ones(n) if design.weights is None else design.weights
    X = np.concatenate([design.X, rows.X])
    Z = [np.concatenate([f.Z, z]) for f, z in zip(design.factors, rows.Z, strict=True)]
    codes, entries, X, Z = jax.tree.map(lambda a: _padded(a, n), (plan.codes, plan.rows, X, Z))
    weights = pad_rows(weights, bucket(n) - n)
    plan = replace(plan, codes=codes, rows=entries)
    return tuple(
        a[: len(rows.X)]
        for a in run(_variances, fit.estimate.t, m.layout, m.A, plan, X, Z, weights, K)
    )


def _padded(a: np.ndarray, n: int) -> np.ndarray:
    """The first n rows and the others, each with rows of zeros after them, so that similar data
    share a program.
    """
    parts = a[:n], a[n:]
    return np.concatenate([pad_rows(part, bucket(len(part)) - len(part)) for part in parts])


def _codes_of_all(factors: Sequence[Factor], rows: Rows) -> tuple[list[np.ndarray], list[int]]:
    """Codes of the rows of the fit and of the new ones, and numbers of levels, unseen levels
    counted.

    No data row informs an unseen level, so that those of many rows may be one. It is one within
    each level of the factors around it, so that a factor nested in another stays nested. Where
    levels covary there are no others.
    """
    codes, levels = [], []
    for f, code in zip(factors, rows.codes, strict=True):
        around = [
            c for h, c in zip(factors, rows.codes, strict=True) if h is not f and is_nested(f, h)
        ]
        unseen = code < 0
        _, group = np.unique(np.stack([code, *around])[:, unseen], axis=1, return_inverse=True)
        code = code.copy()
        code[unseen] = len(f.levels) + group.ravel()
        if f.across is not None:
            code[unseen] = 0
        codes.append(np.concatenate([f.codes, code]))
        levels.append(max(len(f.levels), int(codes[-1].max()) + 1))
    return codes, levels


@jit
def _theta_by_t(t, m):
    return jacobian(lambda t: to_user(t, m.layout, m.A), t)[1]


@jit
def _estimates_by_t(t, m):
    return jacobian(lambda t: (gaussian.coefficients(reduce(t, m), m), modes(t, m)), t)[1]


def theta_by_t(fit: FittedModel) -> np.ndarray:
    """Derivatives of theta (d, d) by t, on the last axis."""
    return run(_theta_by_t, fit.estimate.t, fit.model.engine.products)


def estimates_by_t(fit: FittedModel) -> tuple[np.ndarray, list[np.ndarray]]:
    """Derivatives of beta (p, d) and of the modes, per factor (m, k, d), by t."""
    return run(_estimates_by_t, fit.estimate.t, fit.model.engine.products)
