"""Designs: columns, rows and refusals against values worked out by hand or by formulaic alone."""

import formulaic
import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.designs import design

# Columns


@pytest.mark.parametrize("text", ["x", "0 + x", "x*z", "x:z + x", "1", "z + x - 1"])
def test_plain_columns_are_those_of_formulaic(frame, text):
    found = design(f"y ~ {text} + ({text} | g)", frame)
    expected = formulaic.model_matrix(text, frame)
    assert found.specs is None
    assert found.columns == tuple(expected.columns)
    np.testing.assert_array_equal(found.X, expected)
    np.testing.assert_array_equal(found.factors[0].Z, expected)


@pytest.mark.parametrize(
    "text", ["f", "0 + f", "f*x", "poly(x, 2)", "log(x) + C(h)", "bs(x, df=4) - 1", "I(x**2):f"]
)
def test_evaluated_columns_are_those_of_formulaic(frame, text):
    data = pd.concat([frame] * 2, ignore_index=True)
    found = design(f"y ~ {text} + (0 + {text} || g)", data)
    expected, slopes = (
        formulaic.model_matrix(text, data),
        formulaic.model_matrix("0 + " + text, data),
    )
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
    found = design(
        "y ~ shifted(x) + I(z * k) + (1|g)", frame, context={"shifted": lambda v: v + 1, "k": 3.0}
    )
    np.testing.assert_allclose(found.X[:, 1:], np.column_stack([frame.x + 1, frame.z * 3]))


def test_narrow_integers_do_not_overflow(frame):
    data = frame.assign(a=np.uint8(200), b=np.arange(24, dtype=np.uint8))
    np.testing.assert_array_equal(design("y ~ a:b + (1|g)", data).X[:, 1], 200.0 * np.arange(24))


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


@pytest.mark.parametrize(
    "kind", [list, np.array, pd.Series, pl.Series, lambda v: pd.array(v, dtype="Float64")]
)
def test_weights_and_offset_of_any_array_type_count_nan_as_missing(frame, kind):
    values = (
        kind([1.0, None, *[2.0] * 22])
        if kind is not np.array
        else np.array([1.0, np.nan, *[2.0] * 22])
    )
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


# Errors


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "y ~ X + (1|g)",
            r"column 'X' \(in the fixed part 'X'\) is not in the data; did you mean 'x'\?.*"
            "'y', 'x', 'z'",
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
        (
            "y ~ x + (1|g) + (1 + x|g)",
            r"the column '\(Intercept\)' occurs twice on the grouping factor 'g'",
        ),
        ("y ~ x + (1|g:h) + (1|h:g)", r"occurs twice on the grouping factor 'g:h'"),
        ("y ~ x + (1|one)", r"the grouping factor 'one' of '\(1\|one\)' has one level only, 'k'"),
        ("y ~ x + (1|zero)", "has one level only, 0, in the rows"),
        (
            "y ~ x + (1|row)",
            r"'\(1\|row\)' has 24 levels of 'row' x 1 columns = 24 random effects for 24 rows",
        ),
        (
            "y ~ x + (x + f + z + z:x|g)",
            r"4 levels of 'g' x 6 columns = 24 random effects for 24 rows",
        ),
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
        (
            "y ~ x + `1` + (1|g)",
            "the fixed part 'x \\+ `1`' has a column '1'.*the intercept; rename it",
        ),
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
    with pytest.raises(
        ValueError, match=rf"column 'odd' \(in the .*holds values of type {kind}; make it"
    ):
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


@pytest.mark.parametrize(
    "data", [np.ones((3, 3)), None, [1, 2], "frame.csv", pl.LazyFrame({"y": [1]})]
)
def test_data_that_are_no_frame_are_a_type_error(data):
    with pytest.raises(TypeError, match="data must be a pandas or polars data frame"):
        design("y ~ x + (1|g)", data)
