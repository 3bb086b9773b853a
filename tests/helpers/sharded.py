"""Fits by the iterative core as one process of a job: `python sharded.py RESULT PORT PROCESSES
INDEX`, PORT 0 for one.

Writes JSON: an object for each model, a gradient, and what is said where the processes have
different data.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import interlace_jax as interlace

MODELS = {"y ~ x + (1 | g) + (1 | h)": None, "y ~ x + (1 + x | g) + (1 | h)": "w"}


def data() -> pd.DataFrame:
    """Rows of two crossed factors, no pair of levels twice, with weights."""
    rng = np.random.default_rng(4)
    pairs = np.sort(rng.choice(400 * 120, 6000, replace=False))
    g, h, x, w = pairs // 120, pairs % 120, rng.normal(size=6000), rng.uniform(0.5, 2.0, 6000)
    b = 0.5 * rng.normal(size=(400, 2))
    y = (
        1.0
        + 0.2 * x
        + b[g, 0]
        + b[g, 1] * x
        + 0.5 * rng.normal(size=120)[h]
        + rng.normal(size=6000) / np.sqrt(w)
    )
    return pd.DataFrame(dict(g=g, h=h, x=x, w=w, y=y))


def numbers(formula: str, weights: str | None) -> dict[str, Any]:
    """What a fit found, and of every list of cells the bytes, in all and on each device of this
    process.
    """
    fit = interlace.fit(formula, data(), weights=weights, core="iterative")
    lists = [a for a in jax.tree.leaves(fit.model.engine.products.cells) if a.ndim]
    return dict(
        deviance=fit.deviance,
        theta=fit.theta.tolist(),
        beta=fit.fe_params.tolist(),
        df=fit.fe_df.tolist(),
        bytes=[[a.nbytes, *(shard.data.nbytes for shard in a.addressable_shards)] for a in lists],
    )


def slope() -> list[float]:
    """The gradient of a log-likelihood in a program of the user's, where the data are first
    looked at.
    """
    model = interlace.compile(next(iter(MODELS)), data(), core="iterative")
    with jax.enable_x64(True):
        return jax.jit(jax.grad(model.loglik))(jnp.array([0.5, 0.4])).tolist()


def refusal() -> str:
    """What a process is told whose data are not those of the others."""
    other = data().assign(y=lambda d: d["y"] * (1 + jax.process_index()))
    try:
        interlace.fit("y ~ x + (1 | g) + (1 | h)", other, core="iterative")
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    result, port, count, index = sys.argv[1:]
    if port != "0":
        jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index))
    fits, refused = [numbers(*model) for model in MODELS.items()], refusal() if port != "0" else ""
    found = dict(fits=fits, slope=slope(), refusal=refused)
    with open(result, "w") as file:
        json.dump(found, file)
