"""Deletions: exact ones are refits, first-order ones are close, those that leave no model are
counted.
"""

import copy

import numpy as np
import pandas as pd
import pytest
from helpers import oracle
from helpers.cases import load_case
from helpers.diagnostics import reference, structured
from helpers.fits import arguments, fitted, quiet_fit
from helpers.influence import measured
from numpy.testing import assert_allclose

import interlace_jax as interlace


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


# Beside the data ----------------------------------------------------------------------------------


def test_groups_are_left_out_of_generalised_models():
    data = interlace.load_dataset("cbpp")
    formula = "incidence ~ period + (1 | herd)"
    fit = interlace.fit(formula, data, family="binomial", trials="size")
    table = fit.influence("herd")
    herd = table.index[3]
    less = interlace.fit(formula, data[data["herd"] != herd], family="binomial", trials="size")
    change = (fit.fe_params - less.fe_params).to_numpy()
    cook = change @ np.linalg.solve(fit.fe_cov.to_numpy(), change) / 4
    assert table.loc[herd, "cooksd"] == pytest.approx(cook, rel=1e-4)
    dfbeta = (fit.fe_params - less.fe_params) / less.fe_bse
    assert table.loc[herd, "dfbetas.period[T.p2]"] == pytest.approx(dfbeta.iloc[1], rel=1e-4)
    change = (less.theta[0] / fit.theta[0]) ** 2 - 1.0
    assert table.loc[herd, "rvc.var_(Intercept)|herd"] == pytest.approx(change, rel=1e-4)
    assert (table["status"] == "converged").all() and table.attrs["failed"] == 0
    with pytest.raises(ValueError, match="method='onestep' is for linear mixed models"):
        fit.influence("herd", method="onestep")
