"""The paragraph says what was fitted and found, with the numbers of the fit, and claims no more."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy

import interlace_jax as interlace
from interlace_jax.result import Fit

SLEEP = fitted("sleepstudy_slope_REML")


def test_report_of_sleepstudy():
    assert interlace.report(SLEEP) == (
        "A linear mixed model of Reaction was fitted by restricted maximum likelihood (formula: "
        f"{SLEEP.design.formula}), with random intercepts and random effects of Days by Subject "
        "(correlated). It was fitted to 180 observations of 18 levels of Subject. Tests and "
        "intervals use Satterthwaite's degrees of freedom. The intercept was estimated as b = "
        "251.41, SE = 6.82, 95% CI [237.01, 265.80]. The coefficient of Days differed from 0, b "
        "= 10.47, SE = 1.55, 95% CI [7.21, 13.73], t(17.0) = 6.77, p < .001. The standard "
        "deviations of the random effects were estimated as follows. Subject: 24.74 for "
        "(Intercept) and 5.92 for Days (correlation 0.07); residual: 25.59."
    )


def test_an_effect_that_is_not_clear_is_not_called_absent():
    data = sleepstudy().assign(noise=np.tile([0.0, 1.0, 1.0, 0.0], 45))
    text = interlace.report(quiet_fit("Reaction ~ noise + (1 | Subject)", data))
    assert "The coefficient of noise could not be told from 0, b =" in text
    assert "no effect" not in text and "significant" not in text


def test_rows_left_out_and_singular_fits_are_told():
    data = sleepstudy()
    data.loc[[3, 7], "Days"] = np.nan
    assert "; 2 further rows had missing values" in interlace.report(
        quiet_fit("Reaction ~ Days + (1 | Subject)", data)
    )
    assert "The fit was singular" in interlace.report(fitted("dyestuff2_REML"))


def test_a_search_that_did_not_converge_warns_the_reader():
    unfinished = Fit(
        SLEEP.model,
        replace(SLEEP.estimate, status=3, predicted_decrease=1.0),
        "REML",
        "satterthwaite",
    )
    assert interlace.report(unfinished).endswith("none of these numbers should be relied on.")


def test_models_without_fixed_effects_and_normal_tests_have_sentences():
    assert "It has no fixed effects." in interlace.report(
        quiet_fit("Reaction ~ 0 + (1 | Subject)", sleepstudy())
    )
    normal = quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy(), df_method="normal")
    assert ", z = 13.0" in interlace.report(normal)


def test_what_is_no_fit_is_refused():
    with pytest.raises(TypeError, match="report takes a fit"):
        interlace.report(3)
