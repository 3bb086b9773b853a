"""The grid of means: which combinations it has, and how much each counts."""

import numpy as np
import pytest
from helpers.cells import an_empty_cell, drugs
from helpers.fits import quiet_fit

from interlace_jax.inference.reference_grid import ReferenceGrid, grid_values
from interlace_jax.inference.terms import variables


def grid(formula, data, at):
    fit = quiet_fit(formula, data)
    frame = variables(fit.design, fit.model.data)
    return ReferenceGrid(fit.design, frame, grid_values(fit.design, frame, at))


@pytest.fixture(scope="module")
def nested():
    return grid("y ~ route + drug + x + (1 | g)", drugs(), {})


def test_levels_are_combined_with_those_that_they_are_nested_in_only(nested):
    assert list(map(tuple, nested.table[["route", "drug"]].to_numpy())) == [
        ("inj", "a"), ("inj", "b"), ("oral", "c"), ("oral", "d"), ("oral", "e"),
    ]  # fmt: skip


def test_equal_weights_are_equal_within_nests(nested):
    np.testing.assert_allclose(nested._equal(["route"]), [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])


def test_frequencies_are_those_of_the_rows(nested):
    assert nested._frequencies(["route"], "cells").tolist() == [22, 18, 15, 25, 20]
    assert nested._frequencies(["drug"], "proportional").tolist() == [40, 40, 60, 60, 60]


def test_a_crossed_factor_with_an_empty_cell_is_not_nested():
    assert len(grid("y ~ e * h + (1 | g)", an_empty_cell(), {}).table) == 8


def test_levels_asked_for_are_the_only_ones_and_count_once():
    found = grid("y ~ e * h + (1 | g)", an_empty_cell(), {"e": ["c", "a", "c"]})
    assert list(found.table["e"]) == ["c", "c", "a", "a"]
    assert found._counts(["e"]).tolist() == [21] * 4
