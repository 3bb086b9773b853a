"""What tests of residuals, influence and predictions share: lme4's numbers, and fits with their
V by definition.
"""

import json
from functools import cache

import numpy as np
import pandas as pd
from helpers.cases import REFERENCE
from helpers.fits import quiet_fit

import interlace_jax as interlace


@cache
def reference():
    """lme4's numbers; influence.R made them."""
    return json.loads((REFERENCE / "influence.json").read_text())


@cache
def structured(which):
    """A fit with a covariance structure within or across levels, its V by the definitions, and
    Cov(Z b) of all rows.
    """
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {"g": np.repeat([f"g{i}" for i in range(9)], 4), "t": np.tile(np.arange(4.0), 9)}
    )
    frame["y"] = rng.normal(size=36) + np.repeat(rng.normal(size=9), 4) * (1 + frame["t"])
    if which == "within":
        fit = quiet_fit("y ~ t + (1 + t | g)", frame, cov={"g": interlace.CompoundSymmetry()})
        K = np.eye(9)
    else:
        K = 0.7 ** np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
        fit = quiet_fit("y ~ t + (1 + t | g)", frame, cov={"g": interlace.Known(K)})
    f = fit.model.design.factors[0]
    random = f.Z @ fit.covariances["g"].to_numpy() / fit.scale @ f.Z.T * K[np.ix_(f.codes, f.codes)]
    return fit, random + np.eye(36), random
