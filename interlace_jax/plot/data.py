"""What the plots show, as tables: random effects, lines over data, quantiles, profiles.

Host, without plotnine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special
from scipy.interpolate import CubicSpline

from ..design.design import Design
from ..design.files import refuse_scanned
from ..design.frames import as_frame, get_column, take_rows
from ..design.grouping import Factor
from ..design.model_matrices import parts_of, used_columns
from ..design.new_data import new_data
from ..diagnostics.findings import standardised_effects
from ..diagnostics.generalized_findings import known_effects
from ..inference.marginal_means import emmeans
from ..inference.terms import variables
from ..numerics.families.family import Ordinal
from ..result import Fit
from ..support.arguments import listed, one_of
from .generalized import (
    independent_residuals,
    is_generalized,
    link_scale,
    means,
    observed,
    own_estimates,
    reach,
)

POINTS = 40  # of a line
ENDS = 500  # quantiles shown at either end of many
SPAN = 0.6  # share of the rows that a point of a smooth line is made of


def place(fit: Fit, factor: str | None) -> int:
    """Position of a grouping factor, by default the first."""
    names = list(fit.ngroups)
    if factor is not None:
        one_of("factor", factor, names)
    return 0 if factor is None else names.index(factor)


def label(fit: Fit, f: Factor, column: str) -> str:
    """A random-effects column with its unit: that of the response, or of its link, or of these per
    unit of a numeric predictor.
    """
    return f"{column} [{unit(fit, f, column)}]"


def unit(fit: Fit, f: Factor, column: str) -> str:
    """What the effects of a column are measured in."""
    plain = np.isin(f.Z[:, f.columns.index(column)], (0.0, 1.0)).all()
    return link_scale(fit) if plain else f"{link_scale(fit)} / {column}"


def names_of(column: pd.Series) -> pd.Series:
    """Numbers as floats, anything else as categories in their order, so that nothing is sorted
    anew.
    """
    if column.dtype.kind in "iuf":
        return column.astype(float)
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    order = map(str, column.cat.categories) if categorical else dict.fromkeys(map(str, column))
    return pd.Series(
        pd.Categorical(column.map(str), list(order)), index=column.index, name=column.name
    )


def in_order(column: pd.Series) -> pd.Series:
    """Values as categories: numbers by size and without needless decimals, anything else in the
    order it has.
    """
    if column.dtype.kind not in "iuf":
        return names_of(column)
    values = np.sort(column.unique())
    return pd.Series(
        pd.Categorical(column.map("{:g}".format), [f"{value:g}" for value in values]), column.index
    )


# Random effects -----------------------------------------------------------------------------------


def effects(fit: Fit, g: int, level: float) -> pd.DataFrame:
    """Random effects of a factor, column after column: `panel level key estimate lower upper`.

    The categories of `key` sort by panel and estimate, so that every panel has its own order of
    levels.
    """
    f, b = fit.model.design.factors[g], fit.mode_arrays[g]
    bounds = fit.random_effects_ci(level)[f.name].to_numpy().reshape(*b.shape, 2)
    panels = [label(fit, f, column) for column in f.columns]
    table = pd.DataFrame(
        {
            "panel": pd.Categorical(np.repeat(panels, len(b)), panels),
            "level": np.tile(f.levels.astype(str), len(panels)),
            "estimate": b.T.ravel(),
            "lower": bounds[..., 0].T.ravel(),
            "upper": bounds[..., 1].T.ravel(),
        }
    )
    keys = table["panel"].astype(str) + "\t" + table["level"]
    order = np.lexsort((table["estimate"], table["panel"].cat.codes))
    return table.assign(key=pd.Categorical(keys, keys.iloc[order]))


def own_and_shrunk(fit: Fit, g: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of every level (m, k) by least squares (maximum likelihood, where there is a
    family) in the level alone and in the mixed model, and on average.

    They include the fixed effect of the same name; all other effects are as in the fit. NaN where
    the rows of a level do not determine its own.
    """
    design, f = fit.model.design, fit.model.design.factors[g]
    names = ["Intercept" if name == "(Intercept)" else name for name in f.columns]
    centre = np.array([fit.fe_params.get(name, 0.0) for name in names])
    if is_generalized(fit):
        return centre + own_estimates(fit, g), centre + fit.mode_arrays[g], centre
    w = np.ones(len(design.y)) if design.weights is None else np.sqrt(design.weights)
    left = fit.resid.to_numpy() + np.einsum("nk,nk->n", f.Z, fit.mode_arrays[g][f.codes])
    own = np.full((len(f.levels), len(f.columns)), np.nan)
    starts = np.cumsum(np.bincount(f.codes))[:-1]
    by_level = np.split(np.argsort(f.codes, kind="stable"), starts)
    Z, left = f.Z * w[:, None], left * w
    for i, rows in enumerate(by_level):
        b, _, rank, _ = np.linalg.lstsq(Z[rows], left[rows], rcond=1e-10)
        own[i] = b if rank == len(b) else np.nan
    return centre + own, centre + fit.mode_arrays[g], centre


# Lines over the data ------------------------------------------------------------------------------


def used_data(fit: Fit) -> pd.DataFrame:
    """The columns that predictions need, in the rows used."""
    refuse_scanned(fit.model.data, "these lines are drawn over them")
    design, frame = fit.model.design, as_frame(fit.model.data)
    parts = {key: part for key, part in parts_of(design.formula).items() if key != "y"}
    columns = used_columns(frame, parts, design.formula.terms, None)
    if design.offset_column is not None:
        columns[design.offset_column] = get_column(frame, design.offset_column, "offset")
    taken = take_rows(columns, design.rows, len(frame))
    return pd.DataFrame(
        {name: column.array for name, column in taken.items()}, index=pd.RangeIndex(len(design.y))
    )


def predictor(fit: Fit, g: int, frame: pd.DataFrame, x: str | None) -> str:
    """The variable asked for; by default the first in a random slope of the factor, or else in
    the fixed part.
    """
    design = fit.model.design
    grouping = {name for f in design.factors for name in f.variables}
    names = [name for name in frame if name not in grouping and name != design.offset_column]
    if not names:
        raise ValueError(
            "the model has no predictor to draw lines over; caterpillar() shows its random effects"
        )
    if x is not None:
        one_of("x", x, names)
        return x
    slopes = " ".join(column for column in design.factors[g].columns if column != "(Intercept)")
    with_slope = [
        name for name in names if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", slopes)
    ]
    return (with_slope or names)[0]


def shown_levels(fit: Fit, g: int, groups: Sequence[Any] | None, most: int) -> np.ndarray:
    """Positions of the levels to draw: those asked for, all, or `most` spread evenly over their
    first random effect.
    """
    f = fit.model.design.factors[g]
    if groups is not None:
        found = f.levels.get_indexer(list(groups))
        if (found < 0).any():
            raise ValueError(
                f"{f.name!r} has no level {listed(np.array(list(groups), object)[found < 0])}"
            )
        return found
    if len(f.levels) <= most:
        return np.arange(len(f.levels))
    by_effect = np.argsort(fit.mode_arrays[g][:, 0], kind="stable")
    return np.sort(by_effect[np.linspace(0, len(by_effect) - 1, most).round().astype(int)])


def lines(
    fit: Fit, g: int, frame: pd.DataFrame, x: str, shown: np.ndarray
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The rows of the levels shown, `group x y`; over the range of x their lines `group x fitted
    average`; and at which values of other predictors the lines are, in words.
    """
    design, f = fit.model.design, fit.model.design.factors[g]
    names = pd.Categorical(f.levels[shown].astype(str), f.levels[shown].astype(str))
    position = np.full(len(f.levels), -1)
    position[shown] = np.arange(len(shown))
    at = position[f.codes]
    # sorted, as the model has them
    levels = frame[x] if frame[x].dtype.kind in "iuf" else frame[x].astype("category")
    rows, values = at >= 0, names_of(levels)
    data = pd.DataFrame({"group": names[at[rows]], "x": values[rows], "y": observed(fit)[rows]})

    numeric = values.dtype == float
    if numeric:
        ends = reach(fit, values.to_numpy(), at, len(shown))
        grids = np.linspace(*ends, POINTS, axis=1)
    else:
        grids = np.tile(frame[x].drop_duplicates().to_numpy(), (len(shown), 1))
    held, said = _held(design, frame.drop(columns=x), f, at)
    each = np.repeat(np.arange(len(shown)), grids.shape[1])
    new = held.iloc[each].reset_index(drop=True).assign(**{x: grids.ravel()})
    shift = None
    if design.offset is not None:
        shift = pd.Series(design.offset[rows]).groupby(at[rows]).mean().to_numpy()[each]
    found = new_data(design, new, bare=True)
    average = found.X @ fit.estimate.beta + (0.0 if shift is None else shift)
    fitted = average + np.einsum("nk,nk->n", found.Z[g], fit.mode_arrays[g][found.codes[g]])
    fitted, average = (means(fit, eta) for eta in (fitted, average))
    over = new[x] if numeric else pd.Categorical(new[x].map(str), values.cat.categories)
    curves = pd.DataFrame({"group": names[each], "x": over, "fitted": fitted, "average": average})
    return data, curves, said


def _held(
    design: Design, frame: pd.DataFrame, f: Factor, at: np.ndarray
) -> tuple[pd.DataFrame, list[str]]:
    """Values of the other columns for each level shown, and those that need to be told.

    What varies within levels is held at the middle (or most frequent) value of all rows, so that
    lines of different levels can be compared; what does not is the level's own.
    """
    rows = at >= 0
    held = frame[rows].groupby(at[rows]).agg(_middle)
    said = []
    own = {design.offset_column, *(name for factor in design.factors for name in factor.variables)}
    for name in frame.columns.difference(list(own), sort=False):
        if (frame.groupby(f.codes)[name].nunique() > 1).any():
            value = _middle(frame[name])
            held[name] = [value] * len(held)
            said.append(f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}")
    return held, said


def _middle(values: pd.Series) -> Any:
    """A value that occurs: the middle one of numbers, else the most frequent."""
    if values.dtype.kind in "iuf":
        return np.sort(values.to_numpy())[len(values) // 2]
    return values.mode().iloc[0]


# Residuals and quantiles --------------------------------------------------------------------------


def smooth(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """Local linear regression `x y` with tricube weights over the nearest SPAN of the points
    (Cleveland 1979).
    """
    grid, reach = np.linspace(x.min(), x.max(), POINTS), max(int(SPAN * len(x)), 2) - 1
    found = []
    for at in grid:
        far = np.abs(x - at)
        w = (
            np.clip(
                1.0 - (far / (1.0001 * np.partition(far, reach)[reach] + 1e-300)) ** 3, 0.0, None
            )
            ** 3
        )
        centre = np.average(x, weights=w)
        spread = np.average((x - centre) ** 2, weights=w)
        slope = np.average((x - centre) * y, weights=w) / spread if spread > 0 else 0.0
        found.append(np.average(y, weights=w) + slope * (at - centre))
    return pd.DataFrame({"x": grid, "y": found})


def quantiles(fit: Fit, level: float) -> pd.DataFrame:
    """`panel x y lower upper` of the residuals (in units of their own SD) and of the
    standardised random effects.
    """
    r, name = independent_residuals(fit)
    own = {f"{name}s": r if is_generalized(fit) and name != "residual" else r / r.std()}
    samples = own | (known_effects if is_generalized(fit) else standardised_effects)(fit)
    table = pd.concat(
        [_quantiles(np.sort(z), level).assign(panel=name) for name, z in samples.items()]
    )
    return table.assign(panel=pd.Categorical(table["panel"], list(samples)))


def _quantiles(z: np.ndarray, level: float) -> pd.DataFrame:
    """Sorted values, normal quantiles and bands: order statistics of uniform values are beta
    distributed.

    Of very many values those at the ends, and some of the others.
    """
    n = len(z)
    i = np.arange(1, n + 1)
    if n > 4 * ENDS:
        i = np.unique(
            np.concatenate([i[:ENDS], np.linspace(1, n, 2 * ENDS).astype(int), i[-ENDS:]])
        )
    lower, upper = (
        special.ndtri(special.betaincinv(i, n + 1 - i, q))
        for q in (0.5 - level / 2, 0.5 + level / 2)
    )
    return pd.DataFrame(
        {"x": special.ndtri((i - 0.5) / n), "y": z[i - 1], "lower": lower, "upper": upper}
    )


# Coefficients and what they predict ---------------------------------------------------------------


def forest(
    fits: Sequence[Fit],
    names: Sequence[str] | None,
    intercept: bool,
    level: float,
    labels: dict[str, str],
    exponentiate: bool = False,
) -> pd.DataFrame:
    """Rows of `tidy` for the coefficients of all fits, with `model`; the first are last as
    categories, hence on top.
    """
    heads = [f"({i})" for i in range(1, len(fits) + 1)] if names is None else list(map(str, names))
    if len(set(heads)) != len(fits):
        raise ValueError(
            f"names must be {len(fits)} different names, one for each fit, not {names!r}"
        )
    tables = [
        fit.tidy("fixed", level, exponentiate=exponentiate).assign(model=name)
        for fit, name in zip(fits, heads, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    if not intercept:
        table = table[table["term"] != "Intercept"]
    if table.empty:
        raise ValueError(
            "there is no coefficient but the intercept: ask for it with intercept=True"
        )
    terms = list(dict.fromkeys(table["term"]))[::-1]
    words = [labels.get(term, term) for term in terms]
    shown = pd.Categorical(
        table["term"].map(dict(zip(terms, words, strict=True))), list(dict.fromkeys(words))
    )
    return table.assign(term=shown, model=pd.Categorical(table["model"], heads[::-1]))


@dataclass(frozen=True)
class Over:
    """Predicted means over a variable."""

    table: pd.DataFrame
    "The variable, those of `by` as categories, `emmean lower upper`."
    by: tuple[str, ...]
    data: pd.DataFrame
    "(n, v) the variables of the fixed part in the rows used."
    condition: str
    "At which values of other variables the means are, in words."

    @property
    def colours(self) -> int:
        """Levels of the first variable of `by`."""
        return self.table[self.by[0]].nunique() if self.by else 0


def over(fit: Fit, x: str, by: Sequence[str], at: Mapping[str, Any] | None, level: float) -> Over:
    """Marginal means over a grid of x, for each combination of `by`."""
    if len(by) > 2 or x in by:
        raise ValueError(f"by takes one or two variables other than {x!r}, not {list(by)!r}")
    frame = variables(fit.design, fit.model.data)
    for name in (x, *by):
        one_of("x" if name == x else "by", name, list(frame))
    where = dict(at or {})
    numeric = [name for name in frame if frame[name].dtype.kind in "iuf"]
    numbers_of = {name: frame[name].to_numpy(float) for name in numeric}
    if x in numbers_of and x not in where:
        where[x] = np.linspace(numbers_of[x].min(), numbers_of[x].max(), POINTS)
    for name in by:
        if name in numbers_of and name not in where:
            where[name] = _few(numbers_of[name])
    found = marginal_means(fit, x, by, where, level)
    table = found.assign(**{name: in_order(found[name]) for name in by})
    table[x] = names_of(table[x])
    said = ["an average group"]
    for name in frame:
        if name not in (x, *by):
            said.append(f"{name} = {where[name]}" if name in where else _said(name, numbers_of))
    return Over(table, tuple(by), frame, "; ".join(said))


def marginal_means(
    fit: Fit, x: str, by: Sequence[str], where: Mapping[str, Any], level: float
) -> pd.DataFrame:
    """Table of marginal means, on the scale of the response where that has one."""
    has_mean = is_generalized(fit) and not isinstance(fit.family, Ordinal)
    type = "response" if has_mean else "link"
    found = emmeans(fit, x, list(by), where, level=level, type=type)
    return found.frame.rename(columns={"response": "emmean"})


def _few(values: np.ndarray) -> np.ndarray:
    """All of a few different values, of many their quartiles."""
    different = np.unique(values)
    if len(different) <= 3:
        return different
    return np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="nearest"))


def _said(name: str, numbers_of: Mapping[str, np.ndarray]) -> str:
    return (
        f"{name} at its mean, {numbers_of[name].mean():.4g}"
        if name in numbers_of
        else f"averaged over {name}"
    )


# Parameters ---------------------------------------------------------------------------------------


class Curve:
    """The profile of one parameter as a spline of zeta over the value; tables have a column
    `parameter`.
    """

    def __init__(self, name: pd.Categorical, value: np.ndarray, zeta: np.ndarray):
        apart = np.append(True, np.diff(value) > 1e-9 * np.ptp(value))
        self.name, self.value, self.zeta = name, value[apart], zeta[apart]
        self.spline = CubicSpline(self.value, self.zeta, bc_type="natural")
        self.grid = np.linspace(self.value[0], self.value[-1], 200)

    def _table(self, **columns: np.ndarray) -> pd.DataFrame:
        size = len(next(iter(columns.values())))
        return pd.DataFrame(columns).assign(parameter=self.name.repeat(size))

    @property
    def line(self) -> pd.DataFrame:
        """`value zeta`."""
        return self._table(value=self.grid, zeta=self.spline(self.grid))

    @property
    def density(self) -> pd.DataFrame:
        """`value density`: normal density of zeta times its slope."""
        zeta, slope = self.spline(self.grid), np.clip(self.spline(self.grid, 1), 0.0, None)
        return self._table(
            value=self.grid, density=slope * np.exp(-0.5 * zeta**2) / np.sqrt(2.0 * np.pi)
        )

    @property
    def wald(self) -> pd.DataFrame:
        """Ends `value zeta` of the tangent at the estimate, as far as the profile goes."""
        estimate = self.value[np.abs(self.zeta).argmin()]
        slope = float(self.spline(estimate, 1))
        zeta = np.clip(slope * (self.value[[0, -1]] - estimate), *self.zeta[[0, -1]])
        return self._table(value=estimate + zeta / slope, zeta=zeta)

    def at(self, zeta: Sequence[float]) -> pd.DataFrame:
        """Points `value zeta` of the profile; none where it ends before."""
        inside = np.array([z for z in zeta if self.zeta[0] <= z <= self.zeta[-1]])
        found = [self.spline.solve(z, extrapolate=False)[0] for z in inside]
        return self._table(value=np.array(found), zeta=inside)


def curves(profile: pd.DataFrame) -> list[Curve]:
    """One for each parameter of `Fit.profile` that has a profile."""
    names = pd.Categorical(profile["parameter"].unique(), profile["parameter"].unique())
    rows = {
        name: table.sort_values("value") for name, table in profile.groupby("parameter", sort=False)
    }
    found = [
        Curve(names[[i]], *(rows[n][c].to_numpy() for c in ("value", "zeta")))
        for i, n in enumerate(names)
    ]
    return [curve for curve in found if len(curve.value) > 1]


def components(fit: Fit) -> pd.DataFrame:
    """Rows of `varcorr` that have a value, with `panel` (quantity and unit) and `name`;
    correlations come last.
    """
    factors = {f.name: f for f in fit.model.design.factors}
    table = fit.varcorr
    panels, names = [], []
    for row in table.itertuples():
        residual, pair = row.grp not in factors, isinstance(row.var2, str)
        own = link_scale(fit) if residual else unit(fit, factors[row.grp], row.var1)
        panels.append("correlation" if pair else f"standard deviation [{own}]")
        names.append(
            "residual" if residual else f"{row.var1}{f', {row.var2}' if pair else ''} | {row.grp}"
        )
    order = sorted(dict.fromkeys(panels), key="correlation".__eq__)
    table = table.assign(
        panel=pd.Categorical(panels, order), name=pd.Categorical(names, names[::-1])
    )
    return table.dropna(subset="sdcor")
