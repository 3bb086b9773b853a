"""Profiles of generalised models: where the deviance has risen by z^2, all else re-optimised.

References: `confint(method="profile")` of lme4 1.1-31 (glmer with tolPwrss = 1e-10) and of glmmTMB
1.1.5; both interpolate their profiles.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace

ROWS = pd.read_csv(Path(__file__).parents[1] / "reference" / "generalized" / "rows.csv")
RISE = 3.841458820694124  # of the deviance, at the ends of an interval of 95%
GLMMTMB_CBPP = {
    "sd_(Intercept)|herd": (0.346052987, 1.099957745),
    "Intercept": (-1.901240934, -0.947786757),
    "period[T.p2]": (-1.616769248, -0.407775655),
    "period[T.p3]": (-1.801015578, -0.511547890),
    "period[T.p4]": (-2.500851844, -0.800757340),
}
LME4_POISSON_SLOPE = {
    "sd_(Intercept)|g": (0.4444648448, 0.8113456595),
    "cor_x.(Intercept)|g": (-0.7532916598, 0.1150654777),
    "sd_x|g": (0.1380038248, 0.3509289888),
    "Intercept": (-0.1387176745, 0.3353554605),
    "x": (0.4081395408, 0.6473020561),
}
GLMMTMB_NBINOM2 = {
    "sd_(Intercept)|g": (0.3700674629, 0.7401517769),
    "Intercept": (-0.08905247412, 0.3626224586),
    "x": (0.41130991204, 0.6360783497),
    "size": (np.exp(0.4367879263), np.exp(1.073962942)),
}


@cache
def cbpp():
    """The fit of cbpp."""
    data = interlace.load_dataset("cbpp")
    return interlace.fit("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


def counts(random, **more):
    """A fit of the counts."""
    formula = f"count ~ x + offset(log(exposure)) + {random}"
    return interlace.fit(formula, ROWS, **({"family": "poisson"} | more))


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (cbpp, GLMMTMB_CBPP),
        (lambda: counts("(1 + x | g)"), LME4_POISSON_SLOPE),
        (lambda: counts("(1 | g)", family="nbinom2"), GLMMTMB_NBINOM2),
    ],
)
def test_limits_are_those_of_the_references(make, want):
    found = make().confint(method="profile")
    assert set(found.index) == set(want)
    assert_allclose(found.loc[list(want)], list(want.values()), atol=4e-4)


def test_at_a_limit_the_model_with_the_coefficient_held_has_risen_by_the_quantile():
    fit = counts("(1 | g)")
    for limit in fit.confint(method="profile", parm="x").loc["x"]:
        held = interlace.fit(
            "count ~ 1 + (1 | g)",
            ROWS,
            family="poisson",
            offset=np.log(ROWS["exposure"]) + limit * ROWS["x"],
        )
        assert held.deviance - fit.deviance == pytest.approx(RISE, abs=1e-6)


def test_profiles_are_curves_through_the_estimates():
    table = cbpp().profile("sd_(Intercept)|herd", zmax=2.0, points=2)
    assert_allclose(table["zeta"], [-2, -1, 0, 1, 2], atol=1e-6)
    assert table["value"].is_monotonic_increasing
    assert table["value"][2] == pytest.approx(cbpp().theta[0])


def test_a_standard_deviation_that_may_be_0_has_0_as_its_limit():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"g": np.repeat(np.arange(10), 6).astype(str), "x": rng.normal(size=60)})
    frame["y"] = np.tile([0.0, 1.0, 2.0, 3.0, 1.0, 2.0], 10)
    with pytest.warns(interlace.SingularFitWarning):
        fit = interlace.fit("y ~ x + (1 | g)", frame, family="poisson")
    limits = fit.confint(method="profile", parm=["sd_(Intercept)|g", "x"])
    assert limits.loc["sd_(Intercept)|g", "lower"] == 0.0
    assert 0.05 < limits.loc["sd_(Intercept)|g", "upper"] < 1.0
    assert limits.attrs["at_boundary"] == [("sd_(Intercept)|g", "lower")]
    assert limits.loc["x", "lower"] < fit.fe_params["x"] < limits.loc["x", "upper"]


def test_other_criteria_are_refused():
    with pytest.raises(ValueError, match="fitted by maximum likelihood"):
        cbpp().confint(method="profile", criterion="REML")
