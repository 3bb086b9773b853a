"""Marginal means and contrasts taken from the scale of a link back to that of the response."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..models import response
from ..models.fitted import FittedModel
from ..models.linear_predictor import _of_fit
from ..numerics.families.family import Distribution, Ordinal
from ..support.arguments import one_of

TYPES = ("link", "response")
RATIOS = {"logit": "odds ratio", "log": "ratio"}
STEP = 1e-3  # of the differences that give the curvature of an inverse link


@dataclass(frozen=True, eq=False)
class ResponseScale:
    """The inverse of a link, with the variance of the random effects where means are adjusted
    for their bias.
    """

    family: Distribution
    variance: float | None
    "Of the random effects, on average over the rows; None without adjustment."

    @property
    def ratio(self) -> str | None:
        """What a difference on the scale of the link becomes; None where it has no meaning of
        its own.
        """
        return RATIOS.get(self.family.link)

    def mean(self, eta: np.ndarray) -> np.ndarray:
        """Mean of a typical level; adjusted for bias it is that of all levels, to second order
        in the variance.
        """
        value = self._inverse(eta)
        if self.variance is None:
            return value
        curved = (self._inverse(eta + STEP) - 2.0 * value + self._inverse(eta - STEP)) / STEP**2
        return value + 0.5 * self.variance * curved

    def _inverse(self, eta):
        return response.location(
            self.family, eta, [np.zeros(len(eta)) for _ in self.family.parameters]
        )

    def means(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of means on the scale of the link (`emmean se df lower upper`) with `response` in
        place of `emmean`.

        Standard errors by the delta method; limits are those of the link, transformed.
        """
        eta = table["emmean"].to_numpy(float)
        slope = (self.mean(eta + STEP) - self.mean(eta - STEP)) / (2.0 * STEP)
        limits = np.sort(
            [self.mean(table[side].to_numpy(float)) for side in ("lower", "upper")], axis=0
        )
        changed = dict(
            emmean=self.mean(eta), se=np.abs(slope) * table["se"], lower=limits[0], upper=limits[1]
        )
        return table.assign(**changed).rename(columns={"emmean": "response"})

    def contrasts(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of contrasts as ratios, where differences on the scale of the link are
        logarithms of such.
        """
        if self.ratio is None:
            return table
        ratio = np.exp(table["estimate"])
        changed = dict(
            estimate=ratio,
            se=ratio * table["se"],
            lower=np.exp(table["lower"]),
            upper=np.exp(table["upper"]),
        )
        names = table["contrast"].str.replace(" - ", " / ", regex=False)
        return table.assign(contrast=names, **changed).rename(columns={"estimate": self.ratio})


def scale_of(fit: FittedModel, type: str, bias_adjust: bool) -> ResponseScale | None:
    """The scale that marginal means are given on; None where it is that of the link, or of a
    linear model.
    """
    one_of("type", type, TYPES)
    if type == "link":
        if bias_adjust:
            raise ValueError("bias_adjust=True is for means of the response: use type='response'")
        return None
    if fit.design.observed is None:
        return None
    family = fit.design.observed.family
    if isinstance(family, Ordinal):
        raise ValueError(
            "an ordinal response has no mean: marginal means are on the scale of the link, "
            "type='link'"
        )
    variance = None
    if bias_adjust:
        rows = _of_fit(fit.design)
        variance = float(
            response.random_variances(
                fit.design.factors, fit.Lambdas, fit.level_roots, rows.Z
            ).mean()
        )
    return ResponseScale(getattr(family, "base", family), variance)
