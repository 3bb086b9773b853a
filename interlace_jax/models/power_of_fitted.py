"""SDs as a power of the fitted values: nlme's varPower(), a fixed point and no maximum of one
likelihood.

The SDs are held at |fitted|^power of the last fitted values, random effects included, the model is
fitted, and again, until the fitted values stay (Pinheiro & Bates 2000, section 5.2).
"""

from __future__ import annotations

import warnings

import numpy as np

from ..design.selection import with_sizes
from ..numerics.estimation.estimate import Estimate
from ..support.warnings import ConvergenceWarning
from .compiled import CompiledModel
from .linear_predictor import fitted_values

ROUNDS = 50
CLOSE = 1e-8  # of log |fitted|, by which a round may change it


def settled(
    model: CompiledModel, reml: bool, start: np.ndarray | None
) -> tuple[CompiledModel, Estimate]:
    """A model and its estimate: those of the fixed point where SDs are a power of fitted values."""
    found = model.engine.estimate(reml, start)
    if not model.design.is_power_of_fitted:
        return model, found
    for _ in range(ROUNDS):
        before = model.design.residual.by_row.slopes
        model = model.with_design(with_sizes(model.design, _fitted(model, found)))
        found = model.engine.estimate(reml, found.theta)
        if np.abs(model.design.residual.by_row.slopes - before).max() < CLOSE:
            return model, found
    warnings.warn(
        f"fitted values and their variances have not settled in {ROUNDS} rounds",
        ConvergenceWarning,
        stacklevel=4,
    )
    return model, found


def _fitted(model: CompiledModel, e: Estimate) -> np.ndarray:
    modes = zip(model.engine.modes(e), model.design.factors, strict=True)
    return fitted_values(model.design, e.beta, [b[: len(f.levels)] for b, f in modes])
