"""Responses drawn from a model."""

import numpy as np
import pytest
from helpers.fits import fitted
from numpy.testing import assert_allclose


def _marginal_covariance(fit, rows):
    """Cov(y) of some rows by the definition, for one factor."""
    f = fit.model.design.factors[0]
    L, Z, codes = fit.Lambdas[0], f.Z[rows], f.codes[rows]
    together = Z @ L @ L.T @ Z.T * (codes[:, None] == codes[None])
    w = fit.model.design.weights
    return fit.scale * (together + np.diag(1 / w[rows] if w is not None else np.ones(len(rows))))


@pytest.mark.parametrize("name", ["sleepstudy_slope_REML", "weighted_REML"])
def test_simulated_responses_have_the_mean_and_covariance_of_the_model(name):
    fit, nsim = fitted(name), 20000
    rows = np.r_[0:4, 10:13]
    Y = fit.simulate(nsim, seed=2).to_numpy()[rows]
    expected = _marginal_covariance(fit, rows)
    mean = fit.predict(include_re=False).to_numpy()[rows]
    assert_allclose(Y.mean(1), mean, atol=5 * np.sqrt(expected.max() / nsim))
    assert_allclose(np.cov(Y), expected, atol=8 * expected.max() / np.sqrt(nsim))
