"""Residuals of every kind and leverages, against their definitions and lme4."""

import numpy as np
import pandas as pd
import pytest
from helpers.cases import load_case
from helpers.diagnostics import reference, structured
from helpers.fits import fitted
from numpy.testing import assert_allclose
from scipy import linalg

NAMES = ["pastes_REML", "penicillin_REML", "weighted_REML"]  # nested, crossed, weighted with slopes
LME4 = {
    "sleepstudy": "sleepstudy_slope_REML",
    "penicillin": "penicillin_REML",
    "weighted_int": "weighted_int_REML",
}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def standardized(name):
    """Conditional residuals over the SD that they have at this theta: e = W^-1 P y, Cov(e) =
    sigma^2 W^-1 P W^-1.
    """
    fit, problem = fitted(name), load_case(name).problem
    Vi = np.linalg.inv(problem.V(fit.theta))
    P = Vi - Vi @ problem.X @ np.linalg.solve(problem.X.T @ Vi @ problem.X, problem.X.T @ Vi)
    y = problem.y - problem.shift
    return (P @ y / problem.w) / (fit.sigma * np.sqrt(np.diag(P)) / problem.w)


def test_standardized_residuals_have_unit_variance_by_the_dense_formula(name):
    assert_allclose(
        fitted(name).residuals("standardized"), standardized(name), rtol=1e-6, atol=1e-9
    )


def test_normalized_residuals_whiten_the_marginal_ones(name):
    fit, problem = fitted(name), load_case(name).problem
    L = np.linalg.cholesky(problem.V(fit.theta))
    marginal = problem.y - problem.shift - problem.X @ fit.fe_params
    assert_allclose(fit.residuals("marginal"), marginal, atol=1e-10)
    assert_allclose(
        fit.residuals("normalized"),
        linalg.solve_triangular(L, marginal, lower=True) / fit.sigma,
        rtol=1e-8,
    )


def test_normalized_residuals_are_refused_where_too_many_rows_are_connected(monkeypatch):
    monkeypatch.setattr("interlace_jax.models.covariance.LARGEST", 100)
    with pytest.raises(ValueError, match="144 rows.*standardized"):
        fitted("penicillin_REML").residuals("normalized")
    assert len(fitted("sleepstudy_slope_REML").residuals("normalized")) == 180  # blocks of ten


@pytest.mark.parametrize("case", LME4)
def test_leverages_and_pearson_residuals_are_lme4s(case):
    fit, expected = fitted(LME4[case]), reference()[case]
    table = fit.leverage()
    # theta of both programs is good to 1e-6 or so of its SD: so are the hat values.
    assert_allclose(table["overall"], expected["hat"], atol=1e-6)
    assert_allclose(table["fixed"] + table["random"], table["overall"], rtol=1e-14)
    assert_allclose(fit.residuals("pearson"), expected["pearson"], atol=1e-5 * fit.sigma)


def test_conditional_residuals_are_resid_and_other_kinds_are_named():
    fit = fitted("pastes_REML")
    assert fit.residuals().equals(fit.resid)
    with pytest.raises(ValueError, match="kind must be 'conditional' or .*not 'working'"):
        fit.residuals("working")


@pytest.mark.parametrize("which", ["within", "across"])
def test_covariance_structures_are_in_everything(which):
    fit, V, random = structured(which)
    X, r = fit.model.design.X, fit.residuals("marginal").to_numpy()
    Vi = np.linalg.inv(V)
    fixed = X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    hat = fixed + random @ Vi @ (np.eye(36) - fixed)
    assert_allclose(fit.leverage()["overall"], np.diag(hat), rtol=1e-8)
    assert_allclose(
        fit.predict(interval="confidence")["se"], fit.sigma * np.sqrt(np.diag(hat)), rtol=1e-8
    )
    assert_allclose(
        fit.residuals("normalized"),
        np.linalg.solve(np.linalg.cholesky(V), r) / fit.sigma,
        rtol=1e-8,
    )


def test_intervals_of_new_levels_that_would_covary_with_others_are_refused():
    fit, _, _ = structured("across")
    new = pd.DataFrame({"t": [1.0], "g": ["nobody"]})
    assert_allclose(fit.predict(new), fit.fe_params @ [1, 1])
    with pytest.raises(ValueError, match="'g' covary"):
        fit.predict(new, interval="confidence")
    assert_allclose(
        fit.predict(new, include_re=[], interval="confidence", theta_uncertainty=False)["se"],
        np.sqrt(np.array([1, 1]) @ fit.fe_cov @ [1, 1]),
    )
