"""Residuals of every kind, and leverages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ..engines.packing import padded_model
from ..inference.prediction import predict
from ..models.covariance import blocks, covariance
from ..models.fitted import FittedModel
from ..models.residual import relative_sds
from ..models.simulation import new_responses
from ..numerics.crossproducts.layout import bucket
from ..numerics.uncertainty.sensitivity import Leverages, leverages
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.arguments import one_of
from .correlated_rows import CorrelatedLeverages, correlated_leverages

KINDS = ("conditional", "marginal", "pearson", "standardized", "normalized")
_leverages = jit(leverages)

NUMBERS = 1 << 22  # simulated numbers held at a time


def residuals(fit: FittedModel, kind: str = "conditional") -> pd.Series:
    """Residuals of the rows used.

    kind:

    - "conditional": y - fitted, the same as `resid`.
    - "marginal": y - X beta - offset.
    - "pearson": sqrt(w) (y - fitted), in the unit of the response; lme4's `residuals(type =
      "pearson")`. Where residual SDs differ (`residual=`, `dispersion=`) also over the row's SD
      relative to sigma.
    - "standardized": conditional residuals over their own SD, sigma sqrt((1 - h) / w) with the
      overall leverage h, or where residuals covary sigma times the root of the diagonal of R (V^-1
      - V^-1 X (X'V^-1 X)^-1 X'V^-1) R: what is estimated is allowed for, theta is not.
    - "normalized": L^-1 (y - X beta - offset) / sigma, L L' = V the Cholesky factors of the
      covariance matrix over sigma^2: under the model independent standard normal but for the
      estimation of the parameters. A row's value is the error of predicting it from the rows before
      it, in SDs. Rows that share no random effect are taken apart; at most 5000 may be connected (a
      ValueError otherwise).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.residuals("standardized").head(3).round(2)
    0   -0.18
    1   -0.63
    2   -1.76
    dtype: float64
    """
    one_of("kind", kind, KINDS)
    design, conditional = fit.design, fit.resid
    if kind == "conditional":
        return conditional
    if kind in ("marginal", "normalized"):
        marginal = design.y - predict(fit, include_re=False)
        return marginal if kind == "marginal" else _normalized(fit, marginal)
    if kind == "pearson":
        return conditional / relative_sds(design, fit.theta)
    return conditional / (fit.sigma * np.sqrt(_residual_variances(fit)))


def _residual_variances(fit: FittedModel) -> np.ndarray:
    """Variances (n,) of the conditional residuals over sigma^2."""
    if fit.design.residual is not None:
        return correlated_leverages(fit).variance
    return (1.0 - leverage_arrays(fit).overall) / fit.design.w


def independent_residuals(fit: FittedModel) -> pd.Series:
    """Residuals that are independent of each other and of one size under the model, as nearly as
    may be: normalized where they covary, else Pearson's.
    """
    correlated = fit.design.residual is not None and fit.design.residual.is_correlated
    return residuals(fit, "normalized" if correlated else "pearson")


def leverage(fit: FittedModel) -> pd.DataFrame:
    """Leverages `fixed random overall` of the rows used: d fitted / d y of each row itself.

    Diagonals of H1 = X (X'V^-1 X)^-1 X'V^-1, H2 = Z D Z'V^-1 (I - H1) and H1 + H2, theta held
    (Demidenko & Stukel 2005, Stat. Med. 24); lme4's `hatvalues` are `overall`, HLMdiag's columns
    `fixef ranef overall`. The sum of `overall` is an effective number of parameters. Where
    residuals covary, H2 = (I - R V^-1) (I - H1).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.leverage().sum().round(2)
    fixed       2.00
    random     27.02
    overall    29.02
    dtype: float64
    """
    found = leverage_arrays(fit)
    columns = dict(fixed=found.fixed, random=found.overall - found.fixed, overall=found.overall)
    return pd.DataFrame(columns, index=fit.design.index)


def leverage_arrays(fit: FittedModel) -> Leverages | CorrelatedLeverages:
    """Leverages of the rows used, as arrays."""
    fit.model.engine.require("leverages")
    if fit.design.residual is not None:
        return correlated_leverages(fit)
    plan, _, X, Z, w, _, K = padded_model(fit.design, bucket)
    found = run(_leverages, fit.theta, plan, X, Z, w, K)
    return Leverages(*(a[: fit.nobs] for a in found))


def _normalized(fit: FittedModel, marginal: pd.Series) -> pd.Series:
    """L^-1 (y - X beta) / sigma with V = L L', rows that share no random effect apart."""
    found, r = np.empty(fit.nobs), marginal.to_numpy() / fit.sigma
    instead = "kind='pearson' has no such limit, nor has 'standardized' with the dense core"
    for rows in blocks(fit.design, "normalized residuals need", instead):
        L = np.linalg.cholesky(covariance(fit, rows))
        found[rows] = np.linalg.solve(L, r[rows][..., None])[..., 0]
    return pd.Series(found, index=marginal.index)


def scaled_residuals(
    fit: FittedModel, nsim: int = 250, seed: Any = None, conditional: bool = False
) -> pd.Series:
    """Share of responses simulated from the model, with new random effects, that lie below the
    observed one.

    Uniform between 0 and 1 under the model, whatever the row's group, weight and predictors (Dunn &
    Smyth 1996; Hartig's DHARMa); rows of one group are alike. Ties are broken at random. nsim: how
    many responses; seed: as in `simulate`. conditional: with the estimated random effects in place
    of new ones, so that rows of a group are not alike; what these have taken from the data makes
    them a little too narrow.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.scaled_residuals(seed=1).describe()[["mean", "min", "max"]].round(2)
    mean    0.50
    min     0.02
    max     0.99
    dtype: float64
    """
    if nsim < 1:
        raise ValueError(f"nsim must be at least 1, not {nsim}")
    design, rng = fit.design, np.random.default_rng(seed)
    y = design.y[:, None]
    below, equal = np.zeros(len(y), int), np.zeros(len(y), int)
    for Y in _simulations(fit, nsim, rng, conditional):
        below += (Y < y).sum(1)
        equal += (Y == y).sum(1)
    return pd.Series((below + rng.random(len(y)) * (equal + 1)) / (nsim + 1), index=design.index)


def _simulations(
    fit: FittedModel, nsim: int, rng: np.random.Generator, conditional: bool = False
) -> Iterator[np.ndarray]:
    """Responses (n, some), with new random effects unless `conditional`, until there are nsim."""
    at_once = max(1, NUMBERS // fit.nobs)
    for start in range(0, nsim, at_once):
        yield new_responses(fit, min(at_once, nsim - start), rng, conditional)
