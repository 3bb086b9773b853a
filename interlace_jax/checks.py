"""Whether a fit can be believed."""

from __future__ import annotations

import numpy as np


def weighted_residuals(fit):
    """Residuals times the roots of the prior weights (n,): of equal variance."""
    w = fit.model.design.weights
    return fit.resid.to_numpy() * (1.0 if w is None else np.sqrt(w))


def standardised_effects(fit):
    """Modes over the SD that they have under the model, which is less than that of the effects themselves."""
    found = {}
    for f, b, given in zip(fit.model.design.factors, fit.mode_arrays, fit.mode_covariances, strict=True):
        for j, column in enumerate(f.columns):
            prior = fit.covariances[f.name].iloc[j, j]
            explained = prior - given[:, j, j]
            if prior > 0 and explained.min() > 1e-6 * prior:
                found[f"{f.name}: {column}"] = b[:, j] / np.sqrt(explained)
    return found
