"""Which columns are independent: those that R keeps, to its tolerance."""

import re
import warnings

import formulaic
import numpy as np
import pytest
from helpers.designs import design

from interlace_jax.design.determinacy import independent_columns


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
        # four variances on the diagonal of four products that differ
        ("(0 + f + x + five||g)", []),
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
    assert (
        design("y ~ x + z + (1|g)", frame.assign(x=frame.x * 1e9, z=frame.z * 1e-9)).dropped_columns
        == ()
    )
