"""Bootstrap intervals among those of other methods."""

from helpers.fits import fitted
from helpers.resampled import _parametric, _sleep
from pandas.testing import assert_frame_equal


def test_bootstrap_intervals_are_found_among_the_others():
    table = _sleep().confint(method="boot", nsim=400, seed=1, parm="beta_")
    assert_frame_equal(table, _parametric().confint().loc[["Intercept", "Days"]], rtol=1e-6)


def test_intervals_have_the_order_of_those_of_the_fit():
    fit = fitted("sleepstudy_slope_REML")
    made = fit.bootstrap(20, seed=1, progress=False)
    assert (
        list(made.confint().index)
        == list(made.confint(kind="basic").index)
        == list(fit.confint().index)
    )
