"""Crossed factors of the fixed part whose cells are unequal, or empty."""

import numpy as np
import pandas as pd
from helpers.cases import load_case

UNBALANCED = "angle ~ recipe * temp + recipe * x + (1 | g)"


def unbalanced():
    """Seven tenths of the cakes, with a covariate."""
    frame = load_case("cake_REML").frame
    i = np.arange(len(frame))
    return frame.assign(x=i * 31 % 17 / 4, g=frame.recipe + frame.replicate)[i * 7919 % 10 < 7]


def an_empty_cell(levels="abcd"):
    """Two crossed factors, of whose cells (b, q) has no rows."""
    i = np.arange(84)
    e, h, g, x = (
        np.array(list("abcd"))[i % 4],
        np.array(list("pq"))[i // 4 % 2],
        i % 7,
        i * 37 % 23 / 10,
    )
    y = np.sin(1.3 * i) + 0.6 * (e == "c") + 0.4 * (h == "q") * (e == "a") + np.cos(2 * g) + 0.2 * x
    frame = pd.DataFrame(dict(e=pd.Categorical(e, list(levels)), h=h, g=g, x=x, y=y))
    return frame[(e != "b") | (h != "q")]


def drugs():
    """Five drugs, each given by one route."""
    rng = np.random.default_rng(3)
    route = np.repeat(["inj", "oral"], [40, 60])
    drug = np.repeat(list("abcde"), [22, 18, 15, 25, 20])
    frame = pd.DataFrame(
        dict(route=route, drug=drug, g=rng.integers(0, 8, 100), x=rng.normal(size=100))
    )
    y = rng.normal(size=100) + (drug == "c") + 0.5 * frame.x
    return frame.assign(y=y + rng.normal(0, 0.5, 8)[frame.g])
