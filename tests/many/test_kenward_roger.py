"""Kenward and Roger's rule in many models is that of each fit by itself, and is refused in words
where it is not defined.
"""

import pytest
from helpers import many_maps
from numpy.testing import assert_allclose

NUMBERS = ["estimate", "se", "df", "t", "p"]
KENWARD_ROGER = dict(ddf="kenward-roger")


@pytest.mark.parametrize("lane", ["whole", "holes", "flat"])
def test_tests_and_tables_are_those_of_the_fit(lane):
    many, fit = many_maps.many(), many_maps.single(lane)
    of_lane = f"model == '{lane}'"
    # The two searches end at most 1e-9 deviance units apart: what depends on theta agrees to its
    # root.
    ours = many.test("x = 0", **KENWARD_ROGER).query(of_lane)
    assert_allclose(ours[NUMBERS], fit.test("x = 0", **KENWARD_ROGER)[NUMBERS], rtol=5e-3)
    ours = many.test("dose[T.low], dose[T.none]", **KENWARD_ROGER).query(of_lane)
    expected = fit.test("dose[T.low], dose[T.none]", **KENWARD_ROGER)
    assert_allclose(ours[list(expected)], expected, rtol=5e-3)
    if lane == "holes":
        ours = many.anova(**KENWARD_ROGER).query(of_lane)
        expected = fit.anova(**KENWARD_ROGER)
        assert_allclose(ours[list(expected)], expected, rtol=5e-3)


def test_groups_are_tested_on_the_coefficients_that_they_have():
    many, fit = many_maps.by_group(), many_maps.of_group("other")
    rows = many.test(["x", "dose[T.low]"], joint=False, **KENWARD_ROGER).query("lane == 'other'")
    assert_allclose(
        rows[NUMBERS].iloc[0], fit.test("x", **KENWARD_ROGER)[NUMBERS].iloc[0], rtol=5e-3
    )
    assert rows[NUMBERS].iloc[1].isna().all()
    table = many.anova(2, **KENWARD_ROGER).query("lane == 'other'")
    expected = fit.anova(2, **KENWARD_ROGER)
    assert_allclose(table[list(expected)], expected, rtol=5e-3)


def test_it_is_refused_where_it_is_not_defined():
    with pytest.raises(ValueError, match="use method='REML', or ddf='satterthwaite'"):
        many_maps.many(method="ML").test("x", **KENWARD_ROGER)
    with pytest.raises(ValueError, match="'satterthwaite' or 'kenward-roger' or 'normal'"):
        many_maps.many().test("x", ddf="between-within")
