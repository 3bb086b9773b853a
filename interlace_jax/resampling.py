"""New data from a fitted model, or from the groups of its data, and what refitting them says about the estimates."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from .design import Design, Factor, independent_columns
from .errors import check_level, one_of, whole_number
from .grouping import is_nested, new_effects
from .many import Many, run_all
from .sources import Designs, Responses

if TYPE_CHECKING:
    from .result import Fit


def simulate(
    design: Design,
    beta: np.ndarray,
    Lambdas: list[np.ndarray],
    roots: list[np.ndarray | None],
    sigma: float,
    nsim: int,
    seed: Any,
) -> np.ndarray:
    """Responses (n, nsim) for the rows used, with new random effects and new residuals."""
    whole_number("nsim", nsim, 0)
    rng = np.random.default_rng(seed)
    mean = design.X @ beta + (0.0 if design.offset is None else design.offset)
    Y = np.repeat(mean[:, None], nsim, axis=1)
    for f, Lam, L in zip(design.factors, Lambdas, roots, strict=True):
        b = sigma * new_effects(f, Lam, L, (nsim,), rng)
        Y += np.einsum("nk,nrk->nr", f.Z, b[f.codes])
    spread = sigma if design.weights is None else (sigma / np.sqrt(design.weights))[:, None]
    return Y + spread * rng.standard_normal(Y.shape)


def regrouped(design: Design, factor: Factor, picks: Sequence[int]) -> Design:
    """The design with the rows of the levels picked, which may repeat: every pick is a level of its own.

    Levels of factors nested in this one are new with each pick; other factors keep theirs.
    """
    by_level = np.split(np.argsort(factor.codes, kind="stable"), np.cumsum(np.bincount(factor.codes))[:-1])
    rows = np.concatenate([by_level[i] for i in picks])
    pick = np.repeat(np.arange(len(picks)), [len(by_level[i]) for i in picks])

    def renewed(f: Factor) -> Factor:
        old = f.codes[rows].astype(np.int64)
        found, codes = np.unique(pick * len(f.levels) + old if is_nested(f, factor) else old, return_inverse=True)
        return replace(f, Z=f.Z[rows], codes=codes.astype(np.int32), levels=pd.RangeIndex(len(found)))

    arrays = {name: getattr(design, name) for name in ("y", "X", "weights", "offset")}
    by_row = {name: None if a is None else a[rows] for name, a in arrays.items()}
    factors = tuple(map(renewed, design.factors))
    places = design.rows[rows] if len(design.rows) else design.rows  # those of a file are not kept
    return replace(design, **by_row, factors=factors, index=design.index[rows], rows=places)


def independent_groups(design: Design, what: str) -> Factor:
    """The factor whose levels share no random effect."""
    if tied := [f.name for f in design.factors if f.across is not None]:
        raise ValueError(f"{what} needs groups that are independent of each other, but the levels of {tied[0]} covary")
    outer = min(design.factors, key=lambda f: len(f.levels))
    if crossed := [f.name for f in design.factors if not is_nested(f, outer)]:
        raise ValueError(
            f"{what} needs groups that are independent of each other, but {outer.name} and {crossed[0]} are crossed: "
            "rows of different groups share random effects"
        )
    return outer


class Regrouped(Designs):
    """Models of data made from the groups of a fit, one for each row of picks."""

    def __init__(self, fit: Fit, factor: Factor, picks: Sequence[np.ndarray]):
        self.fit, self.factor, self.picks = fit, factor, picks
        design = fit.model.design
        super().__init__(design.formula, pd.RangeIndex(len(picks)), fit.model.arguments)

    def make(self, place: int) -> Design:
        """The design of one set of groups."""
        design = regrouped(self.fit.model.design, self.factor, self.picks[place])
        if len(independent_columns(design.X)) < design.X.shape[1]:
            raise ValueError("the fixed effects are rank deficient in the groups drawn")
        return design


def _refitted(fit: Fit, work: Designs, progress: bool | None) -> Many:
    table = run_all(work, fit.method, progress=progress)

    def single(place: int) -> Fit:
        return type(fit.model)(work.designs[place], fit.model.data, fit.model.arguments).fit(fit.method)

    return Many(work, fit.method, "satterthwaite", table, single)


class Bootstrap:
    """A model refitted to data like those that it was fitted to; made by `Fit.bootstrap`.

    Every replicate counts: those that are singular, or did not converge, are in the estimates and in `outcomes`.
    """

    def __init__(self, fit: Fit, many: Many):
        self.fit, self.many = fit, many

    @classmethod
    def parametric(cls, fit: Fit, n: int, seed: Any, progress: bool | None) -> Bootstrap:
        """Responses simulated from the fit, with new random effects and residuals."""
        model, Y = fit.model, fit.simulate(n, seed).to_numpy()
        rows = np.arange(len(Y))
        work = Responses(model.design, model.data, Y, pd.RangeIndex(n), rows, model.arguments, fit.estimate.t)
        table = run_all(work, fit.method, progress=progress)
        return cls(fit, Many(work, fit.method, "satterthwaite", table, lambda place: fit.refit(Y[:, place])))

    @classmethod
    def cases(cls, fit: Fit, n: int, seed: Any, progress: bool | None) -> Bootstrap:
        """Whole groups drawn with replacement, each draw a group of its own."""
        factor = independent_groups(fit.model.design, "kind='cases'")
        m = len(factor.levels)
        picks = np.random.default_rng(seed).integers(0, m, (n, m))
        return cls(fit, _refitted(fit, Regrouped(fit, factor, picks), progress))

    @property
    def estimates(self) -> pd.DataFrame:
        """Replicates x parameters: coefficients, `sd_x|g`, `cor_x.(Intercept)|g`, `sigma`."""
        return self.many.parameters

    @property
    def bse(self) -> pd.Series:
        """Standard deviations of the replicates."""
        return self.estimates.std()

    @property
    def outcomes(self) -> pd.Series:
        """How many replicates ended with which status, and how many are `singular`."""
        return pd.concat([self.many.status.value_counts(), pd.Series({"singular": int(self.many.is_singular.sum())})])

    def confint(self, level: float = 0.95, kind: str = "percentile") -> pd.DataFrame:
        """Intervals `lower upper` of every parameter.

        kind: "percentile"; "basic" (reflected about the estimate); or "bca" (corrected for bias and skewness, Efron
        1987), whose acceleration comes from leaving out one group at a time, so that it needs factors that are not
        crossed.
        """
        check_level(level)
        one_of("kind", kind, ("percentile", "basic", "bca"))
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if kind == "bca":
            return self._bca(special.ndtri(tails))
        low, high = (self.estimates.quantile(q) for q in tails)
        if kind == "basic":
            low, high = 2 * self.fit.parameters - high, 2 * self.fit.parameters - low
        return pd.DataFrame({"lower": low, "upper": high})

    def _bca(self, z: np.ndarray) -> pd.DataFrame:
        """Quantiles at Phi(z0 + (z0 + z) / (1 - a (z0 + z))) (Efron 1987, JASA 82, eq. 1.10)."""
        draws, estimate, limits = self.estimates, self.fit.parameters, {}
        below = ((draws < estimate).sum() + 0.5 * (draws == estimate).sum()) / draws.notna().sum()
        for name, z0 in zip(draws, special.ndtri(below), strict=True):
            shifted = z0 + z
            q = special.ndtr(z0 + shifted / (1 - self._acceleration[name] * shifted))
            limits[name] = draws[name].quantile(q).to_numpy() if np.isfinite(q).all() else np.full(2, np.nan)
        return pd.DataFrame.from_dict(limits, orient="index", columns=["lower", "upper"])

    @functools.cached_property
    def _acceleration(self) -> pd.Series:
        """A sixth of the skewness of the jackknife's influence values, over sqrt(groups)."""
        factor = independent_groups(self.fit.model.design, "kind='bca'")
        m = len(factor.levels)
        without = [np.delete(np.arange(m), i) for i in range(m)]
        left = _refitted(self.fit, Regrouped(self.fit, factor, without), None).parameters
        influence = left.mean() - left
        return (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        return f"<{len(self.many)} bootstrap replicates of {self.fit.model.design.formula}: {counts}>"


def bootstrap(fit: Fit, n: int, seed: Any, kind: str, progress: bool | None) -> Bootstrap:
    """See `Fit.bootstrap`."""
    fit.model.core.require_matrix("the bootstrap")
    one_of("kind", kind, ("parametric", "cases"))
    whole_number("n", n, 1)
    return (Bootstrap.parametric if kind == "parametric" else Bootstrap.cases)(fit, n, seed, progress)
