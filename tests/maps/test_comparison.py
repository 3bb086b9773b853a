"""Likelihood-ratio tests of two formulas in every model are those of `anova` between single
fits.
"""

import warnings

import numpy as np
import pytest
from helpers import many_maps
from numpy.testing import assert_allclose

import interlace_jax as interlace

COLUMNS = ["Chisq", "Df", "Pr(>Chisq)", "Pr(>Chisq) boundary"]
WITHOUT_SLOPES = many_maps.FORMULA.replace("1 + x |", "1 |")
WITHOUT_DOSE = many_maps.FORMULA.replace("dose * x", "x")


def _anova(lane, right):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return interlace.anova(many_maps.single(lane, right), many_maps.single(lane)).iloc[-1]


@pytest.mark.parametrize("lane", ["whole", "holes", "flat"])
def test_fixed_effects_are_compared_by_ml(lane):
    with pytest.warns(UserWarning, match="REML fits are refitted by ML"):
        table = many_maps.many().compare(many_maps.many(WITHOUT_DOSE))
    row = table[table["model"] == lane].iloc[0]
    assert_allclose(
        row[COLUMNS].astype(float),
        _anova(lane, WITHOUT_DOSE)[COLUMNS].astype(float),
        rtol=1e-4,
        atol=1e-6,
    )
    assert table[table["model"] == "constant"][COLUMNS].isna().all(axis=None)


@pytest.mark.parametrize("lane", ["whole", "flat"])
def test_variances_are_compared_by_reml_at_the_boundary(lane):
    table = many_maps.many().compare(many_maps.many(WITHOUT_SLOPES))
    row = table[table["model"] == lane].iloc[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = interlace.anova(
            many_maps.single(lane, WITHOUT_SLOPES), many_maps.single(lane), refit=False
        ).iloc[-1]
    assert_allclose(
        row[COLUMNS].astype(float), expected[COLUMNS].astype(float), rtol=1e-4, atol=1e-6
    )
    assert row["Pr(>Chisq) boundary"] <= row["Pr(>Chisq)"]


def test_models_that_do_not_compare_are_refused():
    many = many_maps.many()
    fewer = interlace.fit_many(
        "~ x + (1 | subject)", many_maps.frame(), responses=many_maps.responses().iloc[:, :2]
    )
    with pytest.raises(ValueError, match="different models"):
        many.compare(fewer)
    with pytest.raises(TypeError, match="another fit_many, not Fit"):
        many.compare(many_maps.single("whole"))
    with pytest.raises(ValueError, match="one method for both"):
        many.compare(many_maps.many(WITHOUT_SLOPES, method="ML"))


def test_statistics_are_never_negative():
    assert (many_maps.many().compare(many_maps.many(WITHOUT_SLOPES))["Chisq"].dropna() >= 0).all()
    assert np.isfinite(many_maps.many().llf.drop("constant")).all()
