"""Random effects, predictions and shares of variance of every model are those of the fit."""

import numpy as np
import pandas as pd
import pytest
from helpers import many_maps
from numpy.testing import assert_allclose

LANES = ["whole", "holes", "flat"]
each_lane = pytest.mark.parametrize("lane", LANES)


@each_lane
def test_random_effects_are_those_of_the_fit(lane):
    table = many_maps.many().random_effects()["subject"]
    ours = table[table["model"] == lane].pivot(index="level", columns="term", values="value")
    expected = many_maps.single(lane).random_effects["subject"]
    assert_allclose(ours[expected.columns].loc[expected.index], expected, atol=2e-3)


@each_lane
@pytest.mark.parametrize("include_re", [True, False])
def test_predictions_are_those_of_the_fit(lane, include_re):
    new = many_maps.frame().iloc[[0, 15, 100]].assign(x=[0.0, 1.0, np.nan])
    new["subject"] = [0, 99, 10]
    ours = many_maps.many().predict(new, include_re)
    expected = many_maps.single(lane).predict(new, include_re)
    assert list(ours) == many_maps.LANES and ours["constant"].isna().all()
    assert_allclose(ours[lane], expected, atol=2e-3)


def test_the_rows_of_the_fit_are_predicted_by_default():
    assert_allclose(
        many_maps.many().predict()["whole"], many_maps.single("whole").fittedvalues, atol=2e-3
    )


@each_lane
def test_shares_of_variance_are_those_of_r_squared(lane):
    shares = many_maps.many().variance_fractions()
    assert list(shares) == ["fixed", "subject", "residual"]
    r2 = many_maps.single(lane).r2()["estimate"]
    assert_allclose(shares.loc[lane, "fixed"], r2["marginal"], atol=1e-3)
    assert_allclose(shares.loc[lane, ["fixed", "subject"]].sum(), r2["conditional"], atol=1e-3)
    assert_allclose(shares.drop("constant").sum(axis=1), 1.0) and shares.loc[
        "constant"
    ].isna().all()


def test_rows_of_groups_are_predicted_by_the_model_of_their_group():
    many, rows = many_maps.by_group(), many_maps.groups().iloc[[0, 130, 150, 220]]
    ours = many.predict(rows)
    for i, lane in enumerate(rows["lane"]):
        assert_allclose(
            ours.iloc[i], many_maps.of_group(lane).predict(rows.iloc[[i]]).iloc[0], atol=2e-3
        )
    effects = many.random_effects()["subject"].query("lane == 'other'").set_index("level")["value"]
    expected = many_maps.of_group("other").random_effects["subject"]
    assert_allclose(effects[expected.index], expected, atol=2e-3)
    assert isinstance(ours, pd.Series) and many.variance_fractions().notna().all(axis=None)
