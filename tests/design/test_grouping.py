"""Levels: sorted, crossed whatever their number, and found again in new data or told apart in
words.
"""

import datetime as dt
import itertools

import numpy as np
import pandas as pd
import pytest
from helpers.designs import design
from numpy.testing import assert_array_equal

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.design.new_data import new_data

N = 24
DAYS = pd.date_range("2024-01-01", periods=4)
AT = np.repeat([0, 3, 2, 1], 6)


def grouped(g, **more):
    r = np.random.default_rng(7)
    return pd.DataFrame({"y": r.normal(size=N), "x": r.normal(size=N), "g": g} | more)


def codes(fitted, new):
    design = build(parse("y ~ x + (1 | g)"), grouped(fitted))
    return new_data(design, grouped(new)).codes[0]


def zoned(name):
    return DAYS.tz_localize("UTC").tz_convert(name)


SAME = {
    "times of two zones": (zoned("UTC")[AT], zoned("America/New_York")[AT]),
    "dates and times": ([d.date() for d in DAYS[AT]], DAYS[AT]),
    "times and dates": (DAYS[AT], [d.date() for d in DAYS[AT]]),
    "times of two units": (DAYS[AT].as_unit("s"), DAYS[AT].as_unit("ns")),
    "times and objects": (DAYS[AT], pd.Series(DAYS[AT].to_pydatetime(), dtype=object)),
    "whole numbers and floats": (AT, AT * 1.0),
    "floats and unsigned": (AT * 1.0, AT.astype(np.uint64)),
    "text and categories": (
        np.array(list("abcd"))[AT],
        pd.Categorical(np.array(list("abcd"))[AT], list("dcbaz")),
    ),
    "numbers and categories": (AT, pd.Categorical(AT)),
    "logicals": (AT > 1, pd.Series(AT > 1).astype("boolean")),
    "periods": (DAYS.to_period("D")[AT], pd.Series(DAYS.to_period("D")[AT])),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME.keys())
def test_levels_that_are_the_same_are_found_whatever_their_type(pair):
    fitted, new = pair
    expected = build(parse("y ~ x + (1 | g)"), grouped(fitted)).factors[0].codes
    assert_array_equal(codes(fitted, new), expected)
    assert expected.min() == 0


OTHER = {
    "time without a zone for one with": (zoned("UTC")[AT], DAYS[AT]),
    "time with a zone for one without": (DAYS[AT], zoned("UTC")[AT]),
    "text for time": (DAYS[AT], DAYS.strftime("%Y-%m-%d")[AT]),
    "time for text": (DAYS.strftime("%Y-%m-%d")[AT], DAYS[AT]),
    "date for time with a zone": (zoned("UTC")[AT], [d.date() for d in DAYS[AT]]),
    "text for number": (AT, AT.astype(str)),
    "padded text for number": (AT, [f"{v:03d}" for v in AT]),
    "number for text": (AT.astype(str), AT),
    "number for logical": (AT > 1, (AT > 1) + 5),
    "logical for text": ((AT > 1).astype(str), AT > 1),
    "period for time": (DAYS[AT], DAYS.to_period("D")[AT]),
    "bytes for text": (
        np.array(list("abcd"))[AT],
        np.array(list("abcd")).astype("S")[AT].astype(object),
    ),
}


@pytest.mark.parametrize("pair", OTHER.values(), ids=OTHER.keys())
def test_levels_of_another_type_are_refused_and_not_taken_for_new_ones(pair):
    with pytest.raises(
        ValueError, match="'g' has .* in the new data, but .* in the fit; give both the same type"
    ):
        codes(*pair)


def test_new_levels_of_the_same_type_are_unseen():
    assert_array_equal(codes(AT, AT + 10), np.full(N, -1))
    assert_array_equal(codes(DAYS[AT], DAYS[AT] + dt.timedelta(50)), np.full(N, -1))


def test_more_combinations_than_64_bits_are_told_apart():
    """Twelve variables of 50 levels each: 50^12 > 2^63.

    Rows in pairs, so that there are fewer levels than rows.
    """
    r = np.random.default_rng(8)
    pairs = {f"v{i}": np.repeat(r.permutation(50), 2) for i in range(12)}
    data = pd.DataFrame(pairs | {"y": r.normal(size=100), "x": r.normal(size=100)})
    group = ":".join(pairs)
    design = build(parse(f"y ~ x + (1 | {group})"), data)
    (factor,) = design.factors
    assert len(factor.levels) == 50
    assert_array_equal(factor.codes[::2], factor.codes[1::2])
    first = data.drop_duplicates("v0").sort_values("v0")
    assert list(factor.levels) == [":".join(map(str, row)) for row in first[list(pairs)].to_numpy()]
    assert_array_equal(new_data(design, data[::-1]).codes[0], factor.codes[::-1])
    assert_array_equal(
        new_data(design, data.assign(v11=data.v11[::-1].to_numpy())).codes[0] >= 0, False
    )


def test_keys_are_positions_in_the_full_crossing():
    data = grouped(np.repeat(list("abcd"), 6), h=np.tile([3, 1, 2], 8))
    (factor,) = build(parse("y ~ x + (1 | h:g)"), data).factors
    assert list(factor.levels[:2]) == ["1:a", "1:b"]
    assert_array_equal(factor.keys, np.arange(12))


def test_terms_on_one_factor_join_with_the_intercept_first(frame):
    (factor,) = design("y ~ 1 + (0 + z | g) + (1 + x | g)", frame).factors
    assert (factor.columns, factor.sizes) == (("(Intercept)", "x", "z"), (2, 1))
    np.testing.assert_array_equal(factor.Z, np.column_stack([np.ones(24), frame.x, frame.z]))


def test_double_bar_makes_every_column_independent(frame):
    (factor,) = design("y ~ 1 + (x + f || g)", frame).factors
    assert (factor.columns, factor.sizes) == (
        ("(Intercept)", "x", "f[T.b]", "f[T.c]"),
        (1, 1, 1, 1),
    )


@pytest.mark.parametrize(
    "slopes, columns",
    [("0 + f", ("f[a]", "f[b]", "f[c]")), ("f", ("(Intercept)", "f[T.b]", "f[T.c]"))],
)
def test_categorical_slopes(frame, slopes, columns):
    (factor,) = design(f"y ~ 1 + ({slopes} | g)", frame).factors
    assert (factor.columns, factor.sizes) == (columns, (3,))


def test_factors_are_ordered_by_levels_then_as_written(frame):
    data = frame.assign(k=frame.f)
    names = [factor.name for factor in design("y ~ (1|h) + (1|k) + (1|f) + (1|g)", data).factors]
    assert names == ["g", "h", "k", "f"]


def test_levels_are_sorted_and_keep_their_type(frame):
    by_name = {factor.name: factor for factor in design("y ~ (1|g) + (1|h)", frame).factors}
    assert list(by_name["g"].levels) == ["s1", "s2", "s3", "s4"]
    assert by_name["h"].levels.dtype == np.int64 and list(by_name["h"].levels) == [2, 7, 10]
    for name, factor in by_name.items():
        assert factor.codes.dtype == np.int32
        assert list(factor.levels[factor.codes]) == list(frame[name])


def test_nested_factors_carry_lme4_names_and_labels(frame):
    inner, outer = design("y ~ (1 | g/h)", frame).factors
    assert (inner.name, outer.name) == ("h:g", "g")
    assert list(inner.levels) == [
        f"{h}:{g}" for h, g in itertools.product([2, 7, 10], ["s1", "s2", "s3", "s4"])
    ]
    assert list(inner.levels[inner.codes]) == [
        f"{h}:{g}" for h, g in zip(frame.h, frame.g, strict=True)
    ]


def test_explicit_interaction_keeps_the_written_order(frame):
    (factor,) = design("y ~ (1 | g:h)", frame).factors
    assert factor.name == "g:h" and list(factor.levels[:4]) == ["s1:2", "s1:7", "s1:10", "s2:2"]


@pytest.mark.parametrize(
    "labels, levels",
    [
        (
            pd.Categorical(list("bacb") * 6, categories=["c", "b", "unused", "a"], ordered=True),
            ["a", "b", "c"],
        ),
        ([True, False] * 12, [False, True]),
        ([2.0, 1.5] * 12, [1.5, 2.0]),
        (["\u00e9", "z"] * 12, ["z", "\u00e9"]),
        ([3, "a", 1, "b"] * 6, [1, 3, "a", "b"]),
        (pd.array([3, 1] * 12, dtype="Int64"), [1, 3]),
        (pd.array(["q", "p"] * 12, dtype="string"), ["p", "q"]),
    ],
)
def test_labels_of_any_type_are_sorted(frame, labels, levels):
    (factor,) = design("y ~ (1|k)", frame.assign(k=labels)).factors
    assert list(factor.levels) == levels
    assert list(factor.levels[factor.codes]) == list(labels)
