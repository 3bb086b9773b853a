"""The constrained deviance against the dense one, and its derivatives against differences."""

import jax
import numpy as np
import pytest
from helpers import arrays, oracle
from helpers.fits import fitted
from numpy.testing import assert_allclose

from interlace_jax.inference import profiles
from interlace_jax.numerics.uncertainty import profile_limits
from interlace_jax.runtime import calls

value_and_gradient = arrays.quick_jit(jax.value_and_grad(profile_limits.deviance_at))


def question(fit, name):
    """A question about a fit, and a point in general position."""
    asked, _ = profiles.Profiles(fit, [name], fit.method).questions[0]
    rng = np.random.default_rng(0)
    return asked, asked.y + np.append(rng.normal(0, 0.1, len(asked.y) - 1), 0.7)


NAMES = [
    "sd_(Intercept)|Subject",
    "sd_Days|Subject",
    "cor_Days.(Intercept)|Subject",
    "sigma",
    "Days",
]


@pytest.mark.parametrize("name", NAMES)
def test_at_the_centre_it_is_the_deviance(name):
    fit = fitted("sleepstudy_slope_ML")
    asked, _ = question(fit, name)
    value, gradient = calls.run(value_and_gradient, asked.y, asked, fit.model.moments)
    assert_allclose(value, fit.deviance, rtol=1e-12)
    assert_allclose(gradient, 0.0, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_agree_with_differences(name):
    fit = fitted("sleepstudy_slope_ML")
    asked, y = question(fit, name)
    m = fit.model.moments
    _, gradient = calls.run(value_and_gradient, y, asked, m)
    numeric = oracle.gradient(
        lambda y: float(calls.run(value_and_gradient, y, asked, m)[0]), y, step=1e-3
    )
    assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-6)


def test_a_coefficient_held_fixed_is_an_offset():
    """d(c) is the ML deviance of y - c x on the other columns."""
    fit = fitted("sleepstudy_slope_ML")
    asked, _ = question(fit, "Days")
    frame = fit.model.data
    c = 8.0
    y = np.append(asked.y[:-1], (c - fit.fe_params["Days"]) / fit.fe_bse["Days"])
    value, _ = calls.run(value_and_gradient, y, asked, fit.model.moments)
    other = fit.model.update(
        "Reaction ~ 1 + (1 + Days | Subject)", weights=None, offset=c * frame.Days
    )
    design, f = other.design, other.design.factors[0]
    factor = oracle.Factor(f.codes, f.Z, len(f.levels), ((0, 1),))
    problem = oracle.Problem(design.y, design.X, (factor,), None, design.offset)
    assert_allclose(value, oracle.joint_deviance(problem, fit.theta, fit.sigma, False), rtol=1e-10)


def test_a_perfect_correlation_and_a_zero_sd_have_finite_derivatives():
    fit = fitted("sleepstudy_slope_ML")
    for name, c in (("cor_Days.(Intercept)|Subject", np.pi / 2), ("sd_Days|Subject", 0.0)):
        asked, y = question(fit, name)
        y[-1] = (c - asked.centre) / asked.unit
        value, gradient = calls.run(value_and_gradient, y, asked, fit.model.moments)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        # the deviance is even about a perfect correlation
        assert name.startswith("sd") or abs(gradient[-1]) < 1e-6
