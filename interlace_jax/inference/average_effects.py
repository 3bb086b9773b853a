"""Predictions, comparisons and slopes averaged over rows, as marginaleffects defines them. Host
NumPy.

Every quantity is a weighted sum of expected responses of rows as they are and as they would be.
Of linear models it is linear in the coefficients, with a row of weights that is exact; of
generalised ones its derivatives by all parameters are those of the mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..design.determinacy import ESTIMABLE
from ..design.frames import as_frame, get_column, row_vector, take_rows
from ..design.model_matrices import parts_of
from ..design.new_data import new_data
from ..models.fitted import FittedModel, check_fit
from ..models.linear_predictor import Rows
from ..numerics.families.family import Ordinal
from ..support.arguments import check_level, listed, numbers, one_of, texts
from ..support.text import free_name
from ..support.wide import WideFrame
from .coefficients import Coefficients, coefficients
from .mean_contrasts import level_label
from .reference_grid import STEP, grid_values
from .response_prediction import TYPES, limits_of_means, mean_derivatives
from .tails import t_quantile
from .terms import variables as variables_of

COMPARISONS = ("difference", "ratio")
NUMBERS = ("sd", "iqr", "minmax")
CATEGORIES = ("reference", "pairwise", "sequential")
RESULTS = ("term", "contrast", "estimate", "se", "df", "lower", "upper", "t", "p")
"Columns of tables that are not variables."


def predictions(
    fit: FittedModel,
    variables: Mapping[str, Any] | None = None,
    newdata: Any = None,
    by: bool | str | Sequence[str] = True,
    *,
    type: str = "response",
    marginal: bool = False,
    offset: str | Iterable[float] | None = None,
    ddf: str | Coefficients | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Expected responses averaged over rows: the columns of `variables` and `by`, then `estimate se
    df lower upper`.

    Unlike `emmeans`, which averages over a balanced grid, this averages over the rows there are.

    variables: values that every row is given in turn, `{"dose": [0, 10]}`; the averages are of each
    combination (what would be expected if all rows had it).
    newdata: a frame to average over, by default the rows of the fit. Rows with missing values are
    left out.
    by: True for one average, the names of columns for one in each of their combinations, False for
    a prediction of every row.
    type: of generalised models, "response" or "link". Predictions are those of levels whose
    random effects are 0; marginal=True averages over the random effects as well.
    offset: of newdata, where the fit's was an array.
    ddf: "satterthwaite", "kenward-roger" or "normal", by default the fit's, or the `coefficients`
    of `fit.robust()`. Standard errors of averages of the response of generalised models are by the
    delta method, over all parameters.

    Raises ValueError for names and values that the model does not know.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> interlace_jax.predictions(fit, {"Days": [0, 9]}).round(1)
       Days  estimate    se    df  lower  upper
    0   0.0     251.4   6.8  17.0  237.0  265.8
    1   9.0     345.6  14.6  17.0  314.7  376.5
    """
    rows = _Averages.of(fit, "predictions", newdata, by, offset, type, marginal, ddf, level)
    given = rows.wanted(variables or {})
    tables = []
    for values in itertools.product(*given.values()):
        changed = dict(zip(given, values, strict=True))
        found = rows.average([(1.0, rows.with_values(changed))])
        table = rows.prediction_table(found)
        tables.append(rows.labelled(table, changed))
    return pd.concat(tables, ignore_index=by is not False)


def comparisons(
    fit: FittedModel,
    variables: str | Sequence[str] | Mapping[str, Any] | None = None,
    newdata: Any = None,
    by: bool | str | Sequence[str] = True,
    *,
    comparison: str = "difference",
    type: str = "response",
    marginal: bool = False,
    offset: str | Iterable[float] | None = None,
    ddf: str | Coefficients | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """How much the expected response changes with each variable, averaged over rows: `term contrast
    estimate se df lower upper t p`, with the columns of `by` after `contrast`.

    variables: which, by default all of the fixed part; a mapping says how they change. Of a number
    h: from what it is to h more (1 by default); a pair `(a, b)`: from a to b; "sd": by one SD
    around the mean; "iqr": between the quartiles; "minmax". Of a category "reference" (each level
    with the first), "pairwise", "sequential" or a pair of levels.
    comparison: "difference", or "ratio" of the averages (its test and interval are those of its
    logarithm): with a binomial family a risk ratio.
    newdata, by, type, marginal, offset, ddf: as in `predictions`. level: of the intervals.

    Raises ValueError for names and values that the model does not know.

    Examples
    --------
    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> table = interlace_jax.comparisons(fit, "period", comparison="ratio", marginal=True)
    >>> table.contrast.tolist()
    ['p2 / p1', 'p3 / p1', 'p4 / p1']
    """
    one_of("comparison", comparison, COMPARISONS)
    rows = _Averages.of(fit, "comparisons", newdata, by, offset, type, marginal, ddf, level)
    tables = []
    for name, how in rows.asked(variables).items():
        for label, low, high in rows.changes(name, how, comparison == "ratio"):
            low, high = (rows.with_values({name: values}) for values in (low, high))
            table = rows.ratio(high, low) if comparison == "ratio" else rows.difference(high, low)
            tables.append(rows.labelled(table, dict(term=name, contrast=label)))
    return pd.concat(tables, ignore_index=by is not False)


def slopes(
    fit: FittedModel,
    variables: str | Sequence[str] | None = None,
    newdata: Any = None,
    by: bool | str | Sequence[str] = True,
    *,
    type: str = "response",
    marginal: bool = False,
    offset: str | Iterable[float] | None = None,
    ddf: str | Coefficients | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Derivatives of the expected response by numbers of the fixed part, averaged over rows: `term
    estimate se df lower upper t p`, with the columns of `by` after `term`.

    They are in units of the response over those of the number. variables: which, by default all
    numbers.
    newdata, by, type, marginal, offset, ddf: as in `predictions`. level: of the intervals.

    Derivatives of the columns of X are second-order differences, exact for polynomials up to the
    square; for others off by a part in a million or so.

    Raises ValueError for names that are no numbers of the fixed part.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + I(Days**2) + (1 + Days | Subject)", sleep)
    >>> table = interlace_jax.slopes(fit, "Days", by="Days")
    >>> len(table)
    10
    """
    rows = _Averages.of(fit, "slopes", newdata, by, offset, type, marginal, ddf, level)
    there = [name for name, values in rows.values.items() if isinstance(values, np.ndarray)]
    wanted = there if variables is None else texts("variables", variables, "x")
    if not there or (strange := [name for name in wanted if name not in there]):
        raise ValueError(
            f"slopes are by numbers of the fixed part, {listed(there) or 'of which there are none'}"
            + (f", not {listed(strange)}: categories have comparisons()" if there else "")
        )
    tables = []
    for name in wanted:
        found = rows.average(rows.derivative(name))
        tables.append(rows.labelled(rows.test_table(found), dict(term=name)))
    return pd.concat(tables, ignore_index=by is not False)


Parts = Sequence[tuple[Any, pd.DataFrame]]
"Frames with the weights, a number or (n,), that their expected responses are added up with."


@dataclass(frozen=True)
class _Average:
    """Averages (r,) of responses, and what they depend on."""

    value: np.ndarray
    J: np.ndarray
    "(r, a) derivatives by the parameters."
    unknown: np.ndarray
    "(r, d) what they owe to columns dropped from the fit."


@dataclass(frozen=True, eq=False)
class _Averages:
    """Rows to average over, in r cells."""

    fit: FittedModel
    frame: pd.DataFrame = field(repr=False)
    "(n, v) the columns that predictions and cells need, without rows that lack any."
    offset: np.ndarray | None
    "(n,) beside what the formula itself adds."
    seen: pd.DataFrame = field(repr=False)
    "The variables of the fixed part in the rows of the fit."
    values: Mapping[str, list[Any] | np.ndarray]
    "By variable its levels, or an array for a number."
    cells: pd.DataFrame
    "(r, b) columns of `by`."
    place: np.ndarray
    "(n,) the cell of every row."
    parameters: Coefficients
    is_linear: bool
    "Whether responses are linear in the parameters: they are then the coefficients."
    marginal: bool
    level: float

    @classmethod
    def of(cls, fit, what: str, newdata, by, offset, type, marginal, ddf, level) -> _Averages:
        """Of the arguments of the functions above; what: the name of the one that is called."""
        check_fit(what, fit)
        check_level(level)
        one_of("type", type, TYPES)
        design = fit.design
        is_linear = design.observed is None or type == "link"
        parameters = coefficients(fit, ddf) if is_linear else _all_parameters(fit, ddf)
        if marginal and design.observed is not None and type == "link":
            raise ValueError("marginal=True averages responses: use type='response'")
        seen = variables_of(design, fit.model.data)
        columns = () if isinstance(by, bool) else texts("by", by, "x")
        frame, shift = _columns(fit, newdata, columns, offset)
        found = cls(
            fit,
            frame,
            shift,
            seen,
            grid_values(design, seen, {}),
            pd.DataFrame(),
            np.arange(len(frame)),
            parameters,
            is_linear,
            marginal and not is_linear,
            level,
        )
        return found._in_cells(columns, by is False)

    def _in_cells(self, columns: tuple[str, ...], each: bool) -> _Averages:
        """With the cells that rows without gaps fall into."""
        rows, _ = self._rows(self.frame)
        known = ~rows.missing & ~self.frame[list(columns)].isna().any(axis=1).to_numpy()
        if not known.any():
            raise ValueError("every row of newdata lacks something that the prediction needs")
        frame = self.frame[known]
        offset = None if self.offset is None else self.offset[known]
        if each:
            place, cells = np.arange(len(frame)), pd.DataFrame(index=frame.index)
        elif columns:
            grouped = frame.groupby(list(columns), observed=True, sort=True)
            place = grouped.ngroup().to_numpy()
            first = np.unique(place, return_index=True)[1]
            cells = frame[list(columns)].iloc[first].reset_index(drop=True)
        else:
            place, cells = np.zeros(len(frame), int), pd.DataFrame(index=range(1))
        return _Averages(**vars(self) | dict(frame=frame, offset=offset, place=place, cells=cells))

    # Frames

    def with_values(self, changed: Mapping[str, Any]) -> pd.DataFrame:
        """The rows with other values of some variables: one for all, or an array."""
        columns = {name: self._column(name, value) for name, value in changed.items()}
        return self.frame.assign(**columns)

    def _column(self, name: str, value: Any) -> Any:
        if isinstance(self.values[name], np.ndarray):
            return np.broadcast_to(np.asarray(value, float), len(self.frame))
        own = self.seen[name].dtype
        dtype = own if isinstance(own, pd.CategoricalDtype) else None
        return pd.Series([value] * len(self.frame), index=self.frame.index, dtype=dtype)

    def wanted(self, variables: Mapping[str, Any]) -> dict[str, list[Any] | np.ndarray]:
        """The values asked for of every variable, checked."""
        if not isinstance(variables, Mapping):
            raise TypeError(
                'variables of predictions is a mapping such as {"x": [0, 1]}, not '
                f"{variables!r}; by= has names of columns"
            )
        if twice := [name for name in variables if name in self.cells]:
            raise ValueError(f"{twice[0]!r} stands in variables and in by: give it once")
        found = grid_values(self.fit.design, self.seen, variables)
        return {name: found[name] for name in variables}

    def asked(self, variables: Any) -> dict[str, Any]:
        """By variable how it is to change; None as usual."""
        if not isinstance(variables, Mapping):
            names = self.values if variables is None else texts("variables", variables, "x")
            variables = dict.fromkeys(names)
        if strange := [name for name in variables if name not in self.values]:
            raise ValueError(
                f"{strange[0]!r} is no variable of the fixed part; there are {listed(self.values)}"
            )
        if not variables:
            raise ValueError("the fixed part has no variables to compare")
        return dict(variables)

    def changes(self, name: str, how: Any, is_ratio: bool) -> list[tuple[str, Any, Any]]:
        """Label, values before and values after, of every comparison of one variable."""
        known, sign = self.values[name], "/" if is_ratio else "-"
        if isinstance(known, np.ndarray):
            return [self._change_of_number(name, 1.0 if how is None else how, sign)]
        how = "reference" if how is None else how
        if not isinstance(how, str):
            pairs = [tuple(self.wanted({name: how})[name])]
        else:
            one_of(f"the comparison of {name!r}", how, CATEGORIES)
            pairs = dict(
                reference=[(known[0], level) for level in known[1:]],
                pairwise=list(itertools.combinations(known, 2)),
                sequential=list(itertools.pairwise(known)),
            )[how]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"a comparison of {name!r} needs two levels, not {how!r}")
        return [(f"{level_label((b,))} {sign} {level_label((a,))}", a, b) for a, b in pairs]

    def _change_of_number(self, name: str, how: Any, sign: str) -> tuple[str, Any, Any]:
        x = self.seen[name].to_numpy(float)
        if isinstance(how, str):
            one_of(f"the comparison of {name!r}", how, NUMBERS)
            half = x.std(ddof=1) / 2.0
            low, high = dict(
                sd=(x.mean() - half, x.mean() + half),
                iqr=tuple(np.quantile(x, [0.25, 0.75])),
                minmax=(x.min(), x.max()),
            )[how]
            return how, low, high
        change = numbers(f"the comparison of {name!r}", how)
        if change.shape == (2,):
            return f"{change[1]:g} {sign} {change[0]:g}", change[0], change[1]
        if change.shape != () or not np.isfinite(change):
            raise ValueError(f"{name!r} changes by a number or between two, not {how!r}")
        now = self.frame[name].to_numpy(float)
        return f"{float(change):+g}", now, now + change

    def derivative(self, name: str) -> Parts:
        """The derivative by a number: of the parabola through three points near each row, inside
        the range of the data where the row is.
        """
        seen, now = self.seen[name].to_numpy(float), self.frame[name].to_numpy(float)
        h = float(np.ptp(seen)) * STEP
        inside = (now >= seen.min()) & (now <= seen.max())
        centre = np.where(inside, np.clip(now, seen.min() + h, seen.max() - h), now)
        s = (now - centre) / h
        weights = (s - 0.5) / h, -2.0 * s / h, (s + 0.5) / h
        frames = [self.with_values({name: centre + step}) for step in (-h, 0.0, h)]
        parts = list(zip(weights, frames, strict=True))
        return parts if s.any() else [parts[0], parts[2]]

    # Averages

    def _rows(self, frame: pd.DataFrame) -> tuple[Rows, np.ndarray]:
        """Rows of typical levels, or of levels not seen, and their unknown part."""
        design = self.fit.design
        names = [f.name for f in design.factors]
        new = new_data(design, frame, self.offset, random=self.marginal, unknown=names)
        none = np.full(len(new.X), -1, np.int32)
        Z = (
            new.Z
            if self.marginal
            else [np.zeros((len(none), len(f.columns))) for f in design.factors]
        )
        codes = [none] * len(names)
        return Rows(new.X, Z, codes, new.offset, new.index, D=new.D), new.unknown

    def average(self, parts: Parts) -> _Average:
        """Averages in every cell of a weighted sum of expected responses."""
        total = 0.0
        for weight, frame in parts:
            rows, unknown = self._rows(frame)
            w = np.broadcast_to(weight, len(frame))[:, None] / self._sizes[self.place, None]
            found = np.hstack([self._responses(rows), unknown])
            sums = np.zeros((len(self.cells), found.shape[1]))
            np.add.at(sums, self.place, w * found)
            total = total + sums
        at = 1 + len(self.parameters.beta)
        return _Average(total[:, 0], total[:, 1:at], total[:, at:])

    @property
    def _sizes(self) -> np.ndarray:
        return np.bincount(self.place).astype(float)

    def _responses(self, rows: Rows) -> np.ndarray:
        """(n, 1 + a) Expected responses, and their derivatives by the parameters."""
        if self.is_linear:
            value = rows.X @ self.parameters.beta + (0.0 if rows.offset is None else rows.offset)
            return np.column_stack([value, rows.X])
        value, J = mean_derivatives(self.fit, rows, self.marginal)
        return np.column_stack([value, J.T])

    # Tables

    def test_table(self, found: _Average) -> pd.DataFrame:
        """`estimate se df lower upper t p`, NaN where the data cannot tell."""
        shift = found.value - found.J @ self.parameters.beta
        table = self.parameters.t_table(found.J, level=self.level, shift=shift)
        table.loc[(np.abs(found.unknown) > ESTIMABLE).any(axis=1)] = np.nan
        return table

    def prediction_table(self, found: _Average) -> pd.DataFrame:
        """`estimate se df lower upper`; limits of responses of a family stay where these do."""
        table = self.test_table(found)[["estimate", "se", "df", "lower", "upper"]]
        if self.is_linear:
            return table
        half = t_quantile(0.5 + self.level / 2.0, np.inf) * table["se"]
        lower, upper = limits_of_means(table["estimate"], half, self.fit.family.has_trials)
        return table.assign(lower=lower, upper=upper)

    def difference(self, high: pd.DataFrame, low: pd.DataFrame) -> pd.DataFrame:
        """A table of the differences of two averages."""
        return self.test_table(self.average([(1.0, high), (-1.0, low)]))

    def ratio(self, high: pd.DataFrame, low: pd.DataFrame) -> pd.DataFrame:
        """A table of the ratios of two averages."""
        top, bottom = self.average([(1.0, high)]), self.average([(1.0, low)])
        if (top.value <= 0.0).any() or (bottom.value <= 0.0).any():
            raise ValueError("ratios are of positive averages, and some are not: use differences")
        J = top.J / top.value[:, None] - bottom.J / bottom.value[:, None]
        unknown = np.abs(top.unknown) + np.abs(bottom.unknown)
        table = self.test_table(_Average(np.log(top.value / bottom.value), J, unknown))
        back = {name: np.exp(table[name]) for name in ("estimate", "lower", "upper")}
        return table.assign(**back, se=back["estimate"] * table["se"])

    def labelled(self, table: pd.DataFrame, labels: Mapping[str, Any]) -> pd.DataFrame:
        """The table after columns that say of what it is."""
        before = {
            free_name(name, RESULTS[2:]): [value] * len(table) for name, value in labels.items()
        }
        cells = self.cells.rename(columns={name: free_name(name, RESULTS) for name in self.cells})
        parts = pd.DataFrame(before, index=cells.index), cells, table.set_index(cells.index)
        return WideFrame(pd.concat(parts, axis=1))


def _columns(
    fit: FittedModel, newdata: Any, by: Sequence[str], offset: Any
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The columns of new data, or of the rows of the fit, that predictions and cells need, and the
    offset that these rows have beside that of the formula.
    """
    design, data = fit.design, fit.model.data if newdata is None else newdata
    frame = as_frame(data)
    if newdata is None and offset is not None:
        raise ValueError(
            "offset= belongs to newdata; the rows of the fit have the offset of the fit"
        )
    there = {str(name) for name in frame.columns}
    names = [*by, *(design.variables & there - set(by))]
    rows = np.arange(len(frame)) if newdata is not None else design.rows
    columns = {name: get_column(frame, name, "by= of averages") for name in names}
    columns = take_rows(columns, rows, len(frame))
    index = frame.index[rows] if isinstance(frame, pd.DataFrame) else pd.RangeIndex(len(rows))
    if newdata is None:
        shift = _offset_of_fit(fit)
    else:
        shift = row_vector(frame, "offset", design.offset_column if offset is None else offset)
    return pd.DataFrame({n: c.array for n, c in columns.items()}, index=index), shift


def _offset_of_fit(fit: FittedModel) -> np.ndarray | None:
    """The offset (n,) of the rows of the fit, without what the formula itself adds."""
    design = fit.design
    if "offset" not in parts_of(design.formula):
        return design.offset
    given = row_vector(as_frame(fit.model.data), "offset", fit.model.arguments["offset"])
    return None if given is None else given[design.rows]


def _all_parameters(fit: FittedModel, ddf: Any) -> Coefficients:
    """All parameters of a generalised model, for the delta method."""
    if isinstance(fit.family, Ordinal):
        raise ValueError(
            "an ordinal response has no mean: averages are on the scale of the link, type='link'"
        )
    if ddf not in (None, "normal"):
        raise ValueError("averages of responses of a generalised model have z tests: no ddf=")
    e = fit.estimate
    values = np.concatenate([e.theta, e.beta, e.gamma])
    return Coefficients(tuple(map(str, range(len(values)))), values, fit.joint_covariance)
