"""The names of R's HLMdiag."""

from helpers.fits import fitted
from helpers.influence import measured
from numpy.testing import assert_allclose

import interlace_jax as interlace

MEASURES = ["cooksd", "mdffits", "covtrace", "covratio"]


def test_hlmdiags_names_are_aliases():
    fit = fitted("sleepstudy_slope_REML")
    by_subject = interlace.hlm_influence(fit, "Subject")
    assert by_subject.columns[:4].tolist() == MEASURES
    assert_allclose(by_subject["cooksd"], measured("sleepstudy_slope_REML", "Subject")["cooksd"])
    residuals = interlace.hlm_resid(fit, type="marginal", full_data=False)
    assert_allclose(residuals[".resid"] + residuals[".fitted"], fit.model.design.y)
    effects = interlace.hlm_resid(fit, level="Subject")
    assert effects.columns.tolist() == [".ranef.Subject.(Intercept)", ".ranef.Subject.Days"]
    assert_allclose(interlace.hlm_augment(fit, "Subject")[".cooksd"], by_subject["cooksd"])
    assert ".mdffits" in interlace.hlm_augment(fit)
