"""Arguments: what is accepted, and what a refusal says."""

import numpy as np
import pandas as pd
import pytest

from interlace_jax.support.arguments import (
    check_level,
    check_mapping,
    listed,
    numbers,
    one_of,
    texts,
    whole_number,
)


def test_one_text_or_several_are_a_tuple():
    assert texts("groups", None, "g") == ()
    assert texts("groups", "g", "g") == ("g",)
    assert texts("groups", ["g", "h"], "g") == ("g", "h")
    assert texts("groups", (name for name in "gh"), "g") == ("g", "h")


@pytest.mark.parametrize("value", [3, ["g", 3], b"g", object()])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(TypeError, match='groups must be text such as "g"'):
        texts("groups", value, "g")


@pytest.mark.parametrize("values", [pd.Series(["a", "b"]), pd.Series([1, 2]), pd.Index(["a"])])
def test_a_column_in_place_of_its_name_is_refused(values):
    with pytest.raises(TypeError, match="the name of a column and not its values"):
        texts("groups", values, "g")


@pytest.mark.parametrize(
    "value, fine", [(1, True), (np.int64(4), True), (0, False), (2.0, False), ("3", False)]
)
def test_whole_numbers_have_a_least(value, fine):
    if fine:
        whole_number("n", value, 1)
        return
    with pytest.raises(ValueError, match="n must be a whole number, 1 or more"):
        whole_number("n", value, 1)


@pytest.mark.parametrize("level", [0, 1, -0.1, 95, "0.95", None])
def test_probabilities_lie_between_0_and_1(level):
    with pytest.raises(ValueError, match="between 0 and 1, as in 0.95"):
        check_level(level)
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1, as in 0.05"):
        check_level(level, "alpha")


def test_one_of_several_words_and_mappings_are_checked():
    one_of("method", "ML", ("REML", "ML"))
    with pytest.raises(ValueError, match="method must be 'REML' or 'ML', not 'ml'"):
        one_of("method", "ml", ("REML", "ML"))
    check_mapping("cov", None, "{}")
    with pytest.raises(TypeError, match="cov must be a mapping such as {}, not 3"):
        check_mapping("cov", 3, "{}")


def test_numbers_are_floats_and_masked_ones_missing():
    np.testing.assert_array_equal(numbers("y", [1, 2]), [1.0, 2.0])
    masked = numbers("y", np.ma.array([1, 2], mask=[False, True]))
    np.testing.assert_array_equal(masked, [1.0, np.nan])
    with pytest.raises(ValueError, match="y must be numbers"):
        numbers("y", ["a"])


def test_long_lists_of_names_are_cut():
    assert listed(["a", np.str_("b"), np.int64(3)]) == "'a', 'b', 3"
    assert listed(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (12 in all)"
