"""Estimates of small models."""

import jax
import numpy as np
from helpers import arrays

from interlace_jax.numerics.estimation import estimate
from interlace_jax.runtime import calls

_estimate = arrays.quick_jit(estimate.estimate)


def solve(m, reml=True, t0=None):
    return calls.run(_estimate, m, reml, t0)


def stacked(problems):
    return jax.tree.map(lambda *parts: np.stack(parts), *[arrays.condition(p) for p in problems])
