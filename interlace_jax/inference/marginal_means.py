"""Estimated marginal means, slopes, and contrasts of them, as R's emmeans. Host NumPy.

Own code and no adapter to `marginaleffects` (0.6), which has one df for a whole table and no Tukey
adjustment, so that neither Satterthwaite's nor Kenward and Roger's df could be passed on; it also
averages over rows, not over cells.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..design.determinacy import ESTIMABLE
from ..models.fitted import FittedModel, check_fit
from ..support.arguments import check_level, check_mapping, listed, texts
from ..support.text import free_name
from ..support.warnings import RankWarning
from ..support.wide import WideFrame
from .coefficients import Coefficients, coefficients
from .mean_contrasts import Named, adjusted, adjustment, contrast_weights, interaction_weights
from .reference_grid import ReferenceGrid, grid_values
from .scales import ResponseScale, scale_of, untransformed
from .terms import variables

RESULTS = (
    "contrast",
    "emmean",
    "trend",
    "estimate",
    "se",
    "df",
    "lower",
    "upper",
    "t",
    "p",
    "F",
    "num_df",
    "den_df",
)
"Columns of tables that are not variables."


def emmeans(
    fit: FittedModel,
    specs: str | Sequence[str],
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    trend: str | None = None,
    weights: str = "equal",
    ddf: str | Coefficients | None = None,
    level: float = 0.95,
    type: str = "link",
    bias_adjust: bool = False,
) -> MarginalMeans:
    """Marginal means of the levels of `specs`: predictions averaged over a balanced grid, not over
    the rows.

    specs: variables of the fixed part whose combinations are wanted. by: more of them; contrasts
    are made within each of their combinations. at: values to use for variables, as `{"x": [0, 1]}`.
    Every other categorical variable has all of its levels; every other number is held at its mean
    over the rows used (where it has two values, R's emmeans takes those). An offset counts with its
    mean.
    trend: a number of the fixed part; in place of the means its slopes at these combinations, in
    units of the response over those of the number.
    weights: of the levels averaged over: "equal"; "proportional", as often as they occur in the
    data; or "cells", as often as they do within each combination shown.
    ddf: "satterthwaite", "kenward-roger" or "normal", by default the fit's, or the `coefficients`
    of `fit.robust()`. level: of the intervals.
    type: of generalised models, and of linear ones of log(y) or sqrt(y), "link" or "response":
    means are taken back from the link, and contrasts become (odds) ratios where the link is a
    logarithm or a logit. They are those of a level whose random effects are 0 (and of counts beside
    zero inflation); bias_adjust: of all levels, to second order in the variance of the random
    effects (`predict(marginal=True)` has the integral).

    Where each level of a factor occurs with one level of another only, as drugs within routes, the
    mean of a route is over its own drugs. What the data cannot tell, as the mean over cells of
    which one is empty, is NaN (R: nonEst), and a `RankWarning` names the cells.

    >>> cake = interlace_jax.load_dataset("cake")
    >>> fit = interlace_jax.fit("angle ~ recipe * temp + (1 | recipe:replicate)", cake)
    >>> means = interlace_jax.emmeans(fit, "recipe", by="temp")
    >>> len(means.frame), len(means.pairs())
    (18, 18)
    """
    check_fit("emmeans", fit)
    check_level(level)
    check_mapping("at", at, '{"x": [0, 1]}')
    specs, by = list(texts("specs", specs, "x")), list(texts("by", by, "x"))
    if twice := [name for name in dict.fromkeys(specs + by) if (specs + by).count(name) > 1]:
        raise ValueError(f"specs and by have {listed(twice)} twice")
    frame = variables(fit.design, fit.model.data)
    values = grid_values(fit.design, frame, at or {})
    if strange := [name for name in specs + by if name not in values]:
        raise ValueError(
            f"{strange[0]!r} is no variable of the fixed part; there are "
            f"{', '.join(map(repr, values))}"
        )
    found = ReferenceGrid(fit.design, frame, values).averages(by + specs, weights, trend)
    if found.empty:
        warnings.warn(_empty_message(found.empty), RankWarning, stacklevel=2)
    shift = 0.0 if fit.design.offset is None or trend else float(fit.design.offset.mean())
    if trend and type == "response":
        raise ValueError("trend= gives slopes on the scale of the link: use type='link'")
    scale = scale_of(fit, type, bias_adjust)
    response = str(fit.design.response)
    return MarginalMeans(
        grid=found.cells,
        L=found.L,
        unknown=found.unknown,
        coefficients=coefficients(fit, ddf),
        specs=tuple(specs),
        by=tuple(by),
        level=level,
        shift=shift,
        response=response if scale is None else untransformed(response),
        trend=trend,
        scale=scale,
    )


def _empty_message(cells: Sequence[str]) -> str:
    shown = "; ".join(cells[:5]) + (f"; ... ({len(cells)} cells in all)" if len(cells) > 5 else "")
    return (
        "means over cells without rows cannot be estimated and are NaN; there are no rows with "
        f"{shown}"
    )


@dataclass(frozen=True, eq=False)
class MarginalMeans:
    """Marginal means or slopes; `frame` is the table, `contrasts` compares them.

    A variable that has the name of a column of results, such as `t` or `df`, stands in tables as
    `t_` or `df_`.
    """

    grid: pd.DataFrame = field(repr=False)
    "(r, v) the combinations."
    L: np.ndarray = field(repr=False)
    "(r, p) every mean is L beta."
    unknown: np.ndarray = field(repr=False)
    "(r, d) what a mean owes to columns dropped from the fit, 0 if it does not depend on them."
    coefficients: Coefficients = field(repr=False)
    specs: tuple[str, ...]
    by: tuple[str, ...]
    level: float
    shift: float
    response: str
    trend: str | None = None
    "The number whose slopes these are; None for means."
    scale: ResponseScale | None = None

    @functools.cached_property
    def columns(self) -> dict[str, str]:
        """By variable the name of its column in the tables."""
        return {name: free_name(name, RESULTS) for name in self.grid}

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """The variables, then `emmean se df lower upper`; in place of `emmean` also `trend`, or
        `response`.
        """
        name = "emmean" if self.trend is None else "trend"
        table = self._table(np.eye(len(self.L)), slice(None), self.shift)
        table = table.rename(columns={"estimate": name})[[name, "se", "df", "lower", "upper"]]
        table = table if self.scale is None else self.scale.means(table)
        return WideFrame(pd.concat([self.grid.rename(columns=self.columns), table], axis=1))

    def _table(self, C: np.ndarray, rows: Any, shift: float = 0.0) -> pd.DataFrame:
        """`t_table` of combinations C of some of the means, NaN where they are not estimable."""
        table = self.coefficients.t_table(C @ self.L[rows], level=self.level, shift=shift)
        table.loc[~self._estimable(C, rows)] = np.nan
        return table

    def _estimable(self, C: np.ndarray, rows: Any) -> np.ndarray:
        return ~(np.abs(C @ self.unknown[rows]) > ESTIMABLE).any(axis=1)

    def pairs(self, adjust: str = "tukey") -> pd.DataFrame:
        """All pairwise differences within each combination of `by`; columns as those of
        `contrasts`.
        """
        return self.contrasts("pairwise", adjust)

    def contrasts(
        self,
        method: str | Mapping[str, Sequence[float]] | Sequence[Any] = "pairwise",
        adjust: str | None = None,
        ref: Any = None,
    ) -> pd.DataFrame:
        """Contrasts of the means: `contrast estimate se df lower upper t p`, after the columns of
        `by`.

        method: "pairwise"; "trt.vs.ctrl" (each against `ref`: a level, a label, or else a position;
            by default the first); "consec" (each against the one before it); "eff" (each against
            the mean of all); "poly" (linear, quadratic, ... over levels at equal distances, in
            whole numbers); or `{label: weights}`. A list of methods, one for each variable of
            `specs`, gives interaction contrasts, the products of theirs.
        adjust: of p-values and intervals for the contrasts of one family, a combination of `by`:
            "tukey" (pairwise only), "holm" (intervals by Bonferroni, as no Holm intervals exist),
            "bonferroni" or "none". By default Tukey for pairwise contrasts, Holm for treatment
            contrasts (R's Dunnett-like "dunnettx" is not offered) and none for others.
        """
        adjust = adjustment(method, adjust)
        tables = []
        for key, rows in self._families().items():
            names, C = self._weights(method, rows, ref)
            table = adjusted(self._table(C, rows), adjust, len(rows), self.level)
            table.insert(0, "contrast", names)
            table = table if self.scale is None else self.scale.contrasts(table)
            tables.append(self._labelled(table, key))
        return pd.concat(tables, ignore_index=True)

    def joint(self, method: Any = "pairwise", ref: Any = None) -> pd.DataFrame:
        """F tests, one for each combination of `by`, that all contrasts of a method are 0: `F
        num_df den_df p`.

        method, ref: as in `contrasts`; "pairwise" tests that the means are equal, ["pairwise",
        "pairwise"] that the two variables of `specs` do not interact. Contrasts that the data
        cannot tell are left out.
        """
        tables = []
        for key, rows in self._families().items():
            _, C = self._weights(method, rows, ref)
            C = C[self._estimable(C, rows)]
            outcome = self.coefficients.f_test(C @ self.L[rows])._asdict()
            del outcome["scale"]
            tables.append(self._labelled(pd.DataFrame([outcome]), key))
        return pd.concat(tables, ignore_index=True)

    def _families(self) -> dict[Any, np.ndarray]:
        """By combination of `by` the means, as positions, that are compared with each other."""
        if not self.by:
            return {(): np.arange(len(self.L))}
        return self.grid.groupby(list(self.by), sort=False, observed=True).indices

    def _weights(self, method: Any, rows: np.ndarray, ref: Any) -> Named:
        levels = list(self.grid.iloc[rows][list(self.specs)].itertuples(index=False, name=None))
        if isinstance(method, str | Mapping):
            return contrast_weights(method, levels, ref)
        factors = [list(dict.fromkeys(values)) for values in zip(*levels, strict=True)]
        if not isinstance(method, Sequence) or len(method) != len(self.specs):
            raise ValueError(
                f"a list of methods has one for each of {listed(self.specs)}, not {method!r}"
            )
        if np.prod([len(values) for values in factors]) != len(rows):
            raise ValueError(f"interaction contrasts need all combinations of {listed(self.specs)}")
        return interaction_weights(method, factors, ref)

    def _labelled(self, table: pd.DataFrame, key: Any) -> pd.DataFrame:
        """The table of one family after columns that say which."""
        key = key if isinstance(key, tuple) else (key,)
        for place, (name, value) in enumerate(zip(self.by, key, strict=True)):
            table.insert(place, self.columns[name], [value] * len(table))
        return table

    def __repr__(self) -> str:
        return repr(self.frame)

    def _repr_html_(self) -> str:
        return self.frame._repr_html_()
