"""Repeated measures that several tests fit."""

from functools import cache

import numpy as np
import pandas as pd
from helpers.fits import quiet_fit


@cache
def data(seed=0):
    """30 subjects, 4 visits, a tenth missing; variance grows and neighbours correlate."""
    rng = np.random.default_rng(seed)
    n, m = 30, 4
    C = 0.6 ** np.abs(np.subtract.outer(range(m), range(m)))
    E = rng.multivariate_normal(np.zeros(m), C * np.outer([1, 1.3, 1.6, 2], [1, 1.3, 1.6, 2]), n)
    d = pd.DataFrame({"id": np.repeat(np.arange(n), m), "t": np.tile(np.arange(m), n)})
    d["arm"] = np.where(d["id"] % 2, "B", "A")
    d["visit"] = "V" + d["t"].astype(str)
    d["y"] = 3 + 0.4 * d["t"] * (d["arm"] == "B") + E.ravel()
    return d[rng.random(len(d)) < 0.9].sample(frac=1.0, random_state=1).reset_index(drop=True)


@cache
def fit(residual, formula="y ~ arm * visit", **arguments):
    return quiet_fit(formula, data(), residual=residual, **dict(arguments))
