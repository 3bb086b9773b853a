"""Estimates that several tests read."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import arrays, oracle
from helpers.estimates import stacked

from interlace_jax.numerics.estimation import estimate
from interlace_jax.runtime import calls

_many = arrays.quick_jit(jax.vmap(estimate.estimate, in_axes=(0, None)))


@pytest.fixture(scope="module")
def slope():
    return oracle.random_design(0, "slope")


@pytest.fixture(scope="module")
def singular(slope):
    """Sixteen responses with a true correlation of 1 and much noise: about half of the fits are
    on the boundary.
    """
    rng = np.random.default_rng(5)
    b = rng.normal(size=(16, 8)) * 0.6
    f = slope.factors[0]
    y = b[:, f.codes] * (f.Z @ [1.0, 0.4]) + rng.normal(size=(16, 60))
    problems = [replace(slope, y=y[i]) for i in range(16)]
    return problems, calls.run(_many, stacked(problems), True)
