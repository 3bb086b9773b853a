"""Predictions of generalised models: on the scale of the link or of the response, for a typical
level or averaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..models import response
from ..models.generalized import FittedGeneralizedModel
from ..models.linear_predictor import Rows, expected
from ..numerics.families.family import Ordinal, ZeroInflated
from ..support.arguments import check_level, one_of
from ..support.later import special
from .prediction import _refuse_unseen, _rows, included_factors
from .tails import normal_quantile

TYPES = ("response", "link")
UNSEEN = ("typical", "average")
STEP = 1e-4  # of the differences by a parameter, in its standard errors


def predict_generalized(
    fit: FittedGeneralizedModel,
    newdata: Any = None,
    type: str = "response",
    include_re: bool | Iterable[str] = True,
    marginal: bool = False,
    allow_new_levels: bool = True,
    offset: str | Iterable[float] | None = None,
    interval: str | None = None,
    level: float = 0.95,
    unseen: str = "typical",
) -> pd.Series | pd.DataFrame:
    """Expected responses for the rows of a frame (by default those of the fit), or `fit lower upper
    se`.

    newdata: a frame with the columns of the formula (and of `dispersion=` and `zero_inflation=`).
    type: "response" (R's default is "link"): means, probabilities where there are trials, and of an
    ordinal response a frame of the probabilities of its categories; "link": X beta + Z b + offset.
    include_re: add the random effects of the levels known; False: those of a typical level, where
    they are 0; names of factors: those of these factors only.
    marginal: average over the random effects, in place of their estimates: what is expected of all
    levels together. With a curved link that is not the mean of a typical level.
    allow_new_levels, offset: as for a linear mixed model.
    interval: "confidence", without random effects (include_re=False or marginal=True). Limits of
    the response are those of the link, transformed; averages have them on the scale of the log, or
    of the logit of a probability.
    unseen: of levels that the fit has not seen, "typical" takes random effects of 0, "average"
    averages the response over them, with the random effects of other factors as they are.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> new = cbpp.head(2)[["period"]]
    >>> fit.predict(new, marginal=True, interval="confidence").round(3)
         fit  lower  upper     se
    0  0.216  0.153  0.296  0.036
    1  0.097  0.056  0.164  0.027
    """
    one_of("type", type, TYPES)
    one_of("unseen", unseen, UNSEEN)
    design = fit.design
    if marginal:
        if type == "link":
            raise ValueError("marginal=True averages responses: use type='response'")
        include_re = False
    included = included_factors(design, include_re)
    rows, _ = _rows(design, newdata, included, offset, marginal, False)
    if not allow_new_levels:
        _refuse_unseen(design, rows, included)
    modes = [
        b if f.name in included else 0.0 * b
        for f, b in zip(design.factors, fit.mode_arrays, strict=True)
    ]
    eta = expected(rows, fit.estimate.beta, modes)
    if unseen == "average":
        if type == "link" or interval is not None:
            raise ValueError(
                "unseen='average' is for responses, type='response', without interval="
            )
        return fit.labelled(_means(fit, _unseen_only(rows), eta, True), rows.index)
    if interval is None:
        values = eta if type == "link" else _means(fit, rows, eta, marginal)
        return fit.labelled(values, rows.index)
    one_of("interval", interval, ("confidence",))
    check_level(level)
    if included:
        raise ValueError(
            "intervals of a generalised model are for predictions without random effects so far: "
            "use include_re=False or marginal=True"
        )
    if isinstance(fit.family, Ordinal) and type == "response":
        raise ValueError(
            "intervals of an ordinal response are on the scale of the link so far: use type='link'"
        )
    half = normal_quantile(0.5 + level / 2.0)
    if marginal or isinstance(fit.family, ZeroInflated) and type == "response":
        return _by_differences(fit, rows, marginal, half)
    return _transformed(fit, rows, eta, type, half)


def _unseen_only(rows: Rows) -> Rows:
    """The rows with a Z of 0 where the level is known, so that only the others add variance."""
    Z = [np.where(c[:, None] < 0, z, 0.0) for c, z in zip(rows.codes, rows.Z, strict=True)]
    return replace(rows, Z=Z)


def _means(fit, rows: Rows, eta: np.ndarray, marginal: bool) -> np.ndarray:
    """Expected responses of rows (n,), NaN where something is missing."""
    known = ~np.isnan(eta)
    free = [a[known] for a in fit.free_rows(rows)]
    if marginal:
        codes = {f.name: c[known] for f, c in zip(fit.design.factors, rows.codes, strict=True)}
        Z = [z[known] for z in rows.Z]
        s2 = response.random_variances(fit.design.factors, fit.Lambdas, fit.level_roots, Z, codes)
        values = response.averaged(fit.family, eta[known], free, s2)
    else:
        values = response.mean(fit.family, eta[known], free)
    out = np.full((len(eta), *values.shape[1:]), np.nan)
    out[known] = values
    return out


def _transformed(fit, rows, eta, type, half):
    """Limits on the scale of the link, transformed."""
    V = fit.beta_covariance
    se = np.sqrt(np.einsum("np,pq,nq->n", rows.X, V, rows.X))
    limits = dict(fit=eta, lower=eta - half * se, upper=eta + half * se)
    if type == "link":
        return pd.DataFrame(limits | {"se": se}, index=rows.index)
    known = ~np.isnan(eta)
    free = [a[known] for a in fit.free_rows(rows)]
    found = {name: np.full(len(eta), np.nan) for name in (*limits, "se")}
    for name, values in limits.items():
        found[name][known] = response.mean(fit.family, values[known], free)
    lower, upper = (
        np.minimum(found["lower"], found["upper"]),
        np.maximum(found["lower"], found["upper"]),
    )
    found["se"][known] = np.abs(response.slope(fit.family, eta[known], free)) * se[known]
    return pd.DataFrame(found | {"lower": lower, "upper": upper}, index=rows.index)


def _by_differences(fit, rows, marginal, half):
    """Delta method over all parameters, by central differences of the means; limits on the log
    or logit scale.
    """
    centre, J = mean_derivatives(fit, rows, marginal)
    se = np.sqrt(np.einsum("an,ab,bn->n", J, fit.joint_covariance, J))
    lower, upper = limits_of_means(centre, half * se, fit.family.has_trials)
    return pd.DataFrame(dict(fit=centre, lower=lower, upper=upper, se=se), index=rows.index)


def mean_derivatives(
    fit: FittedGeneralizedModel, rows: Rows, marginal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Expected responses (n,) of rows whose random effects are 0 or averaged over, and their
    derivatives (a, n) by (theta, beta, gamma); 0 by what has no standard error.
    """
    e = fit.estimate
    d, p = len(e.theta), len(e.beta)
    modes = [0.0 * b for b in fit.mode_arrays]

    def means(v):
        theta, beta, gamma = np.split(v, [d, d + p])
        moved = fit.with_parameters(theta, beta, gamma)
        return _means(moved, rows, expected(rows, beta, modes), marginal)

    value = np.concatenate([e.theta, e.beta, e.gamma])
    return means(value), _slopes(means, value, STEP * np.sqrt(np.diag(fit.joint_covariance)))


def _slopes(means, value, steps):
    """Derivatives (d, n) of the means by central differences; 0 along a step of 0."""
    slopes = []
    for step, unit in zip(steps, np.eye(len(value)), strict=True):
        up, down = means(value + step * unit), means(value - step * unit)
        slopes.append((up - down) / (2.0 * step) if step else 0.0 * up)
    return np.array(slopes)


def limits_of_means(centre, width, is_share):
    """Limits of means: of shares on the logit scale, of others on the log scale if it is theirs."""
    if is_share:
        logit, inside = special.logit(centre), width / (centre * (1.0 - centre))
        return special.expit(logit - inside), special.expit(logit + inside)
    if np.nanmin(centre) <= 0:  # a mean that may be negative has no scale but its own
        return centre - width, centre + width
    relative = width / centre
    return np.exp(np.log(centre) - relative), np.exp(np.log(centre) + relative)
