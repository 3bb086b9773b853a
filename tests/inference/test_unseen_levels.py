"""Predictions of generalised models for levels that the fit has not seen."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(1)
    a, b = np.repeat(np.arange(12), 10), np.tile(np.arange(10), 12)
    mean = np.exp(0.5 + 0.6 * rng.normal(size=12)[a] + 0.4 * rng.normal(size=10)[b])
    data = pd.DataFrame({"y": rng.poisson(mean), "a": a.astype(str), "b": b.astype(str)})
    return interlace.fit("y ~ 1 + (1 | a) + (1 | b)", data, family="poisson")


def test_only_levels_that_are_not_known_are_averaged_over(fit):
    """With a log link the average over one factor is exp(eta + variance / 2)."""
    new = pd.DataFrame({"a": ["3", "new", "3", "new"], "b": ["4", "4", "new", "new"]})
    eta = fit.predict(new, type="link")
    extra = np.array(
        [0.0, *fit.variance_components.values(), sum(fit.variance_components.values())]
    )
    assert list(fit.variance_components) == ["a", "b"]
    assert_allclose(fit.predict(new, unseen="average"), np.exp(eta + extra / 2), rtol=1e-8)
    assert_allclose(fit.predict(new), np.exp(eta))
    assert_allclose(fit.predict(new, unseen="average")[3], fit.predict(new, marginal=True)[3])


def test_averages_are_of_responses(fit):
    with pytest.raises(ValueError, match="unseen='average' is for responses"):
        fit.predict(type="link", unseen="average")
    with pytest.raises(ValueError, match="unseen must be 'typical' or 'average'"):
        fit.predict(unseen="mean")
