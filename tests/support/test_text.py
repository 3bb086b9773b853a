"""Numbers as text: digits that are significant, columns that line up, lines that fit a terminal."""

import pytest

from interlace_jax.support.text import (
    LINE,
    _decimals,
    _fixed,
    _p_value,
    _significant,
    _stars,
    free_name,
    padded,
    width,
    wrapped,
)


@pytest.mark.parametrize(
    "values, shown",
    [
        ([1.0, 12.3456], ["1.000", "12.346"]),
        ([0.001234, 100.0], ["0.001234", "100.000000"]),
        ([0.0, 2.5], ["0.000", "2.500"]),
        ([0.0], ["0.000"]),
        ([-0.0, 1.0], ["0.000", "1.000"]),
        ([1e-9, 1e9], ["1.0000e-09", "1.0000e+09"]),
        ([float("nan"), float("inf"), -float("inf"), 1.0], ["NaN", "Inf", "-Inf", "1.000"]),
        ([], []),
    ],
)
def test_columns_have_four_significant_digits_in_their_smallest_number(values, shown):
    assert _significant(values) == shown


def test_decimals_are_those_of_the_smallest_number():
    assert [_decimals(v) for v in ([123.4], [0.5, 7.0], [0.04], [0.0])] == [1, 4, 5, 3]
    assert _fixed([1.25, -3.0], 1) == ["1.2", "-3.0"]


@pytest.mark.parametrize(
    "p, shown, stars",
    [
        (1e-20, "<2e-16", "***"),
        (0.00012, "1.20e-04", "***"),
        (0.001, "0.0010", "**"),
        (0.0123, "0.0123", "*"),
        (0.05, "0.0500", "."),
        (0.1, "0.1000", ""),
        (float("nan"), "NaN", ""),
    ],
)
def test_p_values_have_stars_below_the_bounds_of_r(p, shown, stars):
    assert (_p_value(p), _stars(p)) == (shown, stars)


def test_lines_are_wrapped_between_words():
    lines = wrapped("word " * 40 + "x" * 100 + "\nsecond").split("\n")
    assert all(len(line) <= LINE or "x" * 100 in line for line in lines)
    assert lines[-1] == "second" and lines[1].startswith("  word")


def test_cells_are_filled_to_the_width_that_a_terminal_shows():
    assert [padded("ab", 5, side) for side in "lrc"] == ["ab   ", "   ab", " ab  "]
    assert width("e\u0301") == 1 and width("\u5e74") == 2
    assert padded("\u5e74", 4, "l") == "\u5e74  "


def test_a_name_that_is_taken_gets_underscores():
    assert free_name("t", ["t", "t_"]) == "t__"
    assert free_name("t", []) == "t"
