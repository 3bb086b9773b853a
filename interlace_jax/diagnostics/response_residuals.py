"""Residuals of generalised models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..models import response
from ..models.distribution_functions import probability_limits
from ..models.generalized import FittedGeneralizedModel
from ..models.linear_predictor import _of_fit
from ..numerics.families.family import Ordinal
from ..support.arguments import one_of
from ..support.later import special

KINDS = ("response", "pearson", "deviance", "working", "quantile")
# probability of a tail below which a residual has no digits: 8.2 standard deviations
FARTHEST = 1e-16


def response_residuals(
    fit: FittedGeneralizedModel, kind: str = "response", seed: Any = None
) -> pd.Series:
    """Residuals of the rows used.

    kind:

    - "response": as `resid`.
    - "pearson": over the SD of a response given its random effects.
    - "deviance": the signed root of twice what the row's log-density lacks of its largest.
    - "working": score over information, on the scale of the link.
    - "quantile": the normal quantile of the response's probability P(Y <= y) given its random
      effects; where Y is discrete, of a random number between P(Y < y) and P(Y <= y) (Dunn & Smyth
      1996, J. Comput. Graph. Stat. 5). Standard normal under the model, but for what the estimates
      have taken from them: their tails are light where levels have few rows. Ordinal responses have
      them too.

    seed: of the random numbers of "quantile", anything `numpy.random.default_rng` takes.
    `scaled_residuals` compares with simulated responses in place of the distribution function.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> fit.residuals("pearson").head(3).round(2)
    0   -1.34
    1    1.08
    2    2.88
    dtype: float64
    """
    one_of("kind", kind, KINDS)
    design, e = fit.design, fit.estimate
    if kind == "response":
        return fit.resid
    if kind == "working":
        return pd.Series(e.score / e.W, index=design.index)
    if kind == "quantile":
        found = quantile_residuals(fit, e.eta, np.random.default_rng(seed))
        return pd.Series(found, index=design.index)
    if isinstance(fit.family, Ordinal):
        raise ValueError(
            f"residuals(kind={kind!r}) are not defined for categories: use kind='quantile'"
        )
    free = fit.free_rows(_of_fit(design))
    m = np.ones(len(design.y)) * design.observed.m
    if kind == "pearson":
        variance = response.variance(fit.family, e.eta, free, design.w * m)
        return fit.resid / np.sqrt(variance)
    values = response.deviance_residuals(fit.family, design.y, design.w, m, e.eta, free)
    return pd.Series(values, index=design.index)


def quantile_residuals(
    fit: FittedGeneralizedModel, eta: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Randomized quantile residuals (n,) at linear predictors eta (n,)."""
    design, family = fit.design, fit.family
    free = fit.free_rows(_of_fit(design))
    mu = response.location(family, eta, free)
    natural = [] if isinstance(family, Ordinal) else response.natural_parameters(family, free)
    m = np.ones(len(design.y)) * design.observed.m
    lower, upper = probability_limits(family, design.y, mu, natural, design.w, m)
    u = lower + rng.random(len(lower)) * (upper - lower)
    return special.ndtri(np.clip(u, FARTHEST, 1.0 - FARTHEST))
