"""Every reference fit: we report what lme4 and lmerTest do, to the tolerances of
tests/reference/README.md.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers.cases import lmm_cases, load_case
from helpers.fits import arguments, fitted
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace

EVERY = lmm_cases()
every_case = pytest.mark.parametrize("case", EVERY)
with_predictions = pytest.mark.parametrize(
    "case", [c for c in EVERY if c.values[0].get("predictions")]
)


def by_name(case, series):
    """Values in lme4's order of coefficients."""
    assert set(series.index) == set(case["coef_names_formulaic"])
    return series[case["coef_names_formulaic"]].to_numpy()


def terms_of(case, fit):
    """(reference term, our covariance matrix of the same columns), our columns taken in order."""
    start = dict.fromkeys(fit.covariances, 0)
    for term in case["var_terms"]:
        S, first, k = (
            fit.covariances[term["group"]].to_numpy(),
            start[term["group"]],
            len(term["columns"]),
        )
        start[term["group"]] += k
        yield term, S[first : first + k, first : first + k]


@every_case
def test_objective_is_lme4s_and_never_worse(case):
    fit = fitted(case.name)
    assert fit.converged
    assert fit.deviance < case["objective"] + 1e-6
    assert_allclose(fit.deviance, case["objective"], rtol=0, atol=1e-6)
    assert_allclose(fit.llf, case["logLik"], rtol=0, atol=5e-7)
    assert_allclose([fit.aic, fit.bic], [case["AIC"], case["BIC"]], rtol=0, atol=1e-6)
    assert fit.nparams == case["df"]


@every_case
def test_both_criteria_at_lme4s_theta_are_lme4s(case):
    model = fitted(case.name).model
    # theta is stored to 16 digits, the criteria are sums over up to 893 rows.
    assert_allclose(
        model.deviance(case.theta, reml=False), case["ml_deviance_at_theta"], rtol=0, atol=1e-7
    )
    assert_allclose(model.deviance(case.theta), case["reml_criterion_at_theta"], rtol=0, atol=1e-7)


@every_case
def test_fixed_effects_and_their_covariance_are_lme4s(case):
    fit, se = fitted(case.name), case.values("se")
    assert np.all(np.abs(by_name(case, fit.fe_params) - case.values("fixef")) < 1e-4 * se)
    assert_allclose(by_name(case, fit.fe_bse), se, rtol=1e-5)
    names = case["coef_names_formulaic"]
    error = fit.fe_cov.loc[names, names].to_numpy() - case["vcov"]
    assert np.all(np.abs(error) < 2e-5 * np.outer(se, se))
    assert len(fit.dropped_columns) == len(case["dropped_columns"])


@every_case
def test_variance_parameters_are_lme4s(case):
    fit = fitted(case.name)
    assert_allclose(fit.sigma, case["sigma"], rtol=1e-6)
    if case["singular"]:
        theta = [Lam @ Lam.T for Lam in fit.Lambdas]
        assert_allclose(theta, [L @ L.T for L in case.problem.Lambdas(case.theta)], atol=1e-5)
    else:
        assert_allclose(fit.theta, case.theta, rtol=0, atol=1e-5)
    for term, S in terms_of(case, fit):
        sd = np.maximum(term["sd"], 1e-3 * case["sigma"])
        assert_allclose(S / np.outer(sd, sd), term["cov"] / np.outer(sd, sd), rtol=0, atol=5e-5)
    assert fit.is_singular == case["singular"]


@every_case
def test_the_table_of_variances_is_that_of_varcorr(case):
    table = fitted(case.name).varcorr
    rows = []
    for term in case["var_terms"]:
        k = range(len(term["columns"]))
        rows += [(term["group"], term["sd"][i] ** 2, term["sd"][i]) for i in k]
        rows += [
            (term["group"], term["cov"][i][j], term["corr"][i][j]) for i in k for j in k if j > i
        ]
    rows.append(("Residual", case["sigma"] ** 2, case["sigma"]))
    assert table.grp.tolist() == [row[0] for row in rows]
    expected = np.array([row[1:] for row in rows], float)
    scale = case["sigma"] ** 2
    assert_allclose(table.vcov, expected[:, 0], rtol=5e-5, atol=1e-6 * scale)
    assert_allclose(table.sdcor, expected[:, 1], rtol=5e-5, atol=1e-6 * case["sigma"])


@every_case
def test_random_effects_and_their_deviations_are_lme4s(case):
    fit = fitted(case.name)
    assert list(fit.random_effects) == list(case["ranef"]) == list(fit.ngroups)
    assert fit.ngroups == case["n_levels"]
    for name, expected in case["ranef"].items():
        modes, se = (pd.DataFrame(d[name]) for d in (fit.random_effects, fit.random_effects_se))
        assert modes.index.tolist() == se.index.tolist() == expected["levels"]
        sd = np.sqrt(np.diag(fit.covariances[name]))
        # Where the variance is 0, so are the modes.
        close = 1e-5 * np.maximum(sd, 1e-3 * case["sigma"])
        assert np.all(np.abs(modes.to_numpy() - expected["values"]) < close)
        assert np.all(np.abs(se.to_numpy() - expected["cond_sd"]) < close)


@every_case
def test_fitted_values_and_residuals_are_lme4s(case):
    fit, close = fitted(case.name), dict(rtol=0, atol=1e-6 * np.std(case.problem.y))
    assert_allclose(fit.fittedvalues[:20], case["fitted_first20"], **close)
    assert_allclose(fit.resid[:20], case["resid_first20"], **close)
    assert_allclose(np.sum(fit.fittedvalues**2), case["fitted_norm2"], rtol=1e-6)
    assert_allclose(np.sum(fit.resid**2), case["resid_norm2"], rtol=1e-5)
    assert fit.nobs == case["nobs"]
    assert fit.n_dropped == len(case["dropped_rows"])


@pytest.mark.parametrize("case", [c for c in EVERY if not c.values[0]["singular"]])
def test_satterthwaite_inference_is_lmertests(case):
    fit, names = fitted(case.name), case["coef_names"]
    df, t, p = (
        [case["satterthwaite"][field][name] for name in names] for field in ("df", "t", "p")
    )
    assert_allclose(by_name(case, fit.fe_df), df, rtol=1e-3)
    # beta to 1e-4 of its standard error, the error to 1e-5 of itself.
    assert_allclose(by_name(case, fit.fe_tvalues), t, rtol=2e-5, atol=1e-4)
    assert_allclose(by_name(case, fit.fe_pvalues), p, rtol=1e-2, atol=1e-15)


@with_predictions
def test_predictions_are_lme4s(case):
    fit, close = fitted(case.name), dict(rtol=0, atol=1e-6 * np.std(case.problem.y))
    for given in case["predictions"]:
        new = pd.DataFrame(given["newdata"])
        assert_allclose(fit.predict(new, include_re=False), given["population"], **close)
        assert_allclose(fit.predict(new), given["conditional_allow_new_levels"], **close)
        if given["conditional"] is None:
            with pytest.raises(ValueError, match="allow_new_levels=True"):
                fit.predict(new, allow_new_levels=False)
        else:
            assert_allclose(fit.predict(new, allow_new_levels=False), given["conditional"], **close)


@every_case
def test_warnings_are_given_exactly_where_there_is_something_to_say(case):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        interlace.fit(case.formula, case.frame, **arguments(case))
    kinds = [interlace.SingularFitWarning] * case["singular"] + [UserWarning] * bool(
        case["dropped_columns"]
    )
    assert len(caught) == len(kinds)
    categories = sorted((w.category for w in caught), key=lambda category: category.__name__)
    assert all(issubclass(category, kind) for category, kind in zip(categories, kinds, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_insteval_is_lme4s(method):
    case = load_case(f"insteval_{method}")
    fit = fitted(case.name)
    assert_allclose(fit.deviance, case["objective"], rtol=0, atol=1e-5)
    assert_allclose(fit.theta, case.theta, rtol=0, atol=1e-5)
    assert_allclose(fit.sigma, case["sigma"], rtol=1e-6)
    assert np.all(
        np.abs(by_name(case, fit.fe_params) - case.values("fixef")) < 1e-4 * case.values("se")
    )
    assert_allclose(by_name(case, fit.fe_bse), case.values("se"), rtol=1e-5)
    assert fit.ngroups == case["n_levels"]
    assert_allclose(fit.fittedvalues[:20], case["fitted_first20"], rtol=0, atol=1e-6)
    for name, expected in case["ranef"].items():
        ours = fit.random_effects[name][expected["levels"]]
        assert_allclose(ours, np.ravel(expected["values"]), rtol=0, atol=1e-5 * np.std(ours))
        spread = fit.random_effects_se[name][expected["levels"]]
        assert_allclose(spread, np.ravel(expected["cond_sd"]), rtol=0, atol=1e-5 * np.std(ours))


def test_the_satterthwaite_cases_peers_miss():
    # Random intercepts of sleepstudy: leaving sigma out of the variance parameters gives 26.2 and
    # 1685.8.
    assert_allclose(fitted("sleepstudy_int_REML").fe_df, [22.810, 161.000], atol=1e-3)
    assert_allclose(fitted("sleepstudy_slope_REML").fe_df, [17, 17], atol=1e-3)
    assert_allclose(fitted("penicillin_REML").fe_df, [5.49], atol=0.01)


def test_dropped_columns_carry_our_name():
    assert list(fitted("rankdef_REML").dropped_columns) == ["x2"]
    assert_array_equal(list(fitted("rankdef_REML").fe_params.index), ["Intercept", "x1", "x3"])
