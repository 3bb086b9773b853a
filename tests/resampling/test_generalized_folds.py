"""Cross-validation with a family: folds are fits of the other rows, predictions integrals."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

import interlace_jax as interlace

CBPP = interlace.load_dataset("cbpp")
FORMULA = "incidence ~ period + (1 | herd)"


@cache
def by_herd():
    """Every herd predicted from the others."""
    return interlace.cross_val(FORMULA, CBPP, family="binomial", trials="size")


def fit(frame):
    """The model of some rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return interlace.fit(FORMULA, frame, family="binomial", trials="size")


def test_a_herd_left_out_has_the_mixture_over_herds():
    herd = CBPP["herd"].iloc[0]
    left, out = CBPP[CBPP["herd"] != herd], CBPP[CBPP["herd"] == herd]
    other = fit(left)
    eta = other.predict(out, type="link", include_re=False).to_numpy()
    found = by_herd().predictions.loc[out.index]
    assert_allclose(found["predicted"], other.predict(out, marginal=True), rtol=1e-6)
    z = np.linspace(-8, 8, 4001)
    p = special.expit(eta[:, None] + other.theta[0] * z)
    chance = stats.binom.pmf(
        out["incidence"].to_numpy()[:, None], out["size"].to_numpy()[:, None], p
    )
    exact = np.log((chance * stats.norm.pdf(z)).sum(1) * (z[1] - z[0]))
    assert_allclose(found["log_density"], exact, rtol=1e-5)
    assert_allclose(found["observed"], out["incidence"] / out["size"])


def test_scores_are_of_the_predictions():
    found = by_herd()
    assert found.pooled["log_score"] == pytest.approx(-found.predictions["log_density"].mean())
    error = found.predictions["observed"] - found.predictions["predicted"]
    assert found.pooled["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert found.folds["converged"].all() and len(found.folds) == CBPP["herd"].nunique()
    again = fit(CBPP).cross_val(cv="kfold-rows", k=3, seed=1, scoring="mae")
    assert list(again.pooled.index) == ["mae"] and (again.folds["status"] == "converged").all()


def test_rows_of_herds_that_are_known_are_predicted_with_their_effects():
    found = fit(CBPP).cross_val(cv=[(np.arange(4, 56), np.arange(4)), (np.arange(55), [55])])
    other = fit(CBPP.iloc[:55])
    eta = other.predict(CBPP.iloc[[55]], type="link").iloc[0]
    z, se = np.linspace(-8, 8, 4001), other.random_effects_se["herd"][CBPP["herd"].iloc[55]]
    average = (special.expit(eta + se * z) * stats.norm.pdf(z)).sum() * (z[1] - z[0])
    assert found.predictions["predicted"].iloc[-1] == pytest.approx(average, rel=1e-5)


def test_folds_that_cannot_be_fitted_say_why():
    frame = pd.DataFrame({"g": list("aabbccdd") * 3, "y": [1.0, 0] * 12, "f": ["u"] * 23 + ["v"]})
    found = interlace.cross_val(
        "y ~ f + (1 | g)",
        frame,
        family="binomial",
        cv=[(np.arange(23), [23]), (np.arange(1, 24, 2), [0]), (np.arange(24), [3])],
    )
    assert "rank deficient" in found.folds["status"].iloc[0]
    assert "is 0 in all 12 rows" in found.folds["status"].iloc[1]
    assert np.isnan(found.folds["log_score"].iloc[1])
    with pytest.raises(ValueError, match="scoring must be 'rmse' or 'mae' or 'log_score'"):
        interlace.cross_val(FORMULA, CBPP, family="binomial", trials="size", scoring="crps")
