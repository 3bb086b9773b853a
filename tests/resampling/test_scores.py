"""Scores of predictions against their definitions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from interlace_jax.resampling import scores

Y, MEAN, SD = np.array([1.0, -2.0, 0.5]), np.array([0.5, -1.0, 0.5]), np.array([1.0, 2.0, 0.3])


def test_errors_of_means():
    assert_allclose(scores.rmse(Y, MEAN, SD), np.sqrt((0.25 + 1.0 + 0.0) / 3))
    assert_allclose(scores.mae(Y, MEAN, SD), 0.5)


def test_the_log_score_is_the_mean_of_minus_log_densities():
    assert_allclose(scores.log_score(Y, MEAN, SD), -np.mean(stats.norm.logpdf(Y, MEAN, SD)))


def test_crps_is_the_integral_of_squared_differences_of_distributions():
    each = []
    for y, mean, sd in zip(Y, MEAN, SD, strict=True):
        below = integrate.quad(lambda z, m=mean, s=sd: stats.norm.cdf(z, m, s) ** 2, -np.inf, y)[0]
        above = integrate.quad(lambda z, m=mean, s=sd: stats.norm.sf(z, m, s) ** 2, y, np.inf)[0]
        each.append(below + above)
    assert_allclose(scores.crps(Y, MEAN, SD), np.mean(each), rtol=1e-6)


def test_scores_are_named_given_or_listed():
    assert list(scores._scores(None)) == ["rmse", "mae", "crps", "log_score"]
    assert list(scores._scores(["mae", "crps"])) == ["mae", "crps"]
    own = scores._scores({"bias": lambda y, y_pred: np.mean(y_pred - y)})
    assert_allclose(own["bias"](Y, MEAN, SD), np.mean(MEAN - Y))
    with pytest.raises(ValueError, match="scoring"):
        scores._scores("r2")
    with pytest.raises(TypeError, match="a function of"):
        scores._scores([3])


def test_rows_without_a_prediction_do_not_count():
    values = np.array([Y, [0.5, np.nan, 0.5], SD])
    found = scores._score({"mae": scores.mae}, values)
    assert_allclose(found["mae"], 0.25)
    assert np.isnan(scores._score({"mae": scores.mae}, values * [[1], [np.nan], [1]])["mae"])
