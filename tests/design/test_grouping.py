"""Levels: sorted, crossed whatever their number, and found again in new data or told apart in words."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.design.new_data import new_data

N = 24
DAYS = pd.date_range("2024-01-01", periods=4)
AT = np.repeat([0, 3, 2, 1], 6)


def frame(g, **more):
    r = np.random.default_rng(7)
    return pd.DataFrame({"y": r.normal(size=N), "x": r.normal(size=N), "g": g} | more)


def codes(fitted, new):
    design = build(parse("y ~ x + (1 | g)"), frame(fitted))
    return new_data(design, frame(new)).codes[0]


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
    "text and categories": (np.array(list("abcd"))[AT], pd.Categorical(np.array(list("abcd"))[AT], list("dcbaz"))),
    "numbers and categories": (AT, pd.Categorical(AT)),
    "logicals": (AT > 1, pd.Series(AT > 1).astype("boolean")),
    "periods": (DAYS.to_period("D")[AT], pd.Series(DAYS.to_period("D")[AT])),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME.keys())
def test_levels_that_are_the_same_are_found_whatever_their_type(pair):
    fitted, new = pair
    expected = build(parse("y ~ x + (1 | g)"), frame(fitted)).factors[0].codes
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
    "bytes for text": (np.array(list("abcd"))[AT], np.array(list("abcd")).astype("S")[AT].astype(object)),
}


@pytest.mark.parametrize("pair", OTHER.values(), ids=OTHER.keys())
def test_levels_of_another_type_are_refused_and_not_taken_for_new_ones(pair):
    with pytest.raises(ValueError, match="'g' has .* in the new data, but .* in the fit; give both the same type"):
        codes(*pair)


def test_new_levels_of_the_same_type_are_unseen():
    assert_array_equal(codes(AT, AT + 10), np.full(N, -1))
    assert_array_equal(codes(DAYS[AT], DAYS[AT] + dt.timedelta(50)), np.full(N, -1))


def test_more_combinations_than_64_bits_are_told_apart():
    """Twelve variables of 50 levels each: 50^12 > 2^63. Rows in pairs, so that there are fewer levels than rows."""
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
    assert_array_equal(new_data(design, data.assign(v11=data.v11[::-1].to_numpy())).codes[0] >= 0, False)


def test_keys_are_positions_in_the_full_crossing():
    data = frame(np.repeat(list("abcd"), 6), h=np.tile([3, 1, 2], 8))
    (factor,) = build(parse("y ~ x + (1 | h:g)"), data).factors
    assert list(factor.levels[:2]) == ["1:a", "1:b"]
    assert_array_equal(factor.keys, np.arange(12))
