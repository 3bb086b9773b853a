"""Deletions: exact ones are refits, first-order ones are close, those that leave no model are
counted.
"""

import copy
from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers import oracle
from helpers.cases import load_case
from helpers.diagnostics import reference, structured
from helpers.fits import arguments, fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose

import interlace_jax as interlace

MEASURES = ["cooksd", "mdffits", "covtrace", "covratio"]


@cache
def measured(name, level=None, method="exact"):
    return fitted(name).influence(level, method)


def definitions(fit, beta, vcov, varcov):
    """The measures of one deletion by their definitions, from what a refit gives (variances as
    in `varcorr`).
    """
    p, C = len(beta), fit.fe_cov.to_numpy()
    change = fit.fe_params.to_numpy() - beta
    ratio = np.linalg.solve(C, vcov)
    found = [change @ np.linalg.solve(C, change) / p, change @ np.linalg.solve(vcov, change) / p]
    found += [abs(np.trace(ratio) - p), np.linalg.det(vcov) / np.linalg.det(C)]
    rvc = varcov / fit.varcorr["vcov"].to_numpy() - 1
    return np.concatenate([found, change / np.sqrt(np.diag(vcov)), rvc])


def numbers(table):
    return table.drop(columns=["singular", "status"], errors="ignore").to_numpy(float)


@pytest.mark.parametrize(
    ("case", "name", "level"),
    [
        ("sleepstudy", "sleepstudy_slope_REML", "Subject"),
        ("penicillin", "penicillin_REML", "plate"),
        ("penicillin", "penicillin_REML", "sample"),
    ],
)
def test_deleting_the_levels_of_a_factor_gives_lme4s_refits(case, name, level):
    fit, expected = fitted(name), reference()[case]["by_" + level.lower()]
    refits = zip(expected["beta"], expected["vcov"], expected["varcov"], strict=True)
    wanted = [definitions(fit, np.ravel(b), np.atleast_2d(V), np.array(v)) for b, V, v in refits]
    # lme4's optimiser stops when theta is good to about 1e-5; variances of zero are 1e-9 there.
    assert_allclose(
        numbers(measured(name, level).loc[expected["label"]]), wanted, rtol=2e-3, atol=2e-5
    )


def test_deleting_rows_gives_lme4s_refits():
    fit, expected = fitted("sleepstudy_slope_REML"), reference()["sleepstudy"]["by_row"]
    refits = zip(expected["beta"], expected["vcov"], expected["varcov"], strict=True)
    wanted = [definitions(fit, np.array(b), np.array(V), np.array(v)) for b, V, v in refits]
    rows = np.array(expected["row"]) - 1
    assert_allclose(
        numbers(measured(fit_name := "sleepstudy_slope_REML").iloc[rows]),
        wanted,
        rtol=2e-3,
        atol=2e-5,
    )
    assert measured(fit_name).attrs["failed"] == 0


def test_dfbetas_are_lme4s_with_the_other_sign():
    found = measured("sleepstudy_slope_REML", "Subject").filter(like="dfbetas.")
    # influence.merMod refits with a loose optimiser
    assert_allclose(found, -np.array(reference()["sleepstudy"]["lme4"]["dfbetas"]), atol=1e-4)


@pytest.mark.parametrize("name", ["weighted_REML", "offset_ML"])
def test_a_deletion_is_the_fit_of_the_other_rows(name):
    fit, case, row = fitted(name), load_case(name), 11
    less = quiet_fit(case.formula, case.frame.drop(index=row), **arguments(case))
    wanted = definitions(
        fit, less.fe_params.to_numpy(), less.fe_cov.to_numpy(), less.varcorr["vcov"].to_numpy()
    )
    # the measures are differences of numbers that agree to the accuracy of an optimum, 1e-8
    assert_allclose(numbers(measured(name).loc[[row]])[0], wanted, rtol=1e-4, atol=1e-6)


def test_deletions_that_leave_no_model_are_missing_and_counted():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": np.repeat(["a", "b", "c", "d"], 5), "x": np.r_[1.0, np.zeros(19)]})
    frame["y"] = rng.normal(size=20) + np.repeat(rng.normal(size=4), 5)
    fit = quiet_fit("y ~ x + (1 | g)", frame)
    by_row, by_group = fit.influence(), fit.influence("g", "onestep")
    assert by_row.attrs["failed"] == by_group.attrs["failed"] == 1
    assert (
        by_row["status"][0] == "the fixed effects are rank deficient in the rows that are left: 'x'"
    )
    assert (
        by_group["status"]["a"] == "the fixed effects are rank deficient in the rows that are left"
    )
    assert by_row["cooksd"].isna().tolist() == [True] + [False] * 19
    two = quiet_fit("y ~ 1 + (1 | g)", frame[:10])
    with pytest.raises(
        ValueError, match="none of the 2 refits can be made.*g has 1 level for 5 rows"
    ):
        two.influence("g")


def test_singular_refits_are_flagged():
    frame = load_case("dyestuff_REML").frame
    found = measured("dyestuff_REML", next(iter(fitted("dyestuff_REML").ngroups)))
    (factor,) = fitted("dyestuff_REML").ngroups
    for level, singular in found["singular"].items():
        assert (
            singular
            == quiet_fit("Yield ~ 1 + (1 | Batch)", frame[frame[factor] != level]).is_singular
        )


# First order --------------------------------------------------------------------------------------


def held(fit):
    """The fit as one whose theta and sigma do not move."""
    still = copy.copy(fit)
    c = fit.curvature
    still.__dict__["curvature"] = c._replace(W=np.zeros_like(c.W), dvcov=np.zeros_like(c.dvcov))
    return still


@pytest.mark.parametrize(
    ("name", "level"),
    [("weighted_REML", None), ("penicillin_REML", None), ("pastes_REML", "batch")],
)
def test_one_step_is_exact_for_theta_and_sigma_held(name, level):
    fit, problem = fitted(name), load_case(name).problem
    found = held(fit).influence(level, "onestep")
    factors = dict(zip(fit.ngroups, problem.factors, strict=True))
    group = np.arange(len(problem.y)) if level is None else factors[level].codes
    for i in (0, 3, 7):
        part = problem.rows(group != i)
        beta, vcov = oracle.gls(part, fit.theta).beta, oracle.beta_cov(part, fit.theta, fit.sigma)
        wanted = definitions(fit, beta, vcov, fit.varcorr["vcov"].to_numpy())
        assert_allclose(numbers(found.iloc[[i]])[0], wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("which", ["within", "across"])
def test_deletions_keep_covariance_structures(which):
    fit = structured(which)[0]
    frame = fit.model.data.drop(index=5)
    less = quiet_fit("y ~ t + (1 + t | g)", frame, cov=fit.model.arguments["cov"])
    wanted = definitions(
        fit, less.fe_params.to_numpy(), less.fe_cov.to_numpy(), less.varcorr["vcov"].to_numpy()
    )
    assert_allclose(numbers(fit.influence().loc[[5]])[0], wanted, rtol=1e-4, atol=1e-6)
    if which == "across":
        with pytest.raises(ValueError, match="covary"):
            fit.jackknife()
    else:
        each = fit.model.data.groupby("g").apply(lambda d: pd.Series(np.polyfit(d.t, d.y, 1)[::-1]))
        assert_allclose(fit.jackknife().cov.iloc[:2, :2], np.cov(each.T, bias=True) / 9, rtol=1e-8)


@pytest.mark.parametrize("level", [None, "Subject"])
def test_one_step_is_near_refits(level):
    """What first order leaves out is of the order of the square of a deletion: 1/18 of the data,
    or 1/180.
    """
    exact, step = (
        measured("sleepstudy_slope_REML", level, method) for method in ("exact", "onestep")
    )
    columns = exact.filter(regex="dfbetas|rvc.var|sigma2").columns
    error = (step[columns] - exact[columns]).abs().max()
    assert (error < (0.25 if level else 0.15) * exact[columns].abs().max()).all()


def test_one_step_of_levels_that_share_random_effects_is_refused():
    with pytest.raises(ValueError, match="independent.*'plate'.*'sample'"):
        fitted("penicillin_REML").influence("plate", "onestep")


def test_unknown_factors_and_methods_are_named():
    fit = fitted("pastes_REML")
    with pytest.raises(ValueError, match="'cask'; there are 'cask:batch', 'batch'"):
        fit.influence("cask")
    with pytest.raises(ValueError, match="'exact' or 'onestep'"):
        fit.influence(method="approx")


# The infinitesimal jackknife ----------------------------------------------------------------------


def test_effects_add_up_to_zero():
    """Counting every group twice changes no estimate of an ML fit: the derivatives are those of
    the score.
    """
    fit = fitted("sleepstudy_slope_ML")
    effects = fit.jackknife().effects
    assert_allclose(effects.sum() / effects.abs().sum(), 0.0, atol=1e-6)


def test_of_a_balanced_design_it_gives_the_standard_errors_of_maximum_likelihood():
    """Groups with one design are a sample of least-squares coefficients, and CR0 is the sample's
    covariance over m.
    """
    fit = fitted("sleepstudy_slope_REML")
    each = (
        sleepstudy()
        .groupby("Subject")
        .apply(lambda d: pd.Series(np.polyfit(d.Days, d.Reaction, 1)[::-1]))
    )
    wanted = np.cov(each.T, bias=True) / 18
    assert_allclose(fit.jackknife().cov.iloc[:2, :2], wanted, rtol=1e-9)


def test_it_is_near_the_jackknife_of_deletions():
    """m = 18: the deletion jackknife is larger by about (m / (m - 1))^2 and by what is of second
    order.
    """
    fit = fitted("sleepstudy_slope_REML")
    deleted = [
        quiet_fit(
            "Reaction ~ Days + (Days | Subject)", sleepstudy().query("Subject != @s")
        ).parameters
        for s in sleepstudy().Subject.unique()[:6]
    ]
    exact = fit.parameters - pd.DataFrame(deleted)
    effects = fit.jackknife().effects.iloc[:6]
    error = (effects.to_numpy() - exact).abs().max()
    assert (error < 0.3 * exact.abs().max()).all()


def test_crossed_groups_are_refused():
    with pytest.raises(ValueError, match="crossed"):
        fitted("penicillin_REML").jackknife()
    with pytest.raises(ValueError, match="independent.*'plate'"):
        fitted("penicillin_REML").jackknife("plate")


def test_nested_groups_are_those_of_the_outermost_factor():
    found = fitted("pastes_REML").jackknife()
    assert found.by == "batch"
    assert found.effects.shape == (10, 4)
    with pytest.raises(ValueError, match="independent"):
        fitted("pastes_REML").jackknife("cask:batch")


# Beside the data ----------------------------------------------------------------------------------


def test_augment_gives_the_rows_used_with_everything_beside_them():
    frame = sleepstudy().set_index(pd.Index(range(1000, 1180)))
    frame.loc[1003, "Days"] = np.nan
    fit = quiet_fit("Reaction ~ Days + (Days | Subject)", frame)
    found = fit.augment()
    assert found.index.equals(fit.resid.index)
    assert_allclose(found["Reaction"] - found[".fitted"], found[".resid_conditional"])
    assert_allclose(found[".leverage_overall"], fit.leverage()["overall"])
    assert found[".cooksd"].notna().all()
    assert ".cooksd" not in fit.augment(None)


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
