"""Six responses of one small design with slopes, fitted once: some with missing values, one
without variances.
"""

from functools import cache

import numpy as np
import pandas as pd
from helpers.fits import quiet_fit

import interlace_jax as interlace

FORMULA = "dose * x + (1 + x | subject)"
LANES = ["whole", "other", "holes", "more holes", "flat", "constant"]


@cache
def frame() -> pd.DataFrame:
    """Twelve subjects, ten rows each; `dose` has three levels, `x` varies within subjects."""
    rng = np.random.default_rng(5)
    subject = np.repeat(np.arange(12), 10)
    dose = np.tile(np.array(["none", "low", "high"], object), 40)
    return pd.DataFrame({"subject": subject, "dose": dose, "x": rng.normal(size=120)})


@cache
def responses() -> pd.DataFrame:
    """Slopes and intercepts vary, but in `flat`; `constant` cannot be fitted."""
    rng, data = np.random.default_rng(6), frame()
    slopes = 0.7 * rng.normal(size=(12, 6))[data["subject"]] * data[["x"]].to_numpy()
    Y = rng.normal(size=(12, 6))[data["subject"]] + slopes + rng.normal(size=(120, 6))
    Y += 0.8 * (data["dose"] == "high").to_numpy()[:, None]
    Y[:, 4] = np.random.default_rng(8).normal(size=120)
    Y[:, 5] = 1.0
    Y[rng.random(120) < 0.15, 2] = np.nan
    Y[rng.random(120) < 0.25, 3] = np.nan
    return pd.DataFrame(Y, columns=LANES)


@cache
def many(
    right: str = FORMULA, method: str = "REML", df_method: str = "satterthwaite"
) -> interlace.Many:
    return interlace.fit_many(
        "~ " + right, frame(), responses=responses(), method=method, df_method=df_method
    )


@cache
def single(lane: str, right: str = FORMULA, method: str = "REML") -> interlace.Fit:
    return quiet_fit("y ~ " + right, frame().assign(y=responses()[lane]), method=method)


@cache
def groups() -> pd.DataFrame:
    """Three groups of the long frame; the second knows two doses only."""
    data = frame()
    parts = [data.assign(y=responses()[lane], lane=lane) for lane in ("whole", "other", "flat")]
    parts[1] = parts[1][parts[1]["dose"] != "low"]
    return pd.concat(parts, ignore_index=True)


@cache
def by_group() -> interlace.Many:
    return interlace.fit_many("y ~ dose + x + (1 | subject)", groups(), by="lane")


@cache
def of_group(lane: str) -> interlace.Fit:
    return quiet_fit("y ~ dose + x + (1 | subject)", groups().query("lane == @lane"))
