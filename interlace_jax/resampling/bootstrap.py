"""The bootstrap: a model refitted to simulated responses or to groups drawn anew, as one batch."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..inference.intervals import chosen_names
from ..many.columns import Columns
from ..many.designs import Designs
from ..many.fits import ManyFits
from ..many.generalized import GeneralizedResponses, ManyGeneralizedFits
from ..many.responses import Responses
from ..models.fitted import FittedModel
from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import component_name, component_pairs, natural_names, natural_values
from ..models.simulation import new_responses, simulate
from ..numerics.covariance.parameters import shape_places
from ..support.arguments import check_level, one_of, whole_number
from ..support.later import special
from .regrouping import Regrouped, independent_groups

LOG, FISHER_Z = (np.log, np.exp), (np.arctanh, np.tanh)
LOGIT = (lambda p: special.logit(p), lambda x: special.expit(x))
"A scale without bounds, and the way back."


def _refitted(fit: FittedModel, work: Designs, progress: bool | None) -> ManyFits:
    def single(place: int) -> FittedModel:
        return fit.refitted(work.designs[place])

    return ManyFits.of(work, fit.method, "satterthwaite", single, progress=progress)


class Bootstrap:
    """A model refitted to data like those that it was fitted to; made by `Fit.bootstrap`.

    Every replicate that could be fitted counts: those that are singular, or did not converge, are
    in the estimates. `outcomes` says how many there are of each kind, and why others could not be
    fitted.
    """

    def __init__(self, fit: FittedModel, many: ManyFits):
        self.fit, self.many = fit, many

    @classmethod
    def parametric(cls, fit: FittedModel, n: int, seed: Any, progress: bool | None) -> Bootstrap:
        """Responses simulated from the fit, with new random effects and residuals."""
        if isinstance(fit, FittedGeneralizedModel):
            return cls._of_family(fit, n, seed, progress)
        model, Y = fit.model, simulate(fit, n, seed).to_numpy()
        rows = np.arange(len(Y))
        work = Responses(
            model.design,
            model.data,
            Columns(Y),
            pd.RangeIndex(n),
            rows,
            model.arguments,
            fit.estimate.t,
        )

        def single(place: int) -> FittedModel:
            return fit.refit(Y[:, place])

        return cls(fit, ManyFits.of(work, fit.method, "satterthwaite", single, progress=progress))

    @classmethod
    def _of_family(
        cls, fit: FittedGeneralizedModel, n: int, seed: Any, progress: bool | None
    ) -> Bootstrap:
        """Responses simulated from a generalised model."""
        model, Y = fit.model, new_responses(fit, n, seed)
        facts = Columns(Y), pd.RangeIndex(n), np.arange(len(Y)), model.arguments
        work = GeneralizedResponses(model.design, model.data, *facts)

        def single(place: int) -> FittedModel:
            return fit.refit(fit.design.observed.shown(Y[:, place]))

        return cls(fit, ManyGeneralizedFits.of(work, "ML", "normal", single, progress=progress))

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
        return pd.concat(
            [
                self.many.status.value_counts(),
                pd.Series({"singular": int(self.many.is_singular.sum())}),
            ]
        )

    def confint(self, level: float = 0.95, kind: str = "percentile") -> pd.DataFrame:
        """Intervals `lower upper` of every parameter, in the order of `Fit.confint`.

        kind: "percentile"; "basic" (reflected about the estimate, on the log scale of standard
        deviations, Fisher's z of correlations and the scale on which parameters of structures are
        searched, so that no limit lies outside of what the parameter can be); or "bca" (corrected
        for bias and skewness, Efron 1987), whose acceleration comes from leaving out one group at a
        time, so that it needs factors that are not crossed.

        A basic limit is infinite where the percentile that it reflects is a standard deviation of
        0, and missing where the estimate itself is 0, or a correlation of 1 or -1: take percentiles
        there.
        """
        check_level(level)
        one_of("kind", kind, ("percentile", "basic", "bca"))
        if kind == "bca" and isinstance(self.fit, FittedGeneralizedModel):
            raise ValueError("kind='bca' is for linear mixed models so far")
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        order = chosen_names(self.fit.design, None)
        if kind == "bca":
            return self._bca(special.ndtri(tails)).loc[order]
        low, high = (self.estimates.quantile(q) for q in tails)
        if kind == "basic":
            low, high = (self._reflected(q) for q in tails[::-1])
        return pd.DataFrame({"lower": low, "upper": high}).loc[order]

    def _reflected(self, q: float) -> pd.Series:
        """Quantiles q of all parameters reflected about the estimates, each on a scale without
        bounds.
        """
        estimates, quantiles = self.fit.parameters, self.estimates.quantile(q)
        found = 2 * estimates - quantiles
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for name, (to_free, back) in _scales(self.fit.design).items():
                found[name] = back(2 * to_free(estimates[name]) - to_free(quantiles[name]))
        structures = self._reflected_structures(q)
        found[structures.index] = structures
        return found

    def _reflected_structures(self, q: float) -> pd.Series:
        """The parameters of structures where the quantiles q of the numbers that are searched
        are reflected.
        """
        factors, theta = self.fit.design.factors, self.fit.theta.copy()
        blocks = [f.block for f in factors]
        starts = np.cumsum([0, *(block.size for block in blocks[:-1])])
        at = np.concatenate(
            [start + place for start, place in zip(starts, shape_places(blocks), strict=True)]
        )
        draws = self.many.theta.to_numpy()[:, at]
        theta[at] = 2 * theta[at] - np.nanquantile(draws, q, axis=0)
        return pd.Series(
            natural_values(factors, theta),
            [name for f in factors for name in natural_names(f)],
            float,
        )

    def _bca(self, z: np.ndarray) -> pd.DataFrame:
        """Quantiles at Phi(z0 + (z0 + z) / (1 - a (z0 + z))) (Efron 1987, JASA 82, eq. 1.10)."""
        draws, estimate, limits = self.estimates, self.fit.parameters, {}
        below = ((draws < estimate).sum() + 0.5 * (draws == estimate).sum()) / draws.notna().sum()
        for name, z0 in zip(draws, special.ndtri(below), strict=True):
            shifted = z0 + z
            q = special.ndtr(z0 + shifted / (1 - self._acceleration[name] * shifted))
            limits[name] = (
                draws[name].quantile(q).to_numpy() if np.isfinite(q).all() else np.full(2, np.nan)
            )
        return pd.DataFrame.from_dict(limits, orient="index", columns=["lower", "upper"])

    @functools.cached_property
    def _acceleration(self) -> pd.Series:
        """A sixth of the skewness of the jackknife's influence values, over sqrt(groups)."""
        factor = independent_groups(self.fit.design, "kind='bca'")
        m = len(factor.levels)
        without = [np.delete(np.arange(m), i) for i in range(m)]
        left = _refitted(self.fit, Regrouped(self.fit, factor, without), None).parameters
        _warn_of_failures(
            int(left.isna().all(axis=1).sum()),
            m,
            "groups could not be left out",
            "the acceleration is",
        )
        influence = left.mean() - left
        return (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        return f"<{len(self.many)} bootstrap replicates of {self.fit.design.formula}: {counts}>"


def bootstrap(
    fit: FittedModel,
    n: int = 1000,
    seed: Any = None,
    kind: str = "parametric",
    progress: bool | None = None,
) -> Bootstrap:
    """The model refitted to n sets of new data, as one batch.

    kind: "parametric", responses simulated from this fit; or "cases", whole groups drawn with
    replacement, for one grouping factor or nested ones (crossed groups are not independent of each
    other).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> boot = fit.bootstrap(100, seed=1, progress=False)
    >>> boot
    <100 bootstrap replicates of Reaction ~ Days + (1 + Days | Subject): 100 converged, 0 singular>
    >>> boot.confint().loc[["sigma", "Days"]].round(1)
           lower  upper
    sigma   22.3   27.9
    Days     7.7   13.1
    """
    fit.model.engine.require("bootstrap")
    one_of("kind", kind, ("parametric", "cases"))
    if kind == "cases" and isinstance(fit, FittedGeneralizedModel):
        raise ValueError("kind='cases' is for linear mixed models so far: use kind='parametric'")
    whole_number("n", n, 1)
    made = (Bootstrap.parametric if kind == "parametric" else Bootstrap.cases)(
        fit, n, seed, progress
    )
    failed = int((made.many.nobs == 0).sum())
    _warn_of_failures(
        failed,
        n,
        "replicates could not be fitted (see `outcomes`)",
        "standard errors and intervals are",
    )
    return made


def _warn_of_failures(failed: int, n: int, what: str, numbers: str) -> None:
    if failed:
        warnings.warn(f"{failed} of {n} {what}: {numbers} of the other {n - failed}", stacklevel=3)


def _scales(design: Design) -> dict[str, tuple[Any, Any]]:
    """By name of a standard deviation or correlation the scale on which it has no bounds, and
    the way back.
    """
    pairs = [(f, i, j) for f in design.factors for i, j in component_pairs(f.sizes)]
    found = {component_name(f, i, j): LOG if i == j else FISHER_Z for f, i, j in pairs}
    if design.observed is None:
        return found | {"sigma": LOG}
    pairs = zip(design.observed.family.parameters, design.predictors, strict=False)
    known = {used.parameter: _OF_DOMAIN.get(p.domain) for p, used in pairs if used.D is None}
    return found | {name: scale for name, scale in known.items() if scale is not None}


_OF_DOMAIN = {"positive": LOG, "unit": LOGIT, "logit": LOGIT}
