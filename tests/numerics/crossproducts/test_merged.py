"""Which levels make a class, and when classes are made."""

import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.crossproducts import merged


@pytest.fixture
def m():
    return arrays.condition(oracle.random_design(0, "crossed"))


def test_levels_of_equally_many_rows_make_a_class(m):
    codes = oracle.random_design(0, "crossed").factors[0].codes
    sizes, levels = np.unique(np.bincount(codes), return_counts=True)
    made = merged.by_class(m).classes
    assert_allclose(made.levels[: len(levels)], levels)
    # conditioned columns have the sum of squares n
    assert_allclose(made.G[: len(sizes)], sizes * len(codes) / (sizes @ levels), rtol=1e-12)


def test_small_models_keep_their_levels(m):
    assert merged.merged(m) is m


@pytest.mark.parametrize("kind", ["crossed_slopes", "nested", "weights"])
def test_levels_stay_apart_where_they_differ(kind, monkeypatch):
    monkeypatch.setattr(merged, "WIDE", 0)
    m = arrays.condition(oracle.random_design(0, kind))
    assert merged.merged(m) is m
