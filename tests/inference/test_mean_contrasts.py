"""Weights of contrasts, against R's tables of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from interlace_jax.inference.mean_contrasts import (
    contrast_weights,
    interaction_weights,
    level_label,
)

FOUR = [("a",), ("b",), ("c",), ("d",)]


def test_polynomials_are_the_whole_numbers_of_the_tables():
    """emmeans:::poly.emmc(1:4), and of five levels."""
    names, C = contrast_weights("poly", FOUR)
    assert names == ["linear", "quadratic", "cubic"]
    assert_allclose(C, [[-3, -1, 1, 3], [1, -1, -1, 1], [-1, 3, -3, 1]])
    five = contrast_weights("poly", [(i,) for i in range(5)])[1]
    assert_allclose(
        five, [[-2, -1, 0, 1, 2], [2, -1, -2, -1, 2], [-1, 2, 0, -2, 1], [1, -4, 6, -4, 1]]
    )


@pytest.mark.parametrize("method", ["pairwise", "trt.vs.ctrl", "consec", "eff", "poly"])
def test_the_weights_of_a_contrast_cancel(method):
    names, C = contrast_weights(method, FOUR)
    assert_allclose(C.sum(axis=1), 0.0, atol=1e-15)
    assert len(names) == len(C) == np.unique(C, axis=0).shape[0]


def test_consecutive_levels_and_the_mean_of_all():
    assert contrast_weights("consec", FOUR)[0] == ["b - a", "c - b", "d - c"]
    assert_allclose(contrast_weights("eff", FOUR)[1][0], [0.75, -0.25, -0.25, -0.25])


def test_levels_that_read_as_arithmetic_stand_in_parentheses():
    assert [level_label(v) for v in [("a-b",), (-1,), ("a", "b"), ("x/y", "b")]] == [
        "(a-b)",
        "(-1)",
        "a b",
        "(x/y b)",
    ]
    assert contrast_weights("pairwise", [("a-b",), ("c",)])[0] == ["(a-b) - c"]


def test_interactions_are_products():
    names, C = interaction_weights(["pairwise", "poly"], [["p", "q"], [1, 2, 3]])
    assert names == ["p - q : linear", "p - q : quadratic"]
    assert_allclose(C, [[-1, 0, 1, 1, 0, -1], [1, -2, 1, -1, 2, -1]])
