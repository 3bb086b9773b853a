"""Robust standard errors by the infinitesimal jackknife, and the derivatives behind them."""

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose


def test_effects_add_up_to_zero():
    """Counting every group twice changes no estimate of an ML fit: the derivatives are those of
    the score.
    """
    fit = fitted("sleepstudy_slope_ML")
    effects = fit.jackknife().effects
    assert_allclose(effects.sum() / effects.abs().sum(), 0.0, atol=1e-6)


def test_of_a_balanced_design_it_gives_the_standard_errors_of_maximum_likelihood():
    """Groups with one design are a sample of least-squares coefficients, and CR0 is the sample's
    covariance over m.
    """
    fit = fitted("sleepstudy_slope_REML")
    each = (
        sleepstudy()
        .groupby("Subject")
        .apply(lambda d: pd.Series(np.polyfit(d.Days, d.Reaction, 1)[::-1]))
    )
    wanted = np.cov(each.T, bias=True) / 18
    assert_allclose(fit.jackknife().cov.iloc[:2, :2], wanted, rtol=1e-9)


def test_it_is_near_the_jackknife_of_deletions():
    """m = 18: the deletion jackknife is larger by about (m / (m - 1))^2 and by what is of second
    order.
    """
    fit = fitted("sleepstudy_slope_REML")
    deleted = [
        quiet_fit(
            "Reaction ~ Days + (Days | Subject)", sleepstudy().query("Subject != @s")
        ).parameters
        for s in sleepstudy().Subject.unique()[:6]
    ]
    exact = fit.parameters - pd.DataFrame(deleted)
    effects = fit.jackknife().effects.iloc[:6]
    error = (effects.to_numpy() - exact).abs().max()
    assert (error < 0.3 * exact.abs().max()).all()


def test_crossed_groups_are_refused():
    with pytest.raises(ValueError, match="crossed"):
        fitted("penicillin_REML").jackknife()
    with pytest.raises(ValueError, match="independent.*'plate'"):
        fitted("penicillin_REML").jackknife("plate")


def test_nested_groups_are_those_of_the_outermost_factor():
    found = fitted("pastes_REML").jackknife()
    assert found.by == "batch"
    assert found.effects.shape == (10, 4)
    with pytest.raises(ValueError, match="independent"):
        fitted("pastes_REML").jackknife("cask:batch")
