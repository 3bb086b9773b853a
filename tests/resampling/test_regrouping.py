"""Groups drawn anew, and which groups are independent of each other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.resampling.regrouping import (
    _check_independent,
    factor_named,
    independent_groups,
    regrouped,
)


def _design(random="(1 | school/pupil)"):
    school, pupil = np.repeat(np.arange(4), 6), np.tile(np.repeat(np.arange(3), 2), 4)
    frame = pd.DataFrame(
        {"school": school, "pupil": pupil, "rater": np.arange(24) % 5, "y": np.arange(24.0) % 7}
    )
    return build(parse("y ~ 1 + " + random, None, None), frame)


def test_every_pick_of_a_group_is_a_group_of_its_own_with_all_that_is_in_it():
    design = _design()
    drawn = regrouped(design, factor_named(design, "school"), [2, 0, 2])
    assert_array_equal(drawn.y, np.concatenate([design.y[12:18], design.y[:6], design.y[12:18]]))
    inner, outer = (
        next(f for f in drawn.factors if f.name == name) for name in ("pupil:school", "school")
    )
    assert_array_equal(outer.codes, np.repeat([0, 1, 2], 6))
    assert_array_equal(inner.codes, np.repeat(np.arange(9), 2))
    assert_array_equal(drawn.rows, np.r_[12:18, 0:6, 12:18])


def test_factors_that_are_crossed_with_the_groups_keep_their_levels():
    design = _design("(1 | school) + (1 | rater)")
    drawn = regrouped(design, factor_named(design, "school"), [1, 1])
    rater = next(f for f in drawn.factors if f.name == "rater")
    assert_array_equal(rater.codes, np.tile(np.arange(6, 12) % 5, 2))


def test_independent_groups_are_those_of_the_outermost_factor():
    assert independent_groups(_design(), "it").name == "school"
    with pytest.raises(ValueError, match="it needs groups .* school and rater are crossed"):
        independent_groups(_design("(1 | school) + (1 | rater)"), "it")
    design = _design("(1 | school)")
    tied = replace(design, factors=(replace(design.factors[0], across=object()),))
    with pytest.raises(ValueError, match="the levels of school covary"):
        independent_groups(tied, "it")


def test_levels_that_share_effects_are_not_independent():
    design = _design()
    _check_independent(design, factor_named(design, "school"), "it")
    with pytest.raises(ValueError, match="different levels of 'pupil:school' share .* of 'school'"):
        _check_independent(design, factor_named(design, "pupil:school"), "it")
    with pytest.raises(ValueError, match="no grouping factor 'class'; there are"):
        factor_named(design, "class")
