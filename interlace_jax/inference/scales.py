"""Marginal means and contrasts taken from the scale of a link back to that of the response."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..models import response
from ..models.fitted import FittedModel
from ..models.linear_predictor import _of_fit
from ..numerics.families.family import Distribution, Gaussian, Ordinal
from ..support.arguments import one_of

TYPES = ("link", "response")
TRANSFORMED = re.compile(r"(?:np\.|numpy\.)?(log|sqrt)\((.*)\)")
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


def untransformed(name: str) -> str:
    """The variable inside log(y) or sqrt(y), the name itself where it is no such response."""
    found = TRANSFORMED.fullmatch(name)
    return found[2].strip() if found and transformation_of(name) else name


def transformation_of(name: str) -> Distribution | None:
    """What takes a mean of log(y) or sqrt(y) back to y; None where the response is none of
    these.
    """
    found = TRANSFORMED.fullmatch(name)
    if found is None:
        return None
    depths = np.cumsum([(c == "(") - (c == ")") for c in found[2]])
    return None if (depths < 0).any() else Gaussian(found[1])


def scale_of(fit: FittedModel, type: str, bias_adjust: bool) -> ResponseScale | None:
    """The scale that marginal means are given on; None where it is that of the link, or of a
    linear model.
    """
    one_of("type", type, TYPES)
    if type == "link":
        if bias_adjust:
            raise ValueError("bias_adjust=True is for means of the response: use type='response'")
        return None
    seen = fit.design.observed
    family = transformation_of(fit.design.response) if seen is None else seen.family
    if family is None:
        return None
    if isinstance(family, Ordinal):
        raise ValueError(
            "an ordinal response has no mean: marginal means are on the scale of the link, "
            "type='link'"
        )
    variance = None
    if bias_adjust:
        rows = _of_fit(fit.design)
        pieces = fit.design.factors, fit.Lambdas, fit.level_roots, rows.Z
        variance = float(response.random_variances(*pieces).mean())
        if seen is None:  # Lambda is relative to sigma, and the residual is averaged over too
            variance = fit.scale * (1.0 + variance)
    return ResponseScale(getattr(family, "base", family), variance)
