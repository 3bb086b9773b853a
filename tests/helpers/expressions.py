"""Columns that formulas make."""

from functools import cache

import numpy as np
import pandas as pd

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse

N = 24


@cache
def frame():
    r = np.random.default_rng(4)
    g = np.repeat(np.arange(6), 4)
    return pd.DataFrame(
        {
            "y": r.normal(size=N),
            "g": g,
            "x": r.uniform(1.0, 2.0, N),
            "k": np.tile([1, 2, 3, 4], 6),
            "big": r.integers(2**40, 2**41, N),
            "b": np.tile([True, False, True, True, False, False], 4),
            "f": np.tile(["p", "q", "r"], 8),
        }
    )


def columns(text, frame, **options):
    """The fixed columns but the intercept."""
    design = build(parse(f"y ~ {text} + (1 | g)"), frame, **options)
    return design.X[:, 1:]
