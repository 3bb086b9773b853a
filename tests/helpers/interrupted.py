"""A run of `fit_many` with a checkpoint, for a test to kill: `python interrupted.py FOLDER
RESULT`.
"""

import sys

import numpy as np
import pandas as pd

import interlace_jax as interlace
from interlace_jax.many import chunks

LANES = 24 * 32


def data() -> tuple[pd.DataFrame, np.ndarray]:
    """A design of 48 rows and its responses; one is constant and some have gaps."""
    rng = np.random.default_rng(0)
    g = np.arange(48) % 6
    frame = pd.DataFrame({"g": [f"g{i}" for i in g], "x": rng.normal(size=48)})
    Y = rng.normal(size=(48, LANES)) + rng.normal(size=(6, LANES))[g]
    Y[:, 40] = 1.0
    Y[::7, 100] = np.nan
    return frame, Y


def run(folder: str | None, Y: np.ndarray | None = None) -> interlace.Many:
    """The whole run, in chunks of 32."""
    chunks.MOST_LANES = 32
    frame, responses = data()
    responses = responses if Y is None else Y
    return interlace.fit_many(
        "~ x + (1 | g)", frame, responses=responses, checkpoint=folder, progress=False
    )


if __name__ == "__main__":
    many = run(sys.argv[1])
    many.certificate.join([many.fe_params, many.fe_bse.add_prefix("se_"), many.status]).to_parquet(
        sys.argv[2]
    )
