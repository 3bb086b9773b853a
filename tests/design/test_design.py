"""Designs: columns, rows, levels and names against values worked out by hand or by formulaic alone."""

import copy
import itertools
import pickle
import re
import warnings
from decimal import Decimal

import formulaic
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest

from interlace_jax.design.design import build
from interlace_jax.design.determinacy import independent_columns
from interlace_jax.design.formula import parse
from interlace_jax.design.new_data import new_data


@pytest.fixture
def frame():
    rng = np.random.default_rng(1)
    n = 24
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.uniform(1, 3, n),
            "z": rng.normal(size=n),
            "f": np.tile(["b", "a", "c"], n // 3),
            "g": np.repeat(["s2", "s1", "s3", "s4"], n // 4),
            "h": np.tile([10, 2, 7, 2, 7, 10], n // 6),
        },
        index=np.arange(100, 100 + n),
    )


def design(text, data, **options):
    return build(parse(text), data, **options)


# Columns


@pytest.mark.parametrize("text", ["x", "0 + x", "x*z", "x:z + x", "1", "z + x - 1"])
def test_plain_columns_are_those_of_formulaic(frame, text):
    found = design(f"y ~ {text} + ({text} | g)", frame)
    expected = formulaic.model_matrix(text, frame)
    assert found.specs is None
    assert found.columns == tuple(expected.columns)
    np.testing.assert_array_equal(found.X, expected)
    np.testing.assert_array_equal(found.factors[0].Z, expected)


@pytest.mark.parametrize("text", ["f", "0 + f", "f*x", "poly(x, 2)", "log(x) + C(h)", "bs(x, df=4) - 1", "I(x**2):f"])
def test_evaluated_columns_are_those_of_formulaic(frame, text):
    data = pd.concat([frame] * 2, ignore_index=True)
    found = design(f"y ~ {text} + (0 + {text} || g)", data)
    expected, slopes = formulaic.model_matrix(text, data), formulaic.model_matrix("0 + " + text, data)
    assert found.columns == tuple(expected.columns)
    np.testing.assert_allclose(found.X, expected)
    assert found.factors[0].columns == tuple(slopes.columns)
    np.testing.assert_allclose(found.factors[0].Z, slopes)


def test_response_may_be_transformed(frame):
    found = design("np.exp(y) ~ (1|g)", frame)
    assert found.response == "np.exp(y)"
    np.testing.assert_allclose(found.y, np.exp(frame.y))


def test_response_may_be_left_alone(frame):
    found = design("~ x + (1|g)", frame.drop(columns="y"), response=False)
    assert found.y is None and found.response is None
    assert design("y ~ x + (1|g)", frame.drop(columns="y"), response=False).y is None


def test_bool_columns_are_categories(frame):
    found = design("y ~ flag + (1|g)", frame.assign(flag=frame.x > 2))
    assert found.columns == ("Intercept", "flag[T.True]")
    np.testing.assert_array_equal(found.X[:, 1], frame.x > 2)


def test_order_of_categories_gives_the_reference_level_and_unused_ones_vanish(frame):
    data = frame.assign(f=pd.Categorical(frame.f, categories=["c", "b", "unused", "a"]))
    assert design("y ~ f + (1|g)", data).columns == ("Intercept", "f[T.b]", "f[T.a]")


def test_column_names_may_be_quoted_or_those_of_functions(frame):
    data = frame.rename(columns={"x": "my x", "z": "scale"})
    found = design("y ~ `my x` + scale + log(`my x`) + (1|g)", data)
    assert found.columns == ("Intercept", "my x", "scale", "log(`my x`)")
    np.testing.assert_allclose(found.X[:, 3], np.log(data["my x"]))


def test_names_of_the_caller_come_by_context(frame):
    found = design("y ~ shifted(x) + I(z * k) + (1|g)", frame, context={"shifted": lambda v: v + 1, "k": 3.0})
    np.testing.assert_allclose(found.X[:, 1:], np.column_stack([frame.x + 1, frame.z * 3]))


def test_narrow_integers_do_not_overflow(frame):
    data = frame.assign(a=np.uint8(200), b=np.arange(24, dtype=np.uint8))
    np.testing.assert_array_equal(design("y ~ a:b + (1|g)", data).X[:, 1], 200.0 * np.arange(24))


# Grouping factors


def test_terms_on_one_factor_join_with_the_intercept_first(frame):
    (factor,) = design("y ~ 1 + (0 + z | g) + (1 + x | g)", frame).factors
    assert (factor.columns, factor.sizes) == (("(Intercept)", "x", "z"), (2, 1))
    np.testing.assert_array_equal(factor.Z, np.column_stack([np.ones(24), frame.x, frame.z]))


def test_double_bar_makes_every_column_independent(frame):
    (factor,) = design("y ~ 1 + (x + f || g)", frame).factors
    assert (factor.columns, factor.sizes) == (("(Intercept)", "x", "f[T.b]", "f[T.c]"), (1, 1, 1, 1))


@pytest.mark.parametrize(
    "slopes, columns", [("0 + f", ("f[a]", "f[b]", "f[c]")), ("f", ("(Intercept)", "f[T.b]", "f[T.c]"))]
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
    assert list(inner.levels) == [f"{h}:{g}" for h, g in itertools.product([2, 7, 10], ["s1", "s2", "s3", "s4"])]
    assert list(inner.levels[inner.codes]) == [f"{h}:{g}" for h, g in zip(frame.h, frame.g, strict=True)]


def test_explicit_interaction_keeps_the_written_order(frame):
    (factor,) = design("y ~ (1 | g:h)", frame).factors
    assert factor.name == "g:h" and list(factor.levels[:4]) == ["s1:2", "s1:7", "s1:10", "s2:2"]


@pytest.mark.parametrize(
    "labels, levels",
    [
        (pd.Categorical(list("bacb") * 6, categories=["c", "b", "unused", "a"], ordered=True), ["a", "b", "c"]),
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


# Rows


def test_rows_with_missing_values_are_dropped_and_counted(frame):
    data = frame.astype({"g": object})
    data.iloc[0, data.columns.get_loc("y")] = np.nan
    data.iloc[3, data.columns.get_loc("g")] = None
    data.iloc[5, data.columns.get_loc("z")] = np.nan
    found = design("y ~ x + (1 + z | g)", data)
    kept = np.setdiff1d(np.arange(24), [0, 3, 5])
    assert found.n_dropped == 3
    np.testing.assert_array_equal(found.rows, kept)
    np.testing.assert_array_equal(found.index, frame.index[kept])
    np.testing.assert_array_equal(found.y, frame.y.iloc[kept])
    np.testing.assert_array_equal(found.factors[0].Z[:, 1], frame.z.iloc[kept])


def test_missing_values_in_columns_not_used_do_not_matter(frame):
    assert design("y ~ x + (1|g)", frame.assign(z=np.nan)).n_dropped == 0


def test_stateful_transforms_see_only_the_rows_used(frame):
    data = frame.assign(y=frame.y.mask(frame.x > 2.5), w=1.0 * (frame.z < 1))
    found = design("y ~ scale(x) + (0 + poly(x, 2) | g)", data, weights="w")
    kept = data[data.y.notna() & (data.w > 0)]
    np.testing.assert_allclose(found.X[:, 1], (kept.x - kept.x.mean()) / kept.x.std())
    np.testing.assert_allclose(found.factors[0].Z.T @ found.factors[0].Z, np.eye(2), atol=1e-12)


def test_missing_values_made_by_the_formula_drop_the_row_for_all_parts(frame):
    found = design("y ~ scale(x) + (1 + log(z) || g)", frame)
    kept = frame[frame.z > 0]
    assert found.n_dropped == 24 - len(kept)
    np.testing.assert_allclose(found.X[:, 1], (kept.x - kept.x.mean()) / kept.x.std())
    np.testing.assert_allclose(found.factors[0].Z[:, 1], np.log(kept.z))
    np.testing.assert_array_equal(found.index, kept.index)


def test_transforms_that_always_make_gaps_are_refused(frame):
    with pytest.raises(ValueError, match=r"lag\(x\).*compute it as a column"):
        design("y ~ lag(x) + (1|g)", frame)


def test_zero_weight_leaves_a_row_out_without_counting_it_as_missing(frame):
    weights = np.linspace(0, 2, 24)
    data = frame.assign(y=frame.y.mask(np.arange(24) == 0))
    found = design("y ~ x + (1|g)", data, weights=weights, offset=np.arange(24.0))
    assert (len(found.y), found.n_dropped) == (23, 0)
    np.testing.assert_array_equal(found.weights, weights[1:])
    np.testing.assert_array_equal(found.offset, np.arange(1, 24))


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pl.Series, lambda v: pd.array(v, dtype="Float64")])
def test_weights_and_offset_of_any_array_type_count_nan_as_missing(frame, kind):
    values = kind([1.0, None, *[2.0] * 22]) if kind is not np.array else np.array([1.0, np.nan, *[2.0] * 22])
    found = design("y ~ x + (1|g)", frame, weights=values, offset=values)
    assert found.n_dropped == 1
    np.testing.assert_array_equal(found.weights, [1.0, *[2.0] * 22])
    np.testing.assert_array_equal(found.offset, found.weights)


def test_pandas_na_in_a_list_is_missing(frame):
    assert design("y ~ x + (1|g)", frame, offset=[pd.NA, None, *[2] * 22]).n_dropped == 2


def test_the_users_frame_is_not_modified(frame):
    data = frame.assign(f=frame.f.astype("category"), y=frame.y.mask(frame.y > 1))
    before = data.copy(deep=True)
    design("y ~ f + scale(x) + (f | g)", data)
    pd.testing.assert_frame_equal(data, before)


def test_repeated_row_labels_do_not_matter(frame):
    data = frame.set_axis(np.zeros(24, int), axis=0).assign(y=frame.y.to_numpy())
    data.iloc[2, 0] = np.nan
    found = design("y ~ f + C(h) + (1|g)", data)
    np.testing.assert_allclose(found.X, formulaic.model_matrix("f + C(h)", frame.drop(index=102)))


# Other frames


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
    np.testing.assert_array_equal(design("y ~ v + (1 | g)", frame.assign(v=exact)).X[:, 1], [1, 2, 3] * 8)


# Rank


def test_aliased_columns_are_dropped_from_the_left_with_a_warning(frame):
    data = frame.assign(a=2 * frame.x - 3, b=frame.x + frame.z, zero=0.0)
    with pytest.warns(UserWarning, match="'a', 'b', 'zero'"):
        found = design("y ~ x + a + z + b + zero + (1|g)", data)
    assert found.columns == ("Intercept", "x", "z")
    assert found.dropped_columns == ("a", "b", "zero")
    np.testing.assert_array_equal(found.X, np.column_stack([np.ones(24), frame.x, frame.z]))


@pytest.mark.parametrize("year", [50, 200, 1000, 5000])
def test_what_follows_from_columns_that_are_nearly_collinear_is_aliased(year):
    rng = np.random.default_rng(year)
    for _ in range(20):  # where only rounding is left, it may look like a residual of its own
        x = year + 3.0 * rng.standard_normal(300)
        X = np.column_stack([np.ones(300), x, x**2, (x - year) ** 2])
        assert independent_columns(X) == [0, 1, 2]


@pytest.mark.parametrize("size, kept", [(1e-6, True), (1e-8, False)])
def test_tolerance_is_r_s_relative_to_the_norm_of_each_column(frame, size, kept):
    residual = (
        frame.z
        - formulaic.model_matrix("x", frame)
        @ np.linalg.lstsq(formulaic.model_matrix("x", frame), frame.z, rcond=None)[0]
    )
    near = frame.x / np.linalg.norm(frame.x) + size * residual / np.linalg.norm(residual)
    data = frame.assign(near=1e9 * near)
    if kept:
        assert design("y ~ x + near + (1|g)", data).columns == ("Intercept", "x", "near")
    else:
        with pytest.warns(UserWarning, match="near"):
            assert design("y ~ x + near + (1|g)", data).dropped_columns == ("near",)


@pytest.mark.parametrize(
    "term, lost",
    [
        ("(1 + x + two|g)", ["two"]),
        ("(1 + x + two||g)", ["two"]),
        ("(1|g) + (0 + x + five|g)", ["five"]),
        ("(0 + zero|g)", ["zero"]),
        ("(0 + f + x + five|g)", ["five"]),
        ("(0 + f + x + five||g)", []),  # four variances on the diagonal of four products that differ
        ("(1 + x + z|g)", []),
    ],
)
def test_random_effects_that_data_cannot_tell_apart_are_named(frame, term, lost):
    data = frame.assign(two=2 * frame.x, five=5.0, zero=0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        design(f"y ~ 1 + {term}", data)
    names = [re.search("the random effects (.*) of 'g' depend", str(w.message))[1] for w in caught]
    assert names == [", ".join(map(repr, lost))] * bool(lost)


def test_large_scales_alone_do_not_alias(frame):
    assert design("y ~ x + z + (1|g)", frame.assign(x=frame.x * 1e9, z=frame.z * 1e-9)).dropped_columns == ()


# New data


def test_new_data_reproduce_the_rows_of_the_fit(frame):
    found = design("y ~ poly(x, 2) + f + scale(z) + (1 + scale(z) | g/h) + (0 + f | h)", pd.concat([frame] * 3))
    one = new_data(found, frame.iloc[[4]].drop(columns="y"))
    np.testing.assert_allclose(one.X, found.X[[4]])
    for factor, z, codes in zip(found.factors, one.Z, one.codes, strict=True):
        np.testing.assert_allclose(z, factor.Z[[4]])
        assert codes[0] == factor.codes[4] and codes.dtype == np.int32
    assert list(one.index) == [104]


def test_new_data_leave_out_aliased_columns(frame):
    with pytest.warns(UserWarning):
        found = design("y ~ x + I(2*x) + z + (1|g)", frame)
    np.testing.assert_allclose(new_data(found, frame[:3]).X, found.X[:3])


def test_unseen_levels_get_code_minus_one(frame):
    found = design("y ~ (1|g/h)", frame)
    new = new_data(found, pd.DataFrame({"g": ["s1", "s9", "s1"], "h": [7, 7, 8]}))
    inner, outer = new.codes
    assert list(found.factors[0].levels[inner[:1]]) == ["7:s1"] and list(inner[1:]) == [-1, -1]
    assert list(outer) == [0, -1, 0]


def test_missing_values_in_new_data_keep_the_row(frame):
    found = design("y ~ x + f + (1 + log(x) || g)", pd.concat([frame] * 2))
    data = pd.DataFrame({"x": [2.0, np.nan, -1.0, 2.0], "f": ["a", "b", "c", None], "g": ["s1", "s2", "s3", "s4"]})
    new = new_data(found, data)
    np.testing.assert_array_equal(new.missing, [False, True, True, True])
    np.testing.assert_array_equal(np.isnan(new.X).all(axis=1), new.missing)
    np.testing.assert_array_equal(new.X[0], [1, 2, 0, 0])


def test_population_part_needs_no_grouping_columns(frame):
    new = new_data(design("y ~ 1 + (poly(x, 2) | g)", frame), frame[["z"]], random=False)
    np.testing.assert_array_equal(new.X, np.ones((24, 1)))
    assert new.Z == new.codes == ()


def test_offset_column_is_read_from_new_data_and_an_array_must_be_given_again(frame):
    by_name = design("y ~ x + (1|g)", frame, offset="z")
    np.testing.assert_array_equal(new_data(by_name, frame[:2]).offset, frame.z[:2])
    with pytest.raises(ValueError, match="'z' .in the offset. is not in the data"):
        new_data(by_name, frame.drop(columns="z"))
    by_array = design("y ~ x + (1|g)", frame, offset=frame.z)
    np.testing.assert_array_equal(new_data(by_array, frame[:2], offset=[1, 2]).offset, [1, 2])
    with pytest.raises(ValueError, match="give offset= for the new data"):
        new_data(by_array, frame)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"f": "d"}, "'f' has the level 'd'.*the fit has 'a', 'b', 'c'"),
        ({"f": 1}, "'f' is categorical in the fit, but numerical"),
        ({"x": "2"}, "'x' is numerical in the fit, but"),
        ({"h": "7"}, r"'h' has '7' \(str\) in the new data, but 7 \(int\) in the fit"),
        ({"g": None}, None),
    ],
)
@pytest.mark.parametrize("extra", ["", " + log(x)"])
def test_new_data_of_another_kind_are_refused(frame, change, message, extra):
    fixed = "x" if "x" in change or "h" in change else "x + f"
    found = design(f"y ~ {fixed}{extra} + (1|h) + (1|g)", frame)
    if message is None:
        assert new_data(found, frame.assign(**change)).missing.all()
        return
    with pytest.raises(ValueError, match=message):
        new_data(found, frame.assign(**change))


def test_numbers_as_text_in_the_fit_are_not_matched_by_numbers(frame):
    found = design("y ~ (1|h)", frame.assign(h=frame.h.astype(str)))
    with pytest.raises(ValueError, match=r"2 \(int\).*'2' \(str\)"):
        new_data(found, frame)
    assert list(new_data(design("y ~ (1|h)", frame), frame.assign(h=frame.h * 1.0)).codes[0][:3]) == [2, 0, 1]


def test_columns_missing_from_new_data_are_named(frame):
    with pytest.raises(ValueError, match="'x'"):
        new_data(design("y ~ x + (1|g)", frame), frame[["g"]])
    with pytest.raises(ValueError, match=r"'g' .in the term '\(1\|g\)'. is not in the data"):
        new_data(design("y ~ x + (1|g)", frame), frame[["x"]])


@pytest.mark.parametrize("text", ["y ~ x + (1|g)", "y ~ C(f, contr.sum)*bs(x, df=4) + (poly(z, 2) || g)"])
def test_designs_pickle_and_copy(frame, text):
    found = design(text, pd.concat([frame] * 2))
    for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        np.testing.assert_array_equal(new_data(twin, frame[:2]).X, found.X[:2])


# Errors


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "y ~ X + (1|g)",
            r"column 'X' \(in the fixed part 'X'\) is not in the data; did you mean 'x'\?.*'y', 'x', 'z'",
        ),
        ("Y ~ x + (1|g)", r"column 'Y' \(in the response 'Y'\)"),
        ("y ~ x + (1|gg)", r"column 'gg' \(in the term '\(1\|gg\)'\).*'g'"),
        ("y ~ x + (1 + log(q)|g)", r"column 'q' \(in the term '\(1 \+ log\(q\)\|g\)'\)"),
        ("y ~ q.clip(0) + (1|g)", "column 'q'"),
        ("y ~ nothing(x) + (1|g)", r"the fixed part 'nothing\(x\)' cannot be evaluated.*nothing"),
        ("y ~ x + (nothing(x)|g)", r"the term '\(nothing\(x\)\|g\)' cannot be evaluated"),
        ("y ~ x + C(f, levels=['a']) + (1|g)", "levels that it names leave out"),
        ("y ~ x +* z + (1|g)", r"the fixed part 'x \+ \* z' cannot be read"),
        ("f ~ x + (1|g)", "the response 'f' is not numeric but str"),
        ("C(h) ~ x + (1|g)", r"the response 'C\(h\)' must be one column"),
        ("y ~ x + (1|g) + (1 + x|g)", r"the column '\(Intercept\)' occurs twice on the grouping factor 'g'"),
        ("y ~ x + (1|g:h) + (1|h:g)", r"occurs twice on the grouping factor 'g:h'"),
        ("y ~ x + (1|one)", r"the grouping factor 'one' of '\(1\|one\)' has one level only, 'k'"),
        ("y ~ x + (1|zero)", "has one level only, 0, in the rows"),
        ("y ~ x + (1|row)", r"'\(1\|row\)' has 24 levels of 'row' x 1 columns = 24 random effects for 24 rows"),
        ("y ~ x + (x + f + z + z:x|g)", r"4 levels of 'g' x 6 columns = 24 random effects for 24 rows"),
        ("y ~ x + (0|g)", r"the term '\(0\|g\)' has no columns"),
        ("y ~ big + (1|g)", r"infinite values in 'big' \(1 rows\)"),
        ("y ~ x + (big|g)", "infinite values in 'big'"),
        ("big ~ x + (1|g)", "infinite values in 'big'"),
        ("y ~ when + (1|g)", "column 'when' .*datetime64"),
        ("y ~ text + (1|g)", "column 'text' .* is str with another value in each of 24 rows"),
        ("y ~ poly(x, 23) + (1|g)", "24 rows are too few for 24 fixed-effects columns"),
        ("y ~ empty + (1|g)", r"all 24 rows have missing values: in 'empty' \(24\)"),
        ("~ x + (1|g)", "has no response"),
        (
            "y ~ x + sigma + (1|g)",
            r"column 'sigma' \(in the fixed part 'x \+ sigma'\) has a parameter's name",
        ),
        ("y ~ x + (Intercept|g)", "column 'Intercept' .*has a parameter's name"),
        ("y ~ x + (1|Residual)", "the grouping factor 'Residual' has the name of the residual"),
        ("y ~ x + `1` + (1|g)", "the fixed part 'x \\+ `1`' has a column '1'.*the intercept; rename it"),
    ],
)
def test_errors_name_the_column_or_term(frame, text, message):
    data = frame.assign(
        one="k",
        zero=0,
        row=range(24),
        big=np.where(np.arange(24) == 3, np.inf, frame.z),
        when=pd.date_range("2020", periods=24),
        text=[f"{v:.1f}" for v in range(24)],
        empty=np.nan,
        sigma=frame.z,
    )
    with pytest.raises(ValueError, match=message):
        design(text, data)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weights": [1.0, 2.0]}, "the weights: 2 values.*24 rows"),
        ({"offset": np.ones(25)}, "25 values.*24 rows"),
        ({"weights": -np.ones(24)}, "negative in 24 rows"),
        ({"weights": np.zeros(24)}, "zero in all rows"),
        ({"weights": np.full(24, np.inf)}, "infinite"),
        ({"offset": np.full(24, -np.inf)}, "infinite"),
        ({"weights": "nope"}, "column 'nope' .in the weights. is not in the data"),
        ({"weights": "f"}, "the weights 'f' must be numbers"),
        ({"weights": np.ones((24, 2))}, "the weights must be numbers"),
        ({"na_action": "omit"}, "na_action must be 'drop' or 'raise', not 'omit'"),
    ],
)
def test_wrong_options_are_refused(frame, options, message):
    with pytest.raises(ValueError, match=message):
        design("y ~ x + (1|g)", frame, **options)


def test_na_action_raise_names_columns_and_counts(frame):
    data = frame.assign(x=frame.x.mask(frame.h == 7), y=frame.y.mask(frame.index == 100))
    with pytest.raises(ValueError, match=r"'y' \(1\), 'x' \(8\)"):
        design("y ~ x + (1|g)", data, na_action="raise")
    with pytest.raises(ValueError, match=r"'log\(z\)'"):
        design("y ~ log(z) + (1|g)", frame, na_action="raise")
    assert design("y ~ x + (1|g)", frame, na_action="raise").n_dropped == 0


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("text", ["y ~ x + (1|odd)", "y ~ odd + (1|g)", "y ~ log(odd) + (1|g)"])
@pytest.mark.parametrize("odd, kind", [([1, 2], "list"), ({"a": 1}, "dict")])
def test_columns_of_containers_are_refused(frame, library, text, odd, kind):
    data = library({**frame.to_dict("list"), "odd": [odd] * len(frame)})
    with pytest.raises(ValueError, match=rf"column 'odd' \(in the .*holds values of type {kind}; make it"):
        design(text, data)


def test_columns_that_are_there_under_another_kind_of_name_are_explained(frame):
    with pytest.raises(ValueError, match=r"column '7' .*rename\(columns=str\)"):
        design("y ~ `7` + (1|g)", frame.rename(columns={"x": 7}))
    with pytest.raises(ValueError, match=r"column 'g' .*in their index; .*reset_index\(\)"):
        design("y ~ x + (1|g)", frame.set_index("g"))


def test_empty_data_and_repeated_column_names_are_refused(frame):
    with pytest.raises(ValueError, match="no rows"):
        design("y ~ x + (1|g)", frame[:0])
    with pytest.raises(ValueError, match="2 columns named 'x'"):
        design("y ~ x + (1|g)", frame.rename(columns={"z": "x"}))


@pytest.mark.parametrize("data", [np.ones((3, 3)), None, [1, 2], "frame.csv", pl.LazyFrame({"y": [1]})])
def test_data_that_are_no_frame_are_a_type_error(data):
    with pytest.raises(TypeError, match="data must be a pandas or polars data frame"):
        design("y ~ x + (1|g)", data)
