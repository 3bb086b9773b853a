"""Tables of one shape: their numbers are those of the fit, by whatever name the fit has them."""

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from scipy import stats

import interlace_jax as interlace

SLEEP = fitted("sleepstudy_slope_REML")


def test_fixed_effects_are_those_of_the_summary():
    table = SLEEP.tidy("fixed").set_index("term")
    assert (
        list(table.columns)
        == "effect group estimate std_error statistic df p_value conf_low conf_high".split()
    )
    np.testing.assert_array_equal(table["estimate"], SLEEP.fe_params)
    np.testing.assert_allclose(table["std_error"], SLEEP.fe_bse, rtol=1e-12)
    np.testing.assert_allclose(table["df"], SLEEP.fe_df, rtol=1e-12)
    np.testing.assert_allclose(table["p_value"], SLEEP.fe_pvalues, rtol=1e-10)
    np.testing.assert_allclose(table[["conf_low", "conf_high"]], SLEEP.fe_conf_int, rtol=1e-12)


def test_level_and_rule_are_passed_on():
    table = SLEEP.tidy("fixed", level=0.8, ddf="normal")
    assert np.isinf(table["df"]).all()
    half = stats.norm.ppf(0.9) * table["std_error"]
    np.testing.assert_allclose(table["conf_high"] - table["estimate"], half, rtol=1e-10)


def test_exponentiated_effects_are_ratios():
    plain, ratios = SLEEP.tidy("fixed").loc[1], SLEEP.tidy("fixed", exponentiate=True).loc[1]
    assert ratios["estimate"] == pytest.approx(np.exp(plain["estimate"]))
    assert ratios["conf_low"] == pytest.approx(np.exp(plain["conf_low"]))
    assert ratios["std_error"] == pytest.approx(np.exp(plain["estimate"]) * plain["std_error"])
    assert ratios["p_value"] == plain["p_value"]


def test_random_parameters_are_those_of_varcorr_in_the_words_of_broom_mixed():
    table = SLEEP.tidy("ran_pars")
    assert list(zip(table["group"], table["term"], strict=True)) == [
        ("Subject", "sd__(Intercept)"),
        ("Subject", "sd__Days"),
        ("Subject", "cor__(Intercept).Days"),
        ("Residual", "sd__Observation"),
    ]
    np.testing.assert_allclose(table["estimate"], SLEEP.varcorr["sdcor"], rtol=1e-10)
    np.testing.assert_allclose(table["conf_low"], SLEEP.varcorr["lower"], rtol=1e-10)


def test_parameters_of_a_structure_have_rows():
    cov = {"Worker": interlace.CompoundSymmetry()}
    fit = quiet_fit(
        "score ~ Machine + (0 + Machine | Worker)", interlace.load_dataset("machines"), cov=cov
    )
    row = fit.tidy("ran_pars").set_index(["group", "term"]).loc[("Worker", "rho")]
    assert row["estimate"] == pytest.approx(fit.structure.loc["rho|Worker", "estimate"])


def test_random_effects_have_a_row_a_level_and_term():
    table = SLEEP.tidy("ran_vals")
    wide = table.pivot(index="level", columns="term", values="estimate")
    pd.testing.assert_frame_equal(wide, SLEEP.random_effects["Subject"], check_names=False)
    limits = table.pivot(index="level", columns="term", values="conf_low")["Days"]
    np.testing.assert_allclose(
        limits, SLEEP.random_effects_ci()["Subject"]["Days", "lower"], rtol=1e-12
    )


def test_a_variance_of_zero_has_no_interval():
    row = fitted("dyestuff2_REML").tidy("ran_pars").iloc[0]
    assert row["estimate"] == 0.0 and np.isnan(row["conf_low"]) and np.isnan(row["std_error"])


def test_unknown_effects_are_refused_by_name():
    with pytest.raises(ValueError, match="'ran_vals', not 'random'"):
        SLEEP.tidy("random")


def test_models_without_fixed_effects_have_no_such_rows():
    fit = quiet_fit("Reaction ~ 0 + (1 | Subject)", sleepstudy())
    assert fit.tidy("fixed").empty
    assert len(fit.tidy()) == 2


def test_glance_is_a_row_of_the_criteria():
    row = SLEEP.glance().iloc[0]
    assert (row["nobs"], row["nparams"], row["df_residual"]) == (180, 6, 174)
    assert (row["aic"], row["bic"], row["log_lik"]) == (SLEEP.aic, SLEEP.bic, SLEEP.llf)
    assert row["method"] == "REML" and row["converged"] and not row["singular"]
