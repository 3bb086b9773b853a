"""How the search for theta ended: the certificate of a fit."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False)
class Optimum:
    """How the search for theta ended."""

    theta: np.ndarray
    "(d,)"
    gradient: np.ndarray
    """(d,) absolute derivatives of the deviance in conditioned parameters: standard deviations
    of unit-RMS columns.
    """
    predicted_decrease: float
    "Deviance units still to gain by the optimiser's quadratic model; free of scale."
    steps: int
    "Evaluations of deviance and gradient."
    noise: float
    """Standard error of the deviance, which the iterative core estimates from random probes; 0
    for the dense core.
    """
    theta_noise: float
    """Error that random probes make in theta, in its standard errors (root mean square); 0 for
    the dense core.
    """
    status: str
    message: str
    boundary: tuple[str, ...]
    "Random-effects columns whose variance is 0, or whose correlations are +-1, as `x|g`."
    re_pca: dict[str, pd.DataFrame] = field(repr=False)
    """By factor the principal components of the random effects: `sd` relative to sigma,
    `proportion` of the variance.
    """
    hessian: Any = field(repr=False)
    "Call it for the Hessian (d, d) of the deviance, profiled, less priors; conditioned parameters."
    execution: str = field(default="", kw_only=True)
    "How its programs ran: numpy, at once; xla, compiled; numpy and xla. Empty where none ran here."

    @functools.cached_property
    def hessian_eigenvalues(self) -> np.ndarray:
        """Eigenvalues (d,) of the Hessian, increasing; positive at a minimum inside the
        parameter space.
        """
        return np.linalg.eigvalsh(self.hessian())

    @property
    def smallest_eigenvalue(self) -> float:
        """The smallest of `hessian_eigenvalues`: not below 0 at a minimum."""
        return float(self.hessian_eigenvalues[0])


@dataclass(frozen=True, eq=False)
class GeneralizedOptimum(Optimum):
    """How the search for all parameters ended, and that for the modes of the random effects inside
    it.
    """

    mode_decrement: float
    "How far the modes are from theirs, in deviance units, by Newton's quadratic model."
    mode_residual: float
    "Largest entry of the gradient of the modes, in their standard deviations."
    trips: int
    "Newton steps of the modes and steps of the parameters, together."
    negative_information: int
    "Rows whose log-density is convex at the modes, as it can be where a family is not log-concave."


def principal_components(Lam: np.ndarray) -> pd.DataFrame:
    """SDs (relative to sigma) of the principal components of random effects with factor Lam (k,
    k), and shares.
    """
    sd = np.linalg.svd(Lam, compute_uv=False)
    total = np.sum(sd**2)
    return pd.DataFrame(
        {"sd": sd, "proportion": sd**2 / total if total > 0.0 else np.zeros_like(sd)}
    )
