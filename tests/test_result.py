"""The contract of the result: names, types, labels; copies and other processes; refit and update
keep the model.
"""

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.cases import load_case
from helpers.fits import fitted, quiet_fit, sleepstudy
from joblib import Parallel, delayed
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal

import interlace_jax as interlace

TERMS = ["(Intercept)", "Days"]


@pytest.fixture(scope="module")
def fit():
    return fitted("sleepstudy_slope_REML")


@pytest.fixture(scope="module")
def crossed():
    return fitted("crossed_slope_indep_REML")


@pytest.fixture(scope="module")
def apart():
    """Two terms on one factor: lme4's spelling of `||`."""
    return quiet_fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", sleepstudy())


@pytest.mark.parametrize("name", ["fe_params", "fe_bse", "fe_tvalues", "fe_df", "fe_pvalues"])
def test_coefficients_are_series_by_name(fit, name):
    values = getattr(fit, name)
    assert isinstance(values, pd.Series) and values.dtype == float
    assert values.index.tolist() == ["Intercept", "Days"]


def test_fixed_effects_tables_follow_from_each_other(fit):
    assert fit.fe_cov.index.tolist() == fit.fe_cov.columns.tolist() == ["Intercept", "Days"]
    assert_allclose(fit.fe_bse**2, np.diag(fit.fe_cov))
    assert_allclose(fit.fe_tvalues * fit.fe_bse, fit.fe_params)
    assert fit.fe_conf_int.columns.tolist() == ["lower", "upper"]
    # 17 degrees of freedom: quantile 2.1098, not 1.96.
    assert_allclose(
        fit.fe_conf_int.loc["Days"], 10.46729 + np.array([-1, 1]) * 2.109816 * 1.545789, rtol=1e-5
    )


def test_normal_degrees_of_freedom_are_infinite():
    fit = quiet_fit("Reaction ~ Days + (1 + Days | Subject)", sleepstudy(), df_method="normal")
    assert np.isinf(fit.fe_df).all()
    # lme4's Wald interval
    assert_allclose(fit.fe_conf_int.loc["Days"], [7.437595, 13.496977], rtol=1e-5)


def test_random_effects_of_several_terms_are_frames_levels_by_terms(fit):
    for table in (fit.random_effects["Subject"], fit.random_effects_se["Subject"]):
        assert table.shape == (18, 2) and table.columns.tolist() == TERMS
        assert table.index.tolist() == sorted(sleepstudy().Subject.unique())
    interval = fit.random_effects_ci(0.9)["Subject"]
    assert interval.columns.tolist() == [(t, b) for t in TERMS for b in ("lower", "upper")]
    b, se = fit.random_effects["Subject"], fit.random_effects_se["Subject"]
    assert_allclose(interval["Days"]["upper"], b.Days + 1.6448536269514722 * se.Days, rtol=1e-6)


def test_random_effects_of_one_term_are_series():
    fit = fitted("penicillin_REML")
    for name, m in fit.ngroups.items():
        assert (
            isinstance(fit.random_effects[name], pd.Series) and len(fit.random_effects[name]) == m
        )
        assert isinstance(fit.random_effects_se[name], pd.Series)
        assert fit.random_effects_ci()[name].columns.tolist() == ["lower", "upper"]
    assert list(fit.ngroups.items()) == [("plate", 24), ("sample", 6)]


def test_variance_components_are_a_number_for_an_intercept_and_a_dict_otherwise(fit):
    components = fit.variance_components
    assert list(components) == ["Subject", "residual"] and list(components["Subject"]) == TERMS
    assert_allclose(list(components["Subject"].values()), [612.0899, 35.07166], rtol=1e-5)
    alone = fitted("sleepstudy_int_REML").variance_components
    assert isinstance(alone["Subject"], float) and isinstance(alone["residual"], float)
    assert alone["residual"] == fitted("sleepstudy_int_REML").scale
    slope = quiet_fit("Reaction ~ Days + (0 + Days | Subject)", sleepstudy()).variance_components
    assert list(slope["Subject"]) == ["Days"]


def test_covariances_are_terms_by_terms_and_block_diagonal_for_several_factors(fit, crossed):
    assert fit.varcov.index.tolist() == fit.varcov.columns.tolist() == TERMS
    assert_allclose(fit.varcov.to_numpy(), [[612.0899, 9.604333], [9.604333, 35.07166]], rtol=1e-5)
    both = crossed.varcov
    keys = [("subject", "(Intercept)"), ("subject", "cond_c"), ("item", "(Intercept)")]
    assert both.index.tolist() == both.columns.tolist() == keys
    assert both.loc[("subject", "(Intercept)"), ("item", "(Intercept)")] == 0
    assert both.loc[("subject", "(Intercept)"), ("subject", "cond_c")] == 0
    assert_allclose(both.loc["item", "item"], crossed.variance_components["item"])


def test_varcorr_has_the_columns_and_rows_of_lme4(fit, crossed):
    assert fit.varcorr.columns.tolist()[:5] == ["grp", "var1", "var2", "vcov", "sdcor"]
    assert fit.varcorr.grp.tolist() == ["Subject"] * 3 + ["Residual"]
    assert fit.varcorr.var1.tolist()[:3] == ["(Intercept)", "Days", "(Intercept)"]
    assert fit.varcorr.var2[2] == "Days" and fit.varcorr.var2.isna().tolist() == [
        True,
        True,
        False,
        True,
    ]
    assert_allclose(fit.varcorr.sdcor, [24.74045, 5.922133, 0.06555132, 25.59182], rtol=1e-5)
    # no row for a fixed zero
    assert crossed.varcorr.grp.tolist() == ["subject", "subject", "item", "Residual"]


def test_scalars_are_plain_numbers(fit):
    for name in ("sigma", "scale", "llf", "deviance", "aic", "bic"):
        assert type(getattr(fit, name)) is float, name
    for name in ("nobs", "n_dropped", "nparams"):
        assert type(getattr(fit, name)) is int, name
    for name in ("converged", "is_singular"):
        assert type(getattr(fit, name)) is bool, name
    assert fit.ngroups == {"Subject": 18} and type(fit.ngroups["Subject"]) is int
    assert (fit.method, fit.nparams, fit.scale) == ("REML", 6, fit.sigma**2)
    assert isinstance(fit.theta, np.ndarray) and fit.theta.dtype == np.float64


def test_the_optimum_is_a_certificate(fit):
    optimum = fit.optimum
    assert optimum.status == "converged" and str(optimum.steps) in optimum.message
    assert np.all(np.abs(optimum.gradient) < 1e-4) and optimum.predicted_decrease < 1e-9
    assert optimum.hessian_eigenvalues.shape == (3,) and np.all(optimum.hessian_eigenvalues > 0)


def test_rows_carry_the_users_labels_also_where_rows_were_dropped():
    data = sleepstudy()
    data.index = [f"row {i}" for i in range(180)]
    data.loc["row 7", "Reaction"] = np.nan
    data.loc["row 99", "Days"] = np.nan
    fit = quiet_fit("Reaction ~ Days + (1 | Subject)", data)
    assert (fit.nobs, fit.n_dropped) == (178, 2)
    used = data.index.drop(["row 7", "row 99"])
    assert_index_equal(fit.fittedvalues.index, used)
    assert_index_equal(fit.resid.index, used)
    assert_allclose(fit.fittedvalues + fit.resid, data.Reaction[used])


def test_two_terms_on_one_factor_are_one_block(apart):
    joined = fitted("sleepstudy_slope_indep_REML")
    assert_allclose(apart.deviance, joined.deviance, rtol=1e-12)
    assert_frame_equal(apart.random_effects["Subject"], joined.random_effects["Subject"], rtol=1e-6)
    assert_frame_equal(apart.varcorr, joined.varcorr, rtol=1e-6)
    assert apart.varcov.loc["(Intercept)", "Days"] == 0
    assert len(apart.theta) == 2
    assert_allclose(apart.predict(sleepstudy()), apart.fittedvalues, rtol=1e-12)
    assert apart.random_effects_ci()["Subject"].shape == (18, 4)


def same(a, b):
    assert_series_equal(a.fe_params, b.fe_params)
    assert_frame_equal(a.random_effects["Subject"], b.random_effects["Subject"])
    assert_series_equal(a.fe_df, b.fe_df)
    assert_series_equal(a.fittedvalues, b.fittedvalues)
    assert str(a.summary()) == str(b.summary())


def test_pickles_and_copies_are_the_same_fit(fit):
    for twin in (pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit)):
        same(fit, twin)
        assert_allclose(twin.refit(fit.design.y).theta, fit.theta, rtol=1e-10)
        assert_allclose(twin.predict(sleepstudy()), fit.fittedvalues)


def test_a_model_pickles_too(fit):
    model = pickle.loads(pickle.dumps(fit.model))
    assert_allclose(model.deviance(fit.theta), fit.model.deviance(fit.theta), rtol=1e-12)


def _in_worker(fit):
    return fit.random_effects["Subject"], str(fit.summary())


@pytest.mark.slow
def test_a_worker_process_reads_the_same_fit(fit):
    with Parallel(n_jobs=2, backend="loky") as workers, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found,) = workers([delayed(_in_worker)(fit)])
    assert_frame_equal(found[0], fit.random_effects["Subject"])
    assert found[1] == str(fit.summary())


@pytest.mark.slow
def test_a_fresh_process_prints_the_same_table(fit, tmp_path):
    (tmp_path / "fit.pickle").write_bytes(pickle.dumps(fit))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).summary())"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "fit.pickle")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(fit.summary()).strip()


def test_refit_is_a_fit_of_the_other_response(fit):
    y = load_case("sleepstudy_slope_REML").frame.Reaction.to_numpy()[::-1].copy()
    direct = quiet_fit("Reaction ~ Days + (1 + Days | Subject)", sleepstudy().assign(Reaction=y))
    again = fit.refit(y)
    assert_allclose(again.deviance, direct.deviance, rtol=1e-12)
    assert_series_equal(again.fe_params, direct.fe_params, rtol=1e-9)
    assert_allclose(
        fit.model.with_response(y).fit("ML").deviance,
        direct.update(method="ML").deviance,
        rtol=1e-12,
    )


@pytest.mark.parametrize("y", [np.ones(179), np.full(180, np.nan), np.ones((180, 1))])
def test_refit_wants_one_finite_number_a_row(fit, y):
    with pytest.raises(ValueError, match="180"):
        fit.refit(y)


def test_update_fills_dots_and_keeps_the_rest(fit):
    more = fit.update(". ~ . + I(Days**2)")
    assert more.fe_params.index.tolist() == ["Intercept", "Days", "I(Days ** 2)"]
    assert more.theta.shape == (3,) and more.method == "REML"
    other = fit.update("np.log(.) ~ .", method="ML")
    assert other.method == "ML" and np.abs(other.fe_params["Intercept"] - 5.5) < 0.2
    assert_allclose(fit.update(data=sleepstudy()[:90]).nobs, 90)
    with pytest.raises(TypeError, match="weights"):
        fit.update(weigths="w")


def test_update_may_change_the_random_part(fit):
    changed = fit.update("Reaction ~ Days + (1 | Subject)")
    assert_allclose(changed.deviance, fitted("sleepstudy_int_REML").deviance, rtol=1e-12)


@pytest.mark.parametrize("name, given", [("weighted_REML", "weights"), ("offset_REML", "offset")])
def test_weights_and_offset_outlive_refit_and_update(name, given):
    fit, case = fitted(name), load_case(name)
    assert_allclose(fit.refit(fit.design.y).deviance, case["objective"], rtol=0, atol=1e-6)
    assert_allclose(fit.update(". ~ .").deviance, case["objective"], rtol=0, atol=1e-6)
    ml = load_case(name.replace("REML", "ML"))
    assert_allclose(fit.update(method="ML").deviance, ml["objective"], rtol=0, atol=1e-6)
    assert abs(fit.update(**{given: None}).deviance - case["objective"]) > 1
    assert_allclose(fit.predict(case.frame), fit.fittedvalues, rtol=1e-12)


def test_a_frame_of_polars_gives_the_fit_of_pandas(fit):
    polars = quiet_fit(load_case("sleepstudy_slope_REML").formula, pl.from_pandas(sleepstudy()))
    same(fit, polars)
    assert_allclose(polars.predict(pl.from_pandas(sleepstudy())), fit.fittedvalues)


def test_the_users_data_are_not_modified():
    data = sleepstudy()
    data["w"], data["Subject"] = 1.0, data.Subject.astype("category")
    before = data.copy(deep=True)
    fit = quiet_fit("Reaction ~ poly(Days, 2) + (1 | Subject)", data, weights="w")
    fit.predict(data)
    fit.refit(data.Reaction)
    assert_frame_equal(data, before)


def test_numbers_do_not_change_when_the_users_data_do_afterwards():
    data = sleepstudy()
    fit = quiet_fit("Reaction ~ Days + (1 | Subject)", data)
    expected = fitted("sleepstudy_int_REML")
    data["Reaction"] = 0.0
    assert_allclose(fit.fe_df, expected.fe_df, rtol=1e-10)
    assert_allclose(fit.resid, expected.resid, rtol=1e-10)


def test_integer_levels_stay_integers():
    data = sleepstudy()
    data["Subject"] = data.Subject.str[1:].astype(int)
    fit = quiet_fit("Reaction ~ Days", data, groups="Subject")
    assert fit.random_effects["Subject"].index.dtype == int
    with pytest.raises(ValueError, match="'308'"):
        fit.predict(pd.DataFrame({"Days": [1], "Subject": ["308"]}))


def test_a_level_is_between_zero_and_one(fit):
    with pytest.raises(ValueError, match="level"):
        fit.random_effects_ci(95)


def test_nested_factors_have_lme4s_names_and_labels():
    fit = fitted("pastes_REML")
    assert list(fit.ngroups.items()) == [("cask:batch", 30), ("batch", 10)]
    assert fit.random_effects["cask:batch"].index[:3].tolist() == ["a:A", "a:B", "a:C"]


def test_random_part_in_three_spellings_is_one_model():
    expected = fitted("sleepstudy_int_REML").deviance
    for spelling in (
        dict(groups="Subject"),
        dict(random="(1 | Subject)"),
        dict(random=["(1 | Subject)"]),
    ):
        assert_allclose(
            interlace.fit("Reaction ~ Days", sleepstudy(), **spelling).deviance,
            expected,
            rtol=1e-12,
        )
    assert_array_equal(fitted("sleepstudy_int_REML").theta.shape, (1,))


def test_predictions_without_the_groups_say_how_to_have_them():
    fit = fitted("sleepstudy_slope_REML")
    new = pd.DataFrame({"Days": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"'Subject'.*include_re=False"):
        fit.predict(new)
    assert len(fit.predict(new, include_re=False)) == 2


def test_reml_fits_of_one_fixed_part_may_be_compared_as_they_are():
    fit = fitted("sleepstudy_slope_REML")
    less = fit.update("~ . - (1 + Days | Subject) + (1 | Subject)")
    assert less.formula == "Reaction ~ 1 + Days + (1 | Subject)"
    with pytest.warns(UserWarning, match="refit=False can compare them as they are"):
        table = interlace.anova(less, fit, names=["intercepts", "slopes"])
    assert table.index.tolist() == ["intercepts", "slopes"]
