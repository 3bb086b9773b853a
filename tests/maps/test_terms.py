"""F tests of terms in every model are those of the fit."""

import numpy as np
import pytest
from helpers import many_maps
from numpy.testing import assert_allclose

COLUMNS = ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]


@pytest.mark.parametrize("type", [1, 2, 3])
@pytest.mark.parametrize("lane", ["whole", "flat"])
def test_terms_of_responses(lane, type):
    table, expected = many_maps.many().anova(type), many_maps.single(lane).anova(type)
    ours = table[table["model"] == lane]
    assert ours["term"].tolist() == list(expected.index)
    assert_allclose(ours[COLUMNS], expected[COLUMNS], rtol=5e-3, atol=1e-6)


def test_type_three_of_a_model_with_missing_values_is_that_of_its_rows():
    ours = many_maps.many().anova(3).query("model == 'holes'")
    assert_allclose(ours[COLUMNS], many_maps.single("holes").anova(3)[COLUMNS], rtol=5e-3)


@pytest.mark.parametrize("lane", ["whole", "other"])
def test_groups_have_hypotheses_of_their_own(lane):
    ours = many_maps.by_group().anova(2).query("lane == @lane")
    expected = many_maps.of_group(lane).anova(2)
    assert ours["term"].tolist() == list(expected.index)
    assert_allclose(ours[COLUMNS], expected[COLUMNS], rtol=5e-3)


def test_a_model_that_was_not_fitted_has_no_test_and_other_types_are_refused():
    assert np.isnan(many_maps.many().anova().query("model == 'constant'")["F value"]).all()
    with pytest.raises(ValueError, match="type must be 1 or 2 or 3"):
        many_maps.many().anova(4)
