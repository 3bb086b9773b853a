"""The bootstrap: a model refitted to simulated responses or to groups drawn anew, as one batch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd

from ..many.designs import Designs
from ..many.many import Many
from ..many.responses import Responses
from ..many.run import run_all
from ..models.fitted import FittedModel
from ..models.simulation import simulate
from ..support.arguments import check_level, one_of, whole_number
from ..support.later import special
from .regrouping import Regrouped, independent_groups


def _refitted(fit: FittedModel, work: Designs, progress: bool | None) -> Many:
    table = run_all(work, fit.method, progress=progress)

    return Many(work, fit.method, "satterthwaite", table, lambda place: fit.refitted(work.designs[place]))


class Bootstrap:
    """A model refitted to data like those that it was fitted to; made by `Fit.bootstrap`.

    Every replicate counts: those that are singular, or did not converge, are in the estimates and in `outcomes`.
    """

    def __init__(self, fit: FittedModel, many: Many):
        self.fit, self.many = fit, many

    @classmethod
    def parametric(cls, fit: FittedModel, n: int, seed: Any, progress: bool | None) -> Bootstrap:
        """Responses simulated from the fit, with new random effects and residuals."""
        model, Y = fit.model, simulate(fit, n, seed).to_numpy()
        rows = np.arange(len(Y))
        work = Responses(model.design, model.data, Y, pd.RangeIndex(n), rows, model.arguments, fit.estimate.t)
        table = run_all(work, fit.method, progress=progress)
        return cls(fit, Many(work, fit.method, "satterthwaite", table, lambda place: fit.refit(Y[:, place])))

    @classmethod
    def cases(cls, fit: FittedModel, n: int, seed: Any, progress: bool | None) -> Bootstrap:
        """Whole groups drawn with replacement, each draw a group of its own."""
        factor = independent_groups(fit.design, "kind='cases'")
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
        factor = independent_groups(self.fit.design, "kind='bca'")
        m = len(factor.levels)
        without = [np.delete(np.arange(m), i) for i in range(m)]
        left = _refitted(self.fit, Regrouped(self.fit, factor, without), None).parameters
        influence = left.mean() - left
        return (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        return f"<{len(self.many)} bootstrap replicates of {self.fit.design.formula}: {counts}>"


def bootstrap(
    fit: FittedModel, n: int = 1000, seed: Any = None, kind: str = "parametric", progress: bool | None = None
) -> Bootstrap:
    """The model refitted to n sets of new data, as one batch.

    kind: "parametric", responses simulated from this fit; or "cases", whole groups drawn with replacement, for one
    grouping factor or nested ones (crossed groups are not independent of each other).
    """
    fit.model.engine.require("bootstrap")
    one_of("kind", kind, ("parametric", "cases"))
    whole_number("n", n, 1)
    return (Bootstrap.parametric if kind == "parametric" else Bootstrap.cases)(fit, n, seed, progress)
