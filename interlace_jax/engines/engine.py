"""What an engine is: one model's data, and everything that needs theta and the data."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np

from ..design.design import Design
from ..numerics.estimation.estimate import Estimate
from ..numerics.uncertainty.curvature import Curvature

CAPABILITIES = {
    "moments": "what you ask for",
    "traced_rows": "a fit of traced rows",
    "kenward_roger": "Kenward-Roger",
    "prediction_intervals": 'an interval of predictions (but "confidence" with include_re=False)',
    "profiles": "a profile",
    "leverages": "a leverage",
    "deletion": "influence()",
    "deletion_beside_the_data": "augment() with influence (without: influence=None)",
    "jackknife": "jackknife()",
    "bootstrap": "the bootstrap",
    "cross_validation": "cross-validation",
    "power": "a power analysis",
    "satterthwaite": "Satterthwaite's approximation of degrees of freedom",
    "checks": "check()",
    "report": "report()",
    "equation": "equation()",
    "hlmdiag": "hlm_resid()",
    "plots_of_rows": "a plot of rows, of lines through them or of their residuals",
}
"What some engine cannot do, and what a message calls it."


class Engine(abc.ABC):
    """A model's data and all that needs theta; made for a design by `choice.engine_for`.

    Estimates go in and out as arrays. `reml` says which criterion, True for the restricted
    likelihood.
    """

    name: ClassVar[str]
    "What `core=` of `fit` calls it."
    missing: ClassVar[dict[str, str]] = {}
    "By capability the rest of the sentence that refuses it: why, and what to do instead."

    def __init__(self, design: Design):
        self.design = design

    def can(self, capability: str) -> bool:
        """Whether the engine has one of CAPABILITIES."""
        return capability not in self.missing

    def require(self, capability: str) -> None:
        """Refuse, with a ValueError that says why, one of CAPABILITIES that the engine lacks."""
        what = CAPABILITIES[capability]
        if capability in self.missing:
            raise ValueError(f"{what} {self.missing[capability]}")

    @property
    @abc.abstractmethod
    def products(self) -> Any:
        """Conditioned cross-products of the data: their `layout`, conditioning constants and
        `scale`, at least.
        """

    @property
    def moments(self) -> Any:
        """The products as `Moments`, for functions that need them whole."""
        self.require("moments")
        return self.products

    @abc.abstractmethod
    def start(self) -> np.ndarray:
        """Moment estimates of lme4's theta (d,)."""

    @abc.abstractmethod
    def deviance(self, theta: Any, reml: bool) -> Any:
        """-2 log L_REML or -2 log L at theta (d,): a number for a NumPy array, traceable for a
        JAX array.
        """

    @abc.abstractmethod
    def estimate(self, reml: bool, theta0: np.ndarray | None) -> Estimate:
        """The optimum, searched from theta0 (d,) or from moment estimates."""

    @abc.abstractmethod
    def modes(self, e: Estimate) -> list[np.ndarray]:
        """Conditional modes (m, k) by factor; m may be padded."""

    @abc.abstractmethod
    def mode_covariances(self, e: Estimate) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Conditional covariances over sigma^2 (m, k, k) by factor, and the errors (m, k) of
        their diagonals.
        """

    @abc.abstractmethod
    def curvature(self, e: Estimate, reml: bool) -> Curvature:
        """Second-order facts at an estimate."""

    @abc.abstractmethod
    def hessian(self, e: Estimate, reml: bool) -> np.ndarray:
        """Hessian (d, d) of the profiled deviance, less priors, in conditioned parameters."""

    def noise_of_difference(self, e: Estimate, other: Engine, theirs: Estimate) -> float:
        """Standard error of the difference of two deviances, where random probes make one
        uncertain.
        """
        return float(np.hypot(e.noise, theirs.noise))

    def remarks(self, e: Estimate) -> list[str]:
        """What a summary must say about the numbers of this engine."""
        return []
