"""Marginal means of transformed responses, taken back; numbers of emmeans 1.8.4 for lme4's fits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.inference import scales


@pytest.fixture(scope="module")
def cake():
    data = interlace.load_dataset("cake")
    return data.assign(temp=data["temp"].str[1:].astype(float))


def fitted(cake, response):
    return interlace.fit(f"{response} ~ recipe + temp + (1 | recipe:replicate)", cake)


def test_means_of_a_logarithm_are_those_of_emmeans(cake):
    fit = fitted(cake, "log(angle)")
    means = interlace.emmeans(fit, "recipe", type="response")
    table = means.frame
    assert_allclose(table["response"], [32.33997, 30.65952, 30.52433], rtol=1e-6)
    assert_allclose(table["se"], [1.6214571, 1.5372034, 1.5304248], rtol=2e-5)
    assert_allclose(table["lower"], [29.227834, 27.709105, 27.586917], rtol=1e-5)
    assert_allclose(table["upper"], [35.78347, 33.92410, 33.77451], rtol=1e-5)
    pairs = means.pairs(adjust="none")
    assert_allclose(pairs["ratio"], [1.0548097, 1.0594817, 1.0044292], rtol=1e-6)
    assert_allclose(pairs["se"], [0.07479198, 0.07512325, 0.07121972], rtol=2e-5)
    assert_allclose(pairs["lower"], [0.9141752, 0.9182243, 0.8705118], rtol=1e-5)
    assert list(pairs["contrast"]) == ["A / B", "A / C", "B / C"]
    assert means.response == "angle"


def test_bias_is_adjusted_by_the_variance_of_a_response(cake):
    table = interlace.emmeans(
        fitted(cake, "log(angle)"), "recipe", type="response", bias_adjust=True
    ).frame
    assert_allclose(table["response"], [33.21083, 31.48513, 31.34629], rtol=1e-5)
    assert_allclose(table["se"], [1.6651201, 1.5785976, 1.5716365], rtol=1e-4)
    assert_allclose(table["upper"], [36.74706, 34.83762, 34.68400], rtol=1e-5)


def test_roots_are_squared_and_their_differences_stay(cake):
    fit = fitted(cake, "np.sqrt(angle)")
    means = interlace.emmeans(fit, "recipe", type="response")
    assert_allclose(means.frame["response"], [32.72487, 31.13955, 31.05053], rtol=1e-6)
    assert_allclose(means.frame["se"], [1.6750903, 1.6340127, 1.6316754], rtol=2e-5)
    assert_allclose(means.frame["lower"], [29.431703, 27.929281, 27.844978], rtol=1e-5)
    plain = interlace.emmeans(fit, "recipe").pairs(adjust="none")
    assert_allclose(means.pairs(adjust="none")["estimate"], plain["estimate"])


def test_only_a_whole_response_is_taken_back():
    assert scales.untransformed("np.log(y + 1)") == "y + 1"
    assert scales.transformation_of("log(a) - log(b)") is None
    assert scales.untransformed("log(a) - log(b)") == "log(a) - log(b)"
    assert scales.transformation_of("log10(y)") is None
    assert np.isclose(
        scales.ResponseScale(scales.transformation_of("log(y)"), None).mean(np.array([0.0]))[0], 1.0
    )
