"""Residuals of generalised models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..models import response
from ..models.generalized import FittedGeneralizedModel
from ..models.linear_predictor import _of_fit
from ..numerics.families.family import Ordinal
from ..support.arguments import one_of

KINDS = ("response", "pearson", "deviance", "working")


def response_residuals(fit: FittedGeneralizedModel, kind: str = "response") -> pd.Series:
    """Residuals of the rows used.

    kind: "response", as `resid`; "pearson", over the SD of a response given its random effects;
    "deviance", the signed root of twice what the row's log-density lacks of its largest; "working",
    score over information on the scale of the link. Of scaled (quantile) residuals see
    `scaled_residuals`.
    """
    one_of("kind", kind, KINDS)
    design, e = fit.design, fit.estimate
    if kind == "response":
        return fit.resid
    if kind == "working":
        return pd.Series(e.score / e.W, index=design.index)
    if isinstance(fit.family, Ordinal):
        raise ValueError(
            f"residuals(kind={kind!r}) are not defined for categories: use scaled_residuals()"
        )
    free = fit.free_rows(_of_fit(design))
    m = np.ones(len(design.y)) * design.observed.m
    if kind == "pearson":
        variance = response.variance(fit.family, e.eta, free, design.w * m)
        return fit.resid / np.sqrt(variance)
    values = response.deviance_residuals(fit.family, design.y, design.w, m, e.eta, free)
    return pd.Series(values, index=design.index)
