"""Estimated marginal means and contrasts of them, as R's emmeans. Host NumPy.

Own code and no adapter to `marginaleffects` (0.6), which has one df for a whole table and no Tukey adjustment, so that
neither Satterthwaite's nor Kenward and Roger's df could be passed on; it also averages over rows, not over cells.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..design.design import Design
from ..design.determinacy import ESTIMABLE
from ..design.new_data import new_data
from ..models.fitted import FittedModel, check_fit
from ..support.arguments import check_level, check_mapping, listed, numbers, texts
from .coefficients import Coefficients, coefficients, t_quantile
from .scales import ResponseScale, scale_of
from .terms import variables

METHODS = ("pairwise", "trt.vs.ctrl")
ADJUSTMENTS = ("tukey", "holm", "bonferroni", "none")


def emmeans(
    fit: FittedModel,
    specs: str | Sequence[str],
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    ddf: str | None = None,
    level: float = 0.95,
    type: str = "link",
    bias_adjust: bool = False,
) -> MarginalMeans:
    """Marginal means of the levels of `specs`: predictions averaged over a balanced grid, not over the rows.

    specs: variables of the fixed part whose combinations are wanted. by: more of them; contrasts are made within each
    of their combinations. at: values to use for variables, as `{"x": [0, 1]}`. Every other categorical variable has all
    of its levels, with equal weights; every other number is held at its mean over the rows used (where it has two
    values, R's emmeans takes those). An offset counts with its mean.
    What the data cannot tell, as the mean over cells of which one is empty, is NaN (R: nonEst).
    ddf: "satterthwaite", "kenward-roger" or "normal", by default the fit's. level: of the intervals.
    type: of generalised models, "link" or "response": means are taken back from the link, and contrasts become (odds)
    ratios where the link is a logarithm or a logit. They are those of a level whose random effects are 0 (and of
    counts beside zero inflation); bias_adjust: of all levels, to second order in the variance of the random effects
    (`predict(marginal=True)` has the integral).
    """
    check_fit("emmeans", fit)
    check_level(level)
    check_mapping("at", at, '{"x": [0, 1]}')
    specs, by = list(texts("specs", specs, "x")), list(texts("by", by, "x"))
    if twice := [name for name in dict.fromkeys(specs + by) if (specs + by).count(name) > 1]:
        raise ValueError(f"specs and by have {listed(twice)} twice")
    frame = variables(fit.design, fit.model.data)
    coded = _numbers_as_categories(fit.design)
    values = {name: _values(frame[name], name in coded) for name in frame}
    values |= _at(at or {}, values)
    if strange := [name for name in specs + by if name not in values]:
        raise ValueError(f"{strange[0]!r} is no variable of the fixed part; there are {', '.join(map(repr, values))}")
    grid, L, unknown = _averaged(fit.design, frame, values, by + specs)
    shift = 0.0 if fit.design.offset is None else float(fit.design.offset.mean())
    response, scale = fit.design.response, scale_of(fit, type, bias_adjust)
    names = tuple(specs), tuple(by)
    return MarginalMeans(grid, L, unknown, coefficients(fit, ddf), *names, level, shift, response, scale)


def _numbers_as_categories(design: Design) -> set[str]:
    """Variables that the fixed part has as `C(x)`."""
    coded = () if design.specs is None else design.specs["X"].encoder_state
    return {found[1] for expr in coded if (found := re.match(r"C\(`?([^`,()]+)`?[,)]", expr))}


def _values(column: pd.Series, is_category: bool) -> list[Any] | np.ndarray:
    """All levels of a categorical variable, the mean of a number."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.cat.categories)
    is_number = column.dtype.kind in "iuf" and not is_category
    return np.array([column.mean()]) if is_number else sorted(column.unique())


def _at(at: Mapping[str, Any], values: Mapping[str, list[Any] | np.ndarray]) -> dict[str, list[Any] | np.ndarray]:
    """The values asked for: numbers, or levels that the fit has."""
    if unknown := [name for name in at if name not in values]:
        raise ValueError(f"at has {unknown[0]!r}, no variable of the fixed part; there are {listed(values)}")
    return {name: _levels(name, wanted, values[name]) for name, wanted in at.items()}


def _levels(name, wanted, known):
    wanted = list(wanted) if pd.api.types.is_list_like(wanted) else [wanted]
    if isinstance(known, np.ndarray):
        return numbers(f"at[{name!r}]", wanted)
    if unseen := [level for level in wanted if level not in known]:
        raise ValueError(f"at[{name!r}] has {listed(unseen)}; the levels are {listed(known)}")
    return [known[known.index(level)] for level in wanted]


def _averaged(design: Design, frame, values, shown) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The combinations of the variables shown, and averages over the others: of rows of X and their unknown part."""
    grid = pd.DataFrame(list(itertools.product(*values.values())), columns=list(values))
    grid = grid.astype({name: c.dtype for name, c in frame.items() if isinstance(c.dtype, pd.CategoricalDtype)})
    new = new_data(design, grid, random=False, bare=True)
    X = np.hstack([new.X, new.unknown])
    cells = pd.DataFrame(list(itertools.product(*(values[name] for name in shown))), columns=shown)
    place = np.zeros(len(grid), int)
    if shown:
        place = pd.MultiIndex.from_frame(cells).get_indexer(pd.MultiIndex.from_frame(grid[shown].astype(object)))
    L = np.zeros((max(len(cells), 1), X.shape[1]))
    np.add.at(L, place, X)
    L /= np.bincount(place)[:, None]
    return cells, *np.split(L, [len(design.columns)], axis=1)


@dataclass(frozen=True, eq=False)
class MarginalMeans:
    """Marginal means; `frame` is the table, `contrasts` compares them."""

    grid: pd.DataFrame = field(repr=False)
    "(r, v) the combinations."
    L: np.ndarray = field(repr=False)
    "(r, p) every mean is L beta."
    unknown: np.ndarray = field(repr=False)
    "(r, d) for every column dropped from the fit, 0 if the mean does not depend on it."
    coefficients: Coefficients = field(repr=False)
    specs: tuple[str, ...]
    by: tuple[str, ...]
    level: float
    shift: float
    response: str
    scale: ResponseScale | None = None

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """The variables, then `emmean` (`response` on the scale of it) `se df lower upper`."""
        table = self._table(np.eye(len(self.L)), slice(None), self.shift)
        table = table.rename(columns={"estimate": "emmean"})[["emmean", "se", "df", "lower", "upper"]]
        table = table if self.scale is None else self.scale.means(table)
        return pd.concat([self.grid, table], axis=1)

    def _table(self, C: np.ndarray, rows, shift: float = 0.0) -> pd.DataFrame:
        """`t_table` of combinations C of some of the means, NaN where they are not estimable."""
        table = self.coefficients.t_table(C @ self.L[rows], level=self.level, shift=shift)
        table.loc[(np.abs(C @ self.unknown[rows]) > ESTIMABLE).any(axis=1)] = np.nan
        return table

    def pairs(self, adjust: str = "tukey") -> pd.DataFrame:
        """All pairwise differences within each combination of `by`."""
        return self.contrasts("pairwise", adjust)

    def contrasts(
        self, method: str | Mapping[str, Sequence[float]] = "pairwise", adjust: str | None = None, ref: Any = 0
    ) -> pd.DataFrame:
        """Contrasts of the means: `contrast estimate se df lower upper t p`, after the columns of `by`.

        method: "pairwise"; "trt.vs.ctrl" (each against `ref`, a label or position); or `{label: weights}`.
        adjust: of p-values and intervals for the contrasts of one family, a combination of `by`: "tukey" (pairwise
            only), "holm" (intervals by Bonferroni, as no Holm intervals exist), "bonferroni" or "none". By default
            Tukey for pairwise contrasts, Holm for treatment contrasts (R's Dunnett-like "dunnettx" is not offered) and
            none for custom ones.
        """
        labels = [" ".join(map(str, row)) for row in self.grid[list(self.specs)].itertuples(index=False)]
        if self.by:
            families = self.grid.groupby(list(self.by), sort=False, observed=True).indices
        else:
            families = {(): np.arange(len(self.L))}
        adjust = _adjustment(method, adjust)
        tables = []
        for key, rows in families.items():
            names, C = _weights(method, [labels[i] for i in rows], ref)
            table = self._table(C, rows)
            table = _adjusted(table, adjust, len(rows), self.level)
            table.insert(0, "contrast", names)
            table = table if self.scale is None else self.scale.contrasts(table)
            for name, value in reversed(list(zip(self.by, np.atleast_1d(np.array(key, object)), strict=False))):
                table.insert(0, name, [value] * len(table))
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def __repr__(self) -> str:
        return repr(self.frame)

    def _repr_html_(self) -> str:
        return self.frame._repr_html_()


def _adjustment(method, adjust):
    default = {"pairwise": "tukey", "trt.vs.ctrl": "holm"}.get(method, "none") if isinstance(method, str) else "none"
    adjust = adjust or default
    if adjust not in ADJUSTMENTS:
        raise ValueError(f"adjust must be {' or '.join(map(repr, ADJUSTMENTS))}, not {adjust!r}")
    if adjust == "tukey" and method != "pairwise":
        raise ValueError('the Tukey adjustment is for method="pairwise"; use adjust="holm"')
    return adjust


def _weights(method, labels, ref) -> tuple[list[str], np.ndarray]:
    """Names of the contrasts and their weights (c, r) on the means of one family."""
    one = np.eye(len(labels))
    if isinstance(method, Mapping):
        C = numbers("weights of a contrast", list(method.values()))
        if C.ndim != 2 or C.shape[1] != len(labels):
            raise ValueError(f"a contrast needs one weight for each of the means {', '.join(map(repr, labels))}")
        return list(method), C
    if method == "pairwise":
        pairs = list(itertools.combinations(range(len(labels)), 2))
    elif method == "trt.vs.ctrl":
        is_position = isinstance(ref, Integral) and not isinstance(ref, bool)
        control = ref if is_position else labels.index(str(ref)) if str(ref) in labels else -1
        if not 0 <= control < len(labels):
            raise ValueError(f"ref must be one of {', '.join(map(repr, labels))} or its position, not {ref!r}")
        pairs = [(i, control) for i in range(len(labels)) if i != control]
    else:
        raise ValueError(f"method must be {' or '.join(map(repr, METHODS))} or {{label: weights}}, not {method!r}")
    C = np.array([one[i] - one[j] for i, j in pairs]).reshape(-1, len(labels))
    return [f"{labels[i]} - {labels[j]}" for i, j in pairs], C


def _adjusted(table: pd.DataFrame, adjust: str, means: int, level: float) -> pd.DataFrame:
    """p-values and intervals for the whole family of contrasts (of `means` means)."""
    p, c = table["p"].to_numpy(), max(len(table), 1)
    df = table["df"].to_numpy()
    if adjust == "none" or c == 1 and adjust != "tukey":
        return table
    if adjust == "tukey":
        p = scipy.stats.studentized_range.sf(np.sqrt(2.0) * np.abs(table["t"].to_numpy()), means, df)
        quantile = scipy.stats.studentized_range.ppf(level, means, df) / np.sqrt(2.0)
    else:
        quantile = t_quantile(1.0 - (1.0 - level) / (2.0 * c), df)
        p = np.minimum(1.0, c * p) if adjust == "bonferroni" else _holm(p)
    half = quantile * table["se"]
    return table.assign(lower=table["estimate"] - half, upper=table["estimate"] + half, p=p)


def _holm(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return adjusted
