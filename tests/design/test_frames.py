"""Columns of every type in every role: the design of the plain column, or a sentence."""

import datetime as dt
from decimal import Decimal

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from helpers.designs import design
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.design.frames import snapshot
from interlace_jax.design.new_data import new_data

N = 24
NUMBERS = np.tile([3, 1, 2, 4], 6)
GROUPS = np.repeat([5, 8, 7, 6], 6)
LETTERS = np.array(list("?bcad"))[NUMBERS]


def plain():
    r = np.random.default_rng(6)
    return pd.DataFrame(
        {"y": r.normal(size=N), "x": r.normal(size=N), "g": GROUPS, "k": NUMBERS, "f": LETTERS}
    )


def _series(values, dtype):
    return pd.Series(pd.array(values, dtype=dtype))


PANDAS_NUMBERS = {
    **{
        dtype: lambda v, d=dtype: pd.Series(v).astype(d)
        for dtype in ("int8", "int16", "int32", "int64", "uint8")
    },
    **{
        dtype: lambda v, d=dtype: pd.Series(v).astype(d)
        for dtype in ("uint16", "uint32", "uint64", "float16")
    },
    **{
        dtype: lambda v, d=dtype: pd.Series(v).astype(d)
        for dtype in ("float32", "float64", "longdouble")
    },
    **{
        dtype: lambda v, d=dtype: _series(v, d)
        for dtype in ("Int8", "Int32", "Int64", "UInt64", "Float32", "Float64")
    },
    "object": lambda v: pd.Series(v.astype(object)),
    "Decimal": lambda v: pd.Series([Decimal(int(value)) for value in v]),
    "sparse": lambda v: pd.Series(pd.arrays.SparseArray(v.astype(float))),
    "big-endian": lambda v: pd.Series(v.astype(">i4").astype("=i4")),
    "arrow int": lambda v: pd.Series(v, dtype=pd.ArrowDtype(pa.int32())),
    "arrow uint64": lambda v: pd.Series(v, dtype=pd.ArrowDtype(pa.uint64())),
    "arrow float": lambda v: pd.Series(v, dtype=pd.ArrowDtype(pa.float32())),
    "arrow decimal": lambda v: pd.Series(
        pd.arrays.ArrowExtensionArray(
            pa.array([Decimal(int(value)) for value in v], pa.decimal128(10, 2))
        )
    ),
}
POLARS_NUMBERS = [
    pl.Int8,
    pl.Int16,
    pl.Int32,
    pl.Int64,
    pl.Int128,
    pl.UInt8,
    pl.UInt16,
    pl.UInt32,
    pl.UInt64,
]
POLARS_NUMBERS += [pl.Float32, pl.Float64, pl.Decimal(12, 3), pl.Object]
ARROW_NUMBERS = [
    pa.int8(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
]
ARROW_NUMBERS += [pa.decimal128(12, 3), pa.decimal256(40, 3)]


def _polars(values, dtype):
    return pl.Series([int(v) for v in values], dtype=dtype)


def _arrow(values, dtype):
    made = (
        [Decimal(int(v)) for v in values]
        if pa.types.is_decimal(dtype)
        else [int(v) for v in values]
    )
    return (
        pa.array(made, pa.int64()).cast(dtype)
        if pa.types.is_floating(dtype)
        else pa.array(made, dtype)
    )


def frames_with(name, values):
    """The plain frame with numbers of every type in one column."""
    base = plain()
    for label, make in PANDAS_NUMBERS.items():
        yield f"pandas {label}", base.assign(**{name: make(values)})
    for dtype in POLARS_NUMBERS:
        yield (
            f"polars {dtype}",
            pl.from_pandas(base).with_columns(_polars(values, dtype).alias(name)),
        )
    table = pa.Table.from_pandas(base, preserve_index=False)
    for dtype in ARROW_NUMBERS:
        column = table.column_names.index(name)
        yield f"arrow {dtype}", table.set_column(column, name, _arrow(values, dtype))


ROLES = {
    "predictor": ("k", "y ~ k + k:x + (1 | g)", {}),
    "argument": ("k", "y ~ I(k^2) + log(k) + (0 + k | g)", {}),
    "factor": ("k", "y ~ factor(k) + (1 | g)", {}),
    "response": ("k", "k ~ x + (1 | g)", {}),
    "weight": ("k", "y ~ x + (1 | g)", {"weights": "k"}),
    "offset": ("k", "y ~ x + (1 | g)", {"offset": "k"}),
    "group": ("g", "y ~ x + (1 | g)", {}),
    "nested group": ("g", "y ~ x + (1 | k:g)", {}),
}


def assert_same(found, expected, what):
    assert found.columns == expected.columns, what
    assert_allclose(found.X, expected.X, rtol=1e-12, err_msg=what)
    assert_allclose(found.y, expected.y, rtol=1e-12, err_msg=what)
    assert_allclose(found.w, expected.w, err_msg=what)
    assert_allclose(found.shift, expected.shift, err_msg=what)
    for ours, theirs in zip(found.factors, expected.factors, strict=True):
        assert list(ours.levels) == list(theirs.levels), what
        assert_array_equal(ours.codes, theirs.codes, what)
        assert_allclose(ours.Z, theirs.Z, err_msg=what)


@pytest.mark.parametrize("role", ROLES)
def test_numbers_of_every_type_are_the_plain_ones_in_every_role(role):
    name, text, options = ROLES[role]
    expected = build(parse(text), plain(), **options)
    for what, frame in frames_with(name, plain()[name].to_numpy()):
        found = build(parse(text), frame, **options)
        assert_same(found, expected, what)
        assert_allclose(new_data(expected, frame).X, expected.X, rtol=1e-12, err_msg=what)
        assert_array_equal(
            new_data(expected, frame).codes, [f.codes for f in expected.factors], what
        )


TEXTS = {
    "object": lambda v: pd.Series(v.astype(object)),
    "str": lambda v: pd.Series(v, dtype="str"),
    "string": lambda v: pd.Series(v, dtype="string"),
    "category": lambda v: pd.Series(v, dtype="category"),
    "ordered": lambda v: pd.Series(pd.Categorical(v, ordered=True)),
    "arrow": lambda v: pd.Series(v, dtype=pd.ArrowDtype(pa.string())),
    "large arrow": lambda v: pd.Series(v, dtype=pd.ArrowDtype(pa.large_string())),
    "dictionary": lambda v: pd.Series(
        pd.arrays.ArrowExtensionArray(pa.array(v).dictionary_encode())
    ),
}


def text_frames(name, values):
    base = plain()
    for label, make in TEXTS.items():
        yield f"pandas {label}", base.assign(**{name: make(values)})
    for dtype in (pl.String, pl.Categorical, pl.Enum(sorted(set(values)))):
        yield (
            f"polars {dtype}",
            pl.from_pandas(base).with_columns(pl.Series(name, list(values), dtype=dtype)),
        )
    table = pa.Table.from_pandas(base, preserve_index=False)
    at = table.column_names.index(name)
    for column in (
        pa.array(values),
        pa.array(values).dictionary_encode(),
        pa.array(values, pa.large_string()),
    ):
        yield f"arrow {column.type}", table.set_column(at, name, column)


@pytest.mark.parametrize(
    "text",
    ["y ~ f + (1 | g)", "y ~ C(f, contr.sum) + (1 | g)", "y ~ x + (1 | f)", "y ~ x + (f | g)"],
)
def test_text_of_every_type_is_the_plain_one(text):
    expected = build(parse(text), plain())
    for what, frame in text_frames("f", LETTERS):
        assert_same(build(parse(text), frame), expected, what)
        assert_allclose(new_data(expected, frame).X, expected.X, err_msg=what)


@pytest.mark.parametrize(
    "dtype", ["Int8", "UInt64", "Float32", "object", "int32[pyarrow]", "uint64[pyarrow]"]
)
def test_missing_values_keep_the_type_of_the_others(dtype):
    frame = plain()
    frame["g"] = frame["g"].astype(dtype)
    frame.loc[0, "g"] = None if dtype == "object" else pd.NA
    design = build(parse("y ~ x + (1 | g)"), frame)
    assert list(design.factors[0].levels) == [5, 6, 7, 8]
    assert_array_equal(design.rows, np.arange(1, N))


@pytest.mark.parametrize("dtype", [d for d in POLARS_NUMBERS if d != pl.Object])
def test_nulls_of_polars_keep_the_type_of_the_others(dtype):
    values = [None, *map(int, GROUPS[1:])]
    design = build(
        parse("y ~ x + (1 | g)"),
        pl.from_pandas(plain()).with_columns(pl.Series("g", values, dtype=dtype)),
    )
    assert list(design.factors[0].levels) == [5, 6, 7, 8]
    assert_array_equal(design.rows, np.arange(1, N))


def test_whole_numbers_beyond_signed_64_bits_keep_their_values():
    ids = np.array([2**64 - 1, 2**63 + 1, 3, 2**63], dtype=np.uint64)[(GROUPS - 5) % 4]
    expected = sorted(set(map(int, ids)))
    for frame in (plain().assign(g=ids), pl.from_pandas(plain()).with_columns(pl.Series("g", ids))):
        design = build(parse("y ~ x + (1 | g)"), frame)
        assert list(map(int, design.factors[0].levels)) == expected
        assert_array_equal(new_data(design, frame).codes[0], design.factors[0].codes)
    holes = pl.from_pandas(plain()).with_columns(
        pl.when(pl.col("x") > -1).then(pl.Series(ids)).alias("g")
    )
    assert set(map(int, build(parse("y ~ x + (1 | g)"), holes).factors[0].levels)) <= set(expected)
    big = np.uint64(2**63) + NUMBERS.astype(np.uint64) * np.uint64(2**50)
    assert_allclose(
        build(parse("y ~ g + (1 | k)"), plain().assign(g=big)).X[:, 1], big.astype(float)
    )


def test_whole_numbers_beyond_64_bits_are_groups_and_no_predictors():
    wide = pl.from_pandas(plain()).with_columns(
        pl.Series("g", [2**100 + int(g) for g in GROUPS], dtype=pl.Int128)
    )
    assert list(build(parse("y ~ x + (1 | g)"), wide).factors[0].levels) == [
        2**100 + g for g in (5, 6, 7, 8)
    ]
    with pytest.raises(ValueError, match="'g'.* holds whole numbers beyond 64 bits"):
        build(parse("y ~ g + (1 | k)"), wide)


DAYS = pd.date_range("2024-01-01", periods=4)[(GROUPS - 5) % 4]
TIMES = {
    "time": lambda d: d,
    "time with a zone": lambda d: d.tz_localize("Europe/Berlin"),
    "date": lambda d: [t.date() for t in d],
    "period": lambda d: d.to_period("D"),
    "timedelta": lambda d: d - d[0],
    "clock": lambda d: [dt.time(t.day) for t in d],
    "complex": lambda d: d.day + 1j,
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_and_other_values_are_no_predictors(kind):
    frame = plain().assign(t=TIMES[kind](DAYS))
    with pytest.raises(ValueError, match="'t' \\(in the fixed part .*make it numbers or text"):
        build(parse("y ~ t + (1 | g)"), frame)
    for option in ("weights", "offset"):
        with pytest.raises(ValueError, match="must be numbers"):
            build(parse("y ~ x + (1 | g)"), frame, **{option: "t"})
    with pytest.raises(ValueError, match="'t'.*(numbers|numeric)"):
        build(parse("t ~ x + (1 | g)"), frame)


@pytest.mark.parametrize("kind", [kind for kind in TIMES if kind != "complex"])
def test_times_are_groups_that_new_data_know(kind):
    frame = plain().assign(t=TIMES[kind](DAYS))
    design = build(parse("y ~ x + (1 | t)"), frame)
    assert len(design.factors[0].levels) == 4
    assert_array_equal(new_data(design, frame.iloc[::-1]).codes[0], design.factors[0].codes[::-1])


def test_text_that_looks_like_numbers_is_no_weight():
    with pytest.raises(ValueError, match="the weights 'k' must be numbers"):
        build(parse("y ~ x + (1 | g)"), plain().assign(k=NUMBERS.astype(str)), weights="k")


def test_a_series_of_weights_is_put_into_the_order_of_the_labels():
    frame = plain().set_index(pd.Index(np.arange(N)[::-1] + 100))
    w = pd.Series(np.arange(1.0, N + 1), index=frame.index)
    expected = build(parse("y ~ x + (1 | g)"), frame, weights=w).w
    assert_array_equal(expected, np.arange(1.0, N + 1))
    assert_array_equal(
        build(parse("y ~ x + (1 | g)"), frame, weights=w.sample(frac=1, random_state=1)).w, expected
    )
    assert_array_equal(
        build(parse("y ~ x + (1 | g)"), frame, weights=w.reset_index(drop=True)).w, expected
    )
    with pytest.raises(ValueError, match="the offset and the data have different indices"):
        build(parse("y ~ x + (1 | g)"), frame, offset=w.set_axis(frame.index + 1))


def test_columns_of_several_levels_are_refused_in_words():
    wide = plain()[["y", "x", "g"]].set_axis(
        pd.MultiIndex.from_tuples([("y", "a"), ("x", "a"), ("g", "")]), axis=1
    )
    with pytest.raises(ValueError, match="MultiIndex.*data.columns = "):
        build(parse("y ~ x + (1 | g)"), wide)


def test_columns_of_one_name_are_refused_in_words():
    twice = pa.table([pa.array(GROUPS)] * 2, names=["g", "g"])
    with pytest.raises(ValueError, match="several columns of one name: .*'g'"):
        build(parse("y ~ x + (1 | g)"), twice)


def test_a_snapshot_does_not_follow_the_frame():
    for frame in (plain(), pl.from_pandas(plain())):
        kept = snapshot(frame)
        if isinstance(frame, pd.DataFrame):
            frame["x"] = 0.0
            frame.loc[3, "y"] = 7.0
            del frame["f"]
            frame.columns = list("abcd")
        else:
            frame.drop_in_place("x")
            frame[0, "y"] = 7.0
        found = (
            kept if isinstance(kept, pd.DataFrame) else pd.DataFrame(kept.to_dict(as_series=False))
        )
        pd.testing.assert_frame_equal(found, plain(), check_dtype=False)


def test_polars_gives_the_design_of_pandas(frame):
    text = "y ~ x*f + (x + f || g) + (1 | h)"
    data = frame.assign(f=frame.f.astype("category"))
    ours, theirs = design(text, frame), design(text, pl.from_pandas(data))
    assert ours.columns == theirs.columns and theirs.index.equals(pd.RangeIndex(24))
    np.testing.assert_allclose(ours.X, theirs.X)
    for a, b in zip(ours.factors, theirs.factors, strict=True):
        assert (a.name, a.columns, list(a.levels)) == (b.name, b.columns, list(b.levels))
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_allclose(a.Z, b.Z)


def test_a_narwhals_frame_is_the_frame_it_wraps(frame):
    found = design("y ~ x + f + (1|g)", nw.from_native(frame))
    np.testing.assert_array_equal(found.index, frame.index)


def test_polars_nulls_are_missing_and_integers_stay_integers(frame):
    data = pl.from_pandas(frame).with_columns(
        h=pl.when(pl.col("h") == 7).then(None).otherwise(pl.col("h")),
        f=pl.col("f").cast(pl.Enum(["c", "b", "a"])),
        d=pl.col("h").cast(pl.Decimal(10, 2)),
    )
    found = design("y ~ f + d + (1|h)", data)
    assert found.n_dropped == 8 and found.columns == ("Intercept", "f[T.b]", "f[T.a]", "d")
    assert found.factors[0].levels.dtype == np.int64 and list(found.factors[0].levels) == [2, 10]
    np.testing.assert_array_equal(found.rows, np.flatnonzero(frame.h != 7))


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1.5, None, *[2.0, 4.0] * 11], dtype="Float64"),
        pd.Series([1.5, None, *[2.0, 4.0] * 11], dtype=object).array,
        np.array([1.5, np.nan, *[2.0, 4.0] * 11], dtype=np.float32),
    ],
)
def test_numbers_in_nullable_or_object_columns_stay_numbers(frame, column):
    found = design("x ~ v + (0 + v | g)", frame.assign(v=column))
    assert found.columns == ("Intercept", "v") and found.n_dropped == 1
    np.testing.assert_array_equal(found.X[:, 1], [1.5, *[2.0, 4.0] * 11])


def test_decimals_of_arrow_are_numbers(frame):
    pa = pytest.importorskip("pyarrow")
    exact = pd.array([*map(Decimal, [1, 2, 3] * 8)], dtype=pd.ArrowDtype(pa.decimal128(5, 1)))
    np.testing.assert_array_equal(
        design("y ~ v + (1 | g)", frame.assign(v=exact)).X[:, 1], [1, 2, 3] * 8
    )
