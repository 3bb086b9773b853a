"""Fits that plots show."""

from functools import cache

import numpy as np
import pandas as pd
from helpers.fits import fitted, quiet_fit, sleepstudy

import interlace_jax as interlace

SLEEP = "sleepstudy_slope_REML"


@cache
def many_groups() -> interlace.Fit:
    """More groups than names can be shown for, a random intercept, a weight and an offset."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(70), 4), np.tile(np.arange(4.0), 70)
    y = x + rng.standard_normal(70)[g] + rng.standard_normal(280)
    frame = pd.DataFrame(
        {
            "y": y,
            "x": x,
            "kind": np.where(g % 2, "odd", "even"),
            "g": g,
            "w": 1.0 + g % 3,
            "o": 0.1 * g,
        }
    )
    return quiet_fit("y ~ x * kind + (1 | g)", frame, weights="w", offset="o")


@cache
def intercepts() -> interlace.Fit:
    return quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy())


@cache
def crossed() -> interlace.Fit:
    return quiet_fit(
        "rt ~ condition + (1 + condition | subject) + (1 | item)", interlace.load_dataset("crossed")
    )


@cache
def serial() -> interlace.Fit:
    return quiet_fit(
        "Reaction ~ Days + (1 | Subject)", sleepstudy(), residual="ar1h(Days | Subject)"
    )


@cache
def many() -> interlace.Many:
    """Twelve models; the first four have an effect."""
    y = fitted(SLEEP).simulate(12, seed=1).to_numpy() - 10.467 * sleepstudy()[["Days"]].to_numpy()
    responses = pd.DataFrame(
        y + np.where(np.arange(12) < 4, 30.0, 0.0) * sleepstudy()[["Days"]].to_numpy()
    )
    responses = responses.rename(columns=lambda i: f"cell {i}")
    return interlace.fit_many(
        "~ Days + (1 + Days | Subject)", sleepstudy(), responses=responses, progress=False
    )


@cache
def influence_table(rows: int) -> pd.DataFrame:
    values = np.random.default_rng(1).uniform(0.0, 0.1, (rows, 2))
    values[3] = 5.0
    names = pd.Index([f"g{i}" for i in range(rows)], name="Subject")
    return pd.DataFrame(values, columns=["cooksd", "covratio"], index=names).assign(
        Days=values[:, 0] - 0.05
    )


def means(specs, by=None, **arguments):
    return interlace.emmeans(many_groups(), specs, by, **arguments)


PLACES = pd.DataFrame(
    {"time (ms)": np.tile([0, 20, 40, 60], 3), "electrode": np.repeat(["Fz", "Cz", "Pz"], 4)}
)


@cache
def profiled() -> pd.DataFrame:
    return fitted(SLEEP).profile()
