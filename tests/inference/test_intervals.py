"""Profiles and intervals against limits found by root finding in R, and against the dense
likelihood.
"""

import pytest
from helpers.cases import load_case
from helpers.fits import fitted, quiet_fit
from helpers.profiled import SDS, SLOPE
from numpy.testing import assert_allclose


def test_names_and_order_are_those_of_lme4():
    assert list(fitted(SLOPE).confint("profile").index) == [*SDS, "Intercept", "Days"]
    assert list(fitted(SLOPE).confint().index) == [*SDS, "Intercept", "Days"]


def test_reml_fits_have_ml_profiles_unless_asked_otherwise():
    ml, reml = fitted("sleepstudy_slope_ML").confint("profile"), fitted(SLOPE).confint("profile")
    assert_allclose(ml, reml, rtol=1e-7)
    assert set(reml.attrs["criterion"].values()) == {"ML"}


def test_levels_nest():
    narrow, wide = (fitted(SLOPE).confint("profile", level=level) for level in (0.5, 0.99))
    assert (wide.lower < narrow.lower).all() and (narrow.upper < wide.upper).all()


def test_rescaling_a_predictor_rescales_its_limits():
    case = load_case(SLOPE)
    fit = quiet_fit(case.formula, case.frame.assign(Days=lambda f: f.Days * 1e4))
    assert_allclose(
        fit.confint("profile").loc["sd_Days|Subject"] * 1e4,
        fitted(SLOPE).confint("profile").loc["sd_Days|Subject"],
        rtol=1e-6,
    )


def test_wald_limits_of_coefficients_use_their_df():
    fit = fitted(SLOPE)
    assert_allclose(fit.confint(parm="beta_"), fit.fe_conf_int)
    assert_allclose(fit.confint(parm="theta_"), fit.varcorr.loc[[0, 2, 1, 3], ["lower", "upper"]])


@pytest.mark.parametrize(
    "arguments",
    [
        dict(method="exact"),
        dict(parm="Dayz"),
        dict(level=0),
        dict(method="profile", criterion="AIC"),
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="profile|Days|level|REML"):
        fitted(SLOPE).confint(**arguments)
