"""Models with a residual covariance against polished references; their source: README of
tests/reference/residual.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax as interlace

FOLDER = Path(__file__).parents[1] / "reference" / "residual"
TAGS = {"arh1": "ar1h", "ante": "adh", "exp": "sp_exp", "gau": "sp_gau"}
NAMES = [f.stem for f in sorted((FOLDER / "cases").glob("*.json"))]
SINGULAR = ("sleepstudy_ar1_slope", "oxboys_exp_slope")
ADJUSTED = ["fev_ar1_arm_REML", "fev_us_full_REML", "fev_ante_arm_REML", "sleepstudy_ar1_int_REML"]


@cache
def case(name):
    return json.loads((FOLDER / "cases" / f"{name}.json").read_text())


@cache
def fitted(name):
    given, residual = case(name), case(name)["residual"]
    arguments = {}
    if (structure := residual.get("structure", "none")) != "none":
        times = (
            ", ".join(residual["coordinates"]) if "coordinates" in residual else residual["time"]
        )
        groups = " / ".join(
            [*([residual["by"]] if residual.get("by") else []), residual["subject"]]
        )
        arguments["residual"] = f"{TAGS.get(structure, structure)}({times} | {groups})"
    if sd := residual.get("sd"):
        arguments["dispersion"] = {
            "power": lambda: interlace.Power(sd["column"]),
            "power_fitted": lambda: interlace.Power("fitted"),
        }.get(sd["kind"], lambda: f"~ {sd.get('formula') or sd['column']}")()
    formula = " + ".join([given["fixed"], *given["bars"]])
    frame = pd.read_csv(FOLDER / given["data"])
    return quiet_fit(formula, frame, method=given["method"], weights=given["weights"], **arguments)


def found(name, fit, series):
    return series[case(name)["exact"]["coef_names"]].to_numpy()


@pytest.mark.parametrize("name", NAMES)
def test_the_optimum_is_the_references(name):
    fit, exact, tolerances = fitted(name), case(name)["exact"], case(name)["tolerances"]
    assert fit.converged
    assert fit.is_singular == name.startswith(SINGULAR)
    assert_allclose(fit.deviance, exact["minus2_loglik"], rtol=0, atol=tolerances["minus2_loglik"])
    se = np.array(exact["se"])
    beta = found(name, fit, fit.fe_params)
    assert_allclose(beta / se, exact["beta"] / se, rtol=0, atol=tolerances["beta_in_se"])
    assert_allclose(found(name, fit, fit.fe_bse), se, rtol=tolerances["se_relative"])
    assert_allclose(
        found(name, fit, fit.fe_df), exact["df_satterthwaite"], rtol=tolerances["df_relative"]
    )


def reported(name, fit):
    """Our names in the references' words."""
    residual, structure = case(name)["residual"], fit.structure
    tail = f" | {residual.get('time')} within {residual.get('subject')}"
    return structure.rename(index=lambda label: label.replace(tail, ""))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_their_errors_are_the_references(name):
    fit, expected = fitted(name), case(name)["exact"]["parameters"]
    assert_allclose(fit.sigma, expected["sigma"]["estimate"], rtol=1e-5)
    table = reported(name, fit)
    for label in table.index:
        key = "power" if label.startswith("power ") else label
        # the references give the ratio of SDs of a level
        if label.startswith("log sd") and key not in expected:
            level = label.rpartition("[T.")[2].rstrip("]")
            ratio = expected[f"ratio {level}"]
            assert_allclose(np.exp(table.estimate[label]), ratio["estimate"], rtol=1e-5)
            assert_allclose(table.se[label] * ratio["estimate"], ratio["se"], rtol=1e-4)
            continue
        assert_allclose(table.estimate[label], expected[key]["estimate"], rtol=1e-5, atol=1e-6)
        if expected[key]["se"] is not None:
            assert_allclose(table.se[label], expected[key]["se"], rtol=1e-4)


@pytest.mark.parametrize("name", ADJUSTED)
def test_kenward_roger_is_free_of_the_parametrisation(name):
    fit, exact = fitted(name), case(name)["exact"]["kenward_roger"]
    order = [fit.fe_params.index.get_loc(c) for c in case(name)["exact"]["coef_names"]]
    adjusted, linear = (
        fit.coefficients(rule) for rule in ("kenward-roger", "kenward-roger-linear")
    )
    assert_allclose(np.sqrt(np.diag(adjusted.vcov))[order], exact["se_2009"], rtol=1e-6)
    assert_allclose(np.sqrt(np.diag(linear.vcov))[order], exact["se_linear"], rtol=1e-6)
    assert_allclose(adjusted.df(np.eye(len(order)))[order], exact["df"], rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["fev_us_arm_REML", "fev_exp_t1_t2_arm_REML", "sleepstudy_ar1_int_REML"]
)
def test_normalized_residuals_are_the_references(name):
    fit, given = fitted(name), case(name)
    rows, expected = zip(*given["exact"]["whitened_marginal_residuals"]["values"], strict=True)
    assert_allclose(fit.residuals("normalized").iloc[list(rows)], expected, atol=1e-5)


def test_the_matrices_by_visit_are_the_references():
    exact = case("fev_ante_by_arm_REML")["exact"]["natural"]["by_group"]
    fit = fitted("fev_ante_by_arm_REML")
    for arm in ("PBO", "TRT"):
        assert_allclose(fit.residual_covariance[arm], exact[arm]["covariance"], rtol=1e-5)
        assert_allclose(
            fit.residual_correlation[arm], exact[arm]["correlation"], rtol=1e-5, atol=1e-7
        )
        assert list(fit.residual_covariance[arm].columns) == ["VIS1", "VIS2", "VIS3", "VIS4"]
