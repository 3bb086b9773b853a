"""The numbers of a family besides the mean: estimates, standard errors and intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..design.design import Design
from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import natural_names
from ..numerics.families.family import Ordinal
from ..support.later import special
from .coefficients import Coefficients, coefficients
from .tails import normal_quantile
from .variances import components, intervals, structure_table, uncertainty

COLUMNS = ["estimate", "se", "lower", "upper"]


def parameter_cov(fit: FittedGeneralizedModel) -> pd.DataFrame:
    """Covariance of theta, the coefficients and the numbers of the family (on their free scales, as
    logarithms).

    Entries of columns of Lambda that are estimated as 0 count as known.
    """
    theta = [f"theta_{i}" for i in range(len(fit.estimate.theta))]
    names = [*theta, *fit.design.columns, *fit.family_names]
    return pd.DataFrame(fit.joint_covariance, index=names, columns=names)


def family_params(fit: FittedGeneralizedModel, level: float = 0.95) -> pd.DataFrame:
    """Numbers of the family on their natural scale: `estimate se lower upper`.

    Intervals are computed on the free scale, the logarithm of what is positive and the logit of a
    probability; thresholds are free themselves. Numbers with a predictor are in `dispersion_params`
    and `zero_params`.
    """
    e = fit.estimate
    V = fit.joint_covariance[len(e.theta) + len(e.beta) :, len(e.theta) + len(e.beta) :]
    if isinstance(fit.family, Ordinal):
        return _thresholds(fit.family, e.gamma, V, level)
    rows, at = {}, 0
    for parameter, used in zip(fit.family.parameters, fit.design.predictors, strict=True):
        if used.D is None:
            se = np.sqrt(V[at, at]) if V[at, at] > 0.0 else np.nan  # it runs off to infinity
            half = normal_quantile(0.5 + level / 2.0) * se
            back, slope = _BACK.get(parameter.domain, _BACK["unit"])
            g = e.gamma[at]
            rows[parameter.name] = (back(g), slope(g) * se, back(g - half), back(g + half))
        at += len(used.columns)
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS, dtype=float)


def _thresholds(family, gamma, V, level):
    """Thresholds with their standard errors: sums of the first and of the exponentials of the
    others.
    """
    J = thresholds_by_free(gamma)
    estimate = np.cumsum(np.append(gamma[:1], np.exp(gamma[1:])))
    se = np.sqrt(np.diag(J @ V @ J.T))
    lower, upper = intervals(estimate, se, level)
    names = [p.name for p in family.parameters]
    return pd.DataFrame(dict(estimate=estimate, se=se, lower=lower, upper=upper), index=names)


def thresholds_by_free(gamma: np.ndarray) -> np.ndarray:
    """Derivatives (r, r) of thresholds by the first and the logarithms of the gaps."""
    J = np.zeros((len(gamma), len(gamma)))
    J[:, 0] = 1.0
    for i in range(1, len(gamma)):
        J[i:, i] = np.exp(gamma[i])
    return J


def natural_jacobian(design: Design, gamma: np.ndarray) -> np.ndarray:
    """Derivatives (r, r) of the family's numbers on their natural scale by the free ones gamma
    (r,).
    """
    family = design.observed.family
    if isinstance(family, Ordinal):
        return thresholds_by_free(gamma)
    slopes, at = [], 0
    for parameter, used in zip(family.parameters, design.predictors, strict=True):
        own = gamma[at : at + len(used.columns)]
        at += len(used.columns)
        slopes.append(
            np.ones_like(own)
            if used.D is not None
            else _BACK.get(parameter.domain, _BACK["unit"])[1](own)
        )
    return np.diag(np.concatenate(slopes) if slopes else gamma)


_BACK = {
    "positive": (np.exp, np.exp),
    "real": (lambda x: x, np.ones_like),
    "unit": (lambda x: special.expit(x), lambda x: special.expit(x) * special.expit(-x)),
}


def predictor_table(fit: FittedGeneralizedModel, key: str, level: float = 0.95) -> pd.DataFrame:
    """Z table of the predictor that is given by an argument, "dispersion" or "zero_inflation";
    empty without it.
    """
    e = fit.estimate
    at = len(e.theta) + len(e.beta)
    for used in fit.design.predictors:
        own = slice(at, at + len(used.columns))
        at = own.stop
        if used.key == key:
            values = np.concatenate([e.theta, e.beta, e.gamma])[own]
            found = Coefficients(used.columns, values, fit.joint_covariance[own, own])
            return found.t_table(np.eye(len(values)), level=level).set_axis(
                list(used.columns), axis=0
            )
    return pd.DataFrame(columns=["estimate", "se", "t", "p"], dtype=float)


def wald_table(fit: FittedGeneralizedModel, level: float) -> pd.DataFrame:
    """Intervals `lower upper` of SDs, correlations, coefficients and numbers of the family."""
    names = list(fit.design.columns)
    beta = coefficients(fit).t_table(np.eye(len(names)), level=level).set_axis(names, axis=0)
    known = uncertainty(fit)
    parts = [components(known, level).iloc[:-1], beta, family_params(fit, level)]
    if any(map(natural_names, fit.design.factors)):
        parts.append(structure_table(known, level))
    for key in ("dispersion", "zero_inflation"):
        table = predictor_table(fit, key)
        half = normal_quantile(0.5 + level / 2.0) * table["se"]
        limits = pd.DataFrame(
            {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
        )
        parts.append(limits.rename(index=lambda name, key=key: f"{_parameter(fit, key)}:{name}"))
    return pd.concat([part for part in parts if len(part)])[["lower", "upper"]]


def _parameter(fit, key):
    return next((used.parameter for used in fit.design.predictors if used.key == key), key)
