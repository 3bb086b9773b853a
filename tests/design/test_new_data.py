"""New rows have the columns, categories and levels of the fit, or are refused."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from helpers.designs import design

from interlace_jax.design.new_data import new_data


def test_new_data_reproduce_the_rows_of_the_fit(frame):
    found = design(
        "y ~ poly(x, 2) + f + scale(z) + (1 + scale(z) | g/h) + (0 + f | h)", pd.concat([frame] * 3)
    )
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
    data = pd.DataFrame(
        {"x": [2.0, np.nan, -1.0, 2.0], "f": ["a", "b", "c", None], "g": ["s1", "s2", "s3", "s4"]}
    )
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
    assert list(
        new_data(design("y ~ (1|h)", frame), frame.assign(h=frame.h * 1.0)).codes[0][:3]
    ) == [2, 0, 1]


def test_columns_missing_from_new_data_are_named(frame):
    with pytest.raises(ValueError, match="'x'"):
        new_data(design("y ~ x + (1|g)", frame), frame[["g"]])
    with pytest.raises(ValueError, match=r"'g' .in the term '\(1\|g\)'. is not in the data"):
        new_data(design("y ~ x + (1|g)", frame), frame[["x"]])


@pytest.mark.parametrize(
    "text", ["y ~ x + (1|g)", "y ~ C(f, contr.sum)*bs(x, df=4) + (poly(z, 2) || g)"]
)
def test_designs_pickle_and_copy(frame, text):
    found = design(text, pd.concat([frame] * 2))
    for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        np.testing.assert_array_equal(new_data(twin, frame[:2]).X, found.X[:2])
