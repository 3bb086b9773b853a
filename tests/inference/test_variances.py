"""Uncertainty of variance parameters and of functions of all parameters."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import oracle
from helpers.cases import lmm_cases, load_case
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose

from interlace_jax.inference import variances

SLOPE = "sleepstudy_slope_REML"


def dense_covariance(case):
    """Of (theta, sigma), from the oracle's differences of the joint deviance."""
    problem, reml = case.problem, case.reml
    at = np.append(case.theta, case["sigma"])
    return 2 * np.linalg.inv(
        oracle.hessian(lambda x: oracle.joint_deviance(problem, x[:-1], x[-1], reml), at)
    )


@pytest.mark.parametrize("name", [SLOPE, "sleepstudy_slope_ML", "penicillin_REML", "weighted_REML"])
def test_theta_and_sigma_have_the_covariance_of_the_dense_hessian(name):
    fit, dense = fitted(name), dense_covariance(load_case(name))
    _, ours = fit.uncertainty.propagate(everything)
    scale = np.sqrt(np.diag(dense))
    assert_allclose(ours / np.outer(scale, scale), dense / np.outer(scale, scale), atol=1e-5)


def everything(p):
    return jnp.append(p.theta, p.sigma)


def test_a_balanced_intercept_has_the_textbook_standard_errors():
    """REML on a balanced layout is analysis of variance: sigma^2 has n - m df, sigma^2 + k tau^2
    has m - 1.
    """
    fit = fitted("dyestuff_REML")
    s2, t2 = fit.scale, fit.variance_components["Batch"]
    within, between = 2 * s2**2 / 24, 2 * (s2 + 5 * t2) ** 2 / 5
    table = fit.varcorr.set_index("grp")
    assert_allclose(table.vcov_se["Residual"], np.sqrt(within), rtol=1e-6)
    assert_allclose(table.vcov_se["Batch"], np.sqrt((within + between) / 25), rtol=1e-6)
    assert_allclose(table.sdcor_se["Residual"], np.sqrt(within) / (2 * fit.sigma), rtol=1e-6)


def test_intervals_of_sds_are_on_the_log_scale_and_of_correlations_on_fishers():
    table = fitted(SLOPE).varcorr
    sd, cor = table.iloc[1], table.iloc[2]
    assert_allclose(
        np.log([sd.lower, sd.upper]),
        np.log(sd.sdcor) + np.array([-1, 1]) * 1.959964 * sd.sdcor_se / sd.sdcor,
        rtol=1e-6,
    )
    half = 1.959964 * cor.sdcor_se / (1 - cor.sdcor**2)
    assert_allclose(
        np.arctanh([cor.lower, cor.upper]),
        np.arctanh(cor.sdcor) + np.array([-half, half]),
        rtol=1e-6,
    )


def test_a_number_far_smaller_than_its_standard_error_has_an_interval_without_end():
    """log(1e-4) + 1.96 / 1e-4 overflows; so a correlation next to 0, whose log scale is not
    used, made a warning.
    """
    assert_allclose(
        variances.intervals(np.array([1e-4]), np.array([1.0]), 0.95, "log"), [[0.0], [np.inf]]
    )


def test_a_variance_at_zero_has_no_standard_error():
    table = fitted("dyestuff2_REML").varcorr
    assert table.iloc[0][["vcov_se", "sdcor_se", "lower", "upper"]].isna().all()
    assert table.iloc[1][["vcov_se", "sdcor_se", "lower", "upper"]].notna().all()


def test_a_correlation_of_one_has_no_interval_whatever_its_rounding(monkeypatch):
    x, u = np.tile(np.arange(8.0), 12), np.random.default_rng(3).normal(size=12).repeat(8)
    y = u * (1 + 0.3 * x) + np.random.default_rng(4).normal(size=96)
    fit = quiet_fit("y ~ x + (1 + x | g)", pd.DataFrame(dict(g=np.arange(96) // 8, x=x, y=y)))
    values, cov = fit.uncertainty.propagate(variances._components)
    values = np.where(np.arange(8) == 6, 1.0 - 2e-16, values)  # four (co)variances come first
    monkeypatch.setattr(
        variances.Uncertainty, "propagate", lambda *_: (values, cov + 1e-31 * np.eye(8))
    )
    table = fit.varcorr
    assert table["sdcor"][2] == pytest.approx(1.0, abs=1e-12)
    assert table.loc[2, ["sdcor_se", "lower", "upper"]].isna().all()


def test_delta_of_a_coefficient_is_its_standard_error():
    fit = fitted(SLOPE)
    assert_allclose(fit.delta(lambda p: p["Days"]).se, fit.fe_bse["Days"])
    assert_allclose(
        fit.delta(lambda p: 3 * p.beta[0] - p.beta[1]).se,
        fit.test("3 * Intercept - Days").se.iloc[0],
    )


def test_delta_agrees_with_differences_of_the_function():
    fit = fitted(SLOPE)

    def effect_size(p):
        return p["Days"] / jnp.sqrt(p.covariance("Subject")[0, 0] + p.sigma**2)

    def by_hand(x):
        variance = x[2] ** 2 * (x[1] ** 2 + 1)
        return x[0] / np.sqrt(variance)

    # Only theta_1 of theta enters.
    W = dense_covariance(load_case(SLOPE))[np.ix_([0, 3], [0, 3])]
    at = np.array([fit.fe_params["Days"], fit.theta[0], fit.sigma])
    g = oracle.gradient(by_hand, at)
    found = fit.delta(effect_size)
    assert_allclose(found.estimate, by_hand(at))
    assert_allclose(
        found.se, np.sqrt(g[0] ** 2 * fit.fe_bse["Days"] ** 2 + g[1:] @ W @ g[1:]), rtol=1e-5
    )


def test_delta_returns_a_row_for_every_entry_of_a_vector():
    table = fitted(SLOPE).delta(lambda p: p.theta, level=0.5)
    assert_allclose(table.estimate, fitted(SLOPE).theta)
    assert_allclose(table.upper - table.estimate, 0.6744898 * table.se, rtol=1e-6)


@pytest.mark.parametrize(("call", "match"), [
    (lambda f: f.delta(lambda p: p["Dys"]), "Days"),
    (lambda f: f.delta(lambda p: p.covariance("Subjct")), "Subject"),
    (lambda f: f.delta(lambda p: p.sigma, scale="sqrt"), "logit"),
    (lambda f: f.delta(lambda p: p.sigma, level=95), "0.95"),
])  # fmt: skip
def test_wrong_arguments_are_refused_with_what_to_write(call, match):
    with pytest.raises(ValueError, match=match):
        call(fitted(SLOPE))


# The peer reads the terms of `||` as one and forgets the slope's variance.
SHARES = [p for p in lmm_cases() if p.values[0].get("icc") and "indep" not in p.id]


@pytest.mark.parametrize("case", SHARES)
def test_icc_and_r2_are_those_of_performance(case):
    fit = fitted(case.name)
    assert_allclose(
        fit.icc().estimate, [case["icc"]["adjusted"], case["icc"]["unadjusted"]], rtol=1e-6
    )
    reference = case["r2_nakagawa"]
    assert_allclose(
        fit.r2().estimate, [reference["marginal"], reference["conditional"]], rtol=1e-6, atol=1e-12
    )


def test_icc_and_r2_do_not_depend_on_the_origin_of_a_slope():
    frame = sleepstudy().assign(since=lambda f: f.Days - 4.5)
    fit = quiet_fit("Reaction ~ since + (1 + since | Subject)", frame)
    assert_allclose(fit.r2(), fitted(SLOPE).r2(), rtol=1e-5)
    assert_allclose(fit.icc(), fitted(SLOPE).icc(), rtol=1e-5)


def test_principal_components_are_those_of_the_relative_covariance():
    sd = fitted(SLOPE).optimum.re_pca["Subject"].sd
    Lam = fitted(SLOPE).Lambdas[0]
    assert_allclose(sd**2, np.linalg.eigvalsh(Lam @ Lam.T)[::-1], rtol=1e-9)
