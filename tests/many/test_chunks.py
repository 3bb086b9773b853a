"""Chunks of models: who shares names, and what a set of rows does not determine."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.many.chunks import Chunk, alike, filled, theta_names_of, unfit_rows


def _design(dose=("none", "low"), formula="~ dose + (1 + x | g)"):
    g = np.repeat(np.arange(6), 4)
    frame = pd.DataFrame(
        {"g": g, "x": np.arange(24.0) ** 1.5 % 7, "dose": np.resize(np.array(dose, object), 24)}
    )
    return build(parse(formula, None, None), frame, response=False)


def test_models_are_alike_whose_parameters_have_the_same_names():
    designs = [
        _design(),
        _design(("none", "zero")),
        _design(),
        _design(formula="~ dose + (1 + x || g)"),
    ]
    found = alike([4, 5, 7, 9], designs)
    assert [places.tolist() for places, _ in found] == [[4, 7], [5], [9]]
    assert [design for _, design in found] == [designs[0], designs[1], designs[3]]


def test_models_of_one_design_are_all_alike():
    chunk = Chunk(np.array([3, 8, 9]), [_design()], None, np.ones(3))
    ((lanes, design),) = chunk.alike()
    assert_array_equal(lanes, [0, 1, 2])
    assert theta_names_of(design) == ["g.(Intercept)", "g.x.(Intercept)", "g.x"]


def test_lanes_are_filled_up_with_the_first():
    assert_array_equal(filled(np.array([5, 2]), 4), [5, 2, 5, 5])


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (np.arange(24) % 2 == 0, "the fixed effects are rank deficient in the rows that are left"),
        (np.arange(24) < 4, "g has 1 level for 4 rows that are left"),
        (np.arange(24) % 4 < 2, "g has 6 levels for 12 rows that are left"),
    ],
)
def test_rows_that_do_not_determine_the_model_say_why(keep, reason):
    assert unfit_rows(_design(), keep, "that are left").startswith(reason)
    assert unfit_rows(_design(), np.ones(24, bool)) is None
