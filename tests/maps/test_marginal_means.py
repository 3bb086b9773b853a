"""Marginal means of every model and their contrasts are those of the fit."""

import pytest
from helpers import many_maps
from numpy.testing import assert_allclose

import interlace_jax as interlace

NUMBERS = ["se", "df", "lower", "upper"]


@pytest.mark.parametrize("lane", ["whole", "flat"])
def test_means_and_contrasts_of_responses(lane):
    means, expected = (
        many_maps.many().emmeans("dose"),
        interlace.emmeans(many_maps.single(lane), "dose"),
    )
    ours = means.frame.query("model == @lane")
    assert ours["dose"].tolist() == expected.frame["dose"].tolist()
    assert_allclose(
        ours[["emmean", *NUMBERS]], expected.frame[["emmean", *NUMBERS]], rtol=2e-3, atol=1e-4
    )
    for make in (lambda m: m.pairs(), lambda m: m.contrasts("trt.vs.ctrl", ref="none")):
        rows, alone = make(means).query("model == @lane"), make(expected)
        assert rows["contrast"].tolist() == alone["contrast"].tolist()
        columns = ["estimate", *NUMBERS, "t", "p"]
        assert_allclose(rows[columns], alone[columns], rtol=5e-3, atol=1e-4)


def test_means_at_values_and_of_models_without_fit():
    means = many_maps.many().emmeans("dose", at={"x": [2.0]})
    assert "constant" not in set(means.frame["model"]) and "6 models" in repr(means)
    expected = interlace.emmeans(many_maps.single("other"), "dose", at={"x": [2.0]}).frame["emmean"]
    assert_allclose(means.frame.query("model == 'other'")["emmean"], expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("lane", ["whole", "other"])
def test_groups_have_the_levels_that_they_have(lane):
    ours = many_maps.by_group().emmeans("dose").frame.query("lane == @lane")
    expected = interlace.emmeans(many_maps.of_group(lane), "dose").frame
    assert ours["dose"].tolist() == expected["dose"].tolist()
    assert_allclose(
        ours[["emmean", *NUMBERS]], expected[["emmean", *NUMBERS]], rtol=2e-3, atol=1e-4
    )


def test_other_variables_are_refused():
    with pytest.raises(ValueError, match="'age' is no variable of the fixed part"):
        many_maps.many().emmeans("age")
