"""Data and fits that tests of checks share."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
from helpers.fits import quiet_fit

import interlace_jax as interlace

M, K = 24, 8  # groups and their rows: one shape for all fits below


G, X = np.repeat(np.arange(M), K), np.tile(np.arange(float(K)), M)


def frame(seed, **changed):
    """Data of the model, or with a change: of `b` (M,), `e` (M K,), `z` (M K,), `add` (M K,),
    `g` (M K,).
    """
    rng = np.random.default_rng(seed)
    z, b, e = rng.standard_normal(M * K), rng.standard_normal(M), rng.standard_normal(M * K)
    part = dict(z=z, b=b, e=e, add=0.0, g=G) | {
        k: v(rng) if callable(v) else v for k, v in changed.items()
    }
    y = 1.0 + 0.3 * X + 0.2 * part["z"] + part["b"][part["g"]] + part["e"] + part["add"]
    return pd.DataFrame({"y": y, "x": X, "z": part["z"], "g": part["g"]})


@cache
def weighted() -> interlace.Fit:
    """Two crossed factors, weights, an offset, a factor of three levels."""
    rng = np.random.default_rng(1)
    data = frame(1).assign(
        h=rng.integers(0, 6, M * K), w=rng.uniform(0.5, 2.0, M * K), o=rng.standard_normal(M * K)
    )
    data["kind"] = rng.choice(["a", "b", "c"], M * K)
    data["y"] += rng.standard_normal(6)[data["h"]] + data["o"]
    return quiet_fit("y ~ x + z + kind + (1 + x | g) + (1 | h)", data, weights="w", offset="o")


def dense_covariance(fit):
    """V (n, n) of the response."""
    design = fit.model.design
    V = np.eye(len(design.y)) if design.weights is None else np.diag(1.0 / design.weights)
    for f, Lam in zip(design.factors, fit.Lambdas, strict=True):
        indicator = np.eye(len(f.levels))[f.codes]
        Z = np.einsum("nm,nk->nmk", indicator, f.Z @ Lam).reshape(len(V), -1)
        V = V + Z @ Z.T
    return fit.scale * V


def unfitted(formula, data):
    """What the report on groups needs of a fit."""
    model = interlace.compile(formula, data)
    return SimpleNamespace(model=model, design=model.design)
