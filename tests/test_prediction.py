"""Predictions: of the rows of the fit, of new rows, with the transforms and levels of the fit."""

import numpy as np
import pandas as pd
import pytest
from cases import lmm_cases, load_case
from fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose


@pytest.fixture(scope="module")
def fit():
    return fitted("sleepstudy_slope_REML")


@pytest.mark.parametrize("case", lmm_cases(method="REML"))
def test_predicting_the_rows_of_the_fit_gives_its_fitted_values(case):
    fit = fitted(case.name)
    assert_allclose(fit.predict(), fit.fittedvalues, rtol=1e-13)
    assert_allclose(fit.predict(case.frame), fit.fittedvalues, rtol=1e-11)
    population = fit.predict(include_re=False)
    assert_allclose(population, fit.model.design.X @ fit.fe_params + case.problem.shift, rtol=1e-12)
    assert_allclose(fit.predict(case.frame, include_re=False), population, rtol=1e-11)


def test_unseen_levels_get_the_population_value_or_a_clear_error(fit):
    new = pd.DataFrame({"Days": [0, 3.0], "Subject": ["nobody", "S308"]}, index=["a", "b"])
    found = fit.predict(new)
    assert found.index.tolist() == ["a", "b"]
    assert_allclose(found["a"], fit.fe_params["Intercept"])
    with pytest.raises(ValueError, match="1 row.*Subject"):
        fit.predict(new, allow_new_levels=False)
    assert_allclose(fit.predict(new[1:], allow_new_levels=False), found["b"])


def test_slopes_without_intercept_are_slopes():
    fit = quiet_fit("Reaction ~ Days + (0 + Days | Subject)", sleepstudy())
    at_zero = pd.DataFrame({"Days": [0.0], "Subject": ["S308"]})
    assert_allclose(fit.predict(at_zero), fit.fe_params["Intercept"], rtol=1e-13)


def test_one_row_of_a_factor_is_coded_as_in_the_fit():
    fit = fitted("machines_int_REML")
    new = pd.DataFrame({"Machine": ["C"], "Worker": ["W2"]})
    expected = fit.fe_params["Intercept"] + fit.fe_params["Machine[T.C]"]
    assert_allclose(fit.predict(new, include_re=False), expected)


@pytest.mark.parametrize("transform", ["poly(Days, 2)", "scale(Days)", "bs(Days, df=4)", "center(Days)"])
def test_transforms_are_those_of_the_fit(transform):
    data = sleepstudy()
    fit = quiet_fit(f"Reaction ~ {transform} + (1 | Subject)", data)
    assert_allclose(fit.predict(data[5:8]), fit.fittedvalues[5:8], rtol=1e-11)


def test_an_unseen_fixed_level_is_an_error():
    fit = fitted("machines_int_REML")
    with pytest.raises(ValueError, match="'Machine'.*'Z'"):
        fit.predict(pd.DataFrame({"Machine": ["Z"], "Worker": ["W1"]}))


def test_an_offset_column_is_read_from_new_data_and_an_array_is_asked_for():
    frame = load_case("offset_REML").frame
    by_column = fitted("offset_REML")
    shifted = frame.assign(off=frame.off + 7)
    assert_allclose(by_column.predict(shifted), by_column.fittedvalues + 7, rtol=1e-12)
    by_array = quiet_fit("y ~ x + (1 | g)", frame, offset=frame.off.to_numpy())
    assert_allclose(by_array.fe_params, by_column.fe_params, rtol=1e-12)
    with pytest.raises(ValueError, match="offset"):
        by_array.predict(frame)
    assert_allclose(by_array.predict(frame, offset=frame.off), by_array.fittedvalues, rtol=1e-12)
    assert_allclose(by_array.predict(), by_array.fittedvalues)


def test_missing_values_predict_missing_values(fit):
    new = pd.DataFrame({"Days": [1.0, np.nan], "Subject": ["S308", "S308"]})
    assert fit.predict(new).isna().tolist() == [False, True]


@pytest.mark.parametrize("column", ["Days", "Subject"])
def test_a_column_that_is_needed_is_named(fit, column):
    with pytest.raises(ValueError, match=column):
        fit.predict(sleepstudy().drop(columns=column))


def test_population_predictions_need_no_grouping_column(fit):
    found = fit.predict(pd.DataFrame({"Days": [2.0]}), include_re=False)
    assert_allclose(found, fit.fe_params @ [1, 2])


def test_a_dropped_column_is_left_out_of_predictions():
    fit, case = fitted("rankdef_REML"), load_case("rankdef_REML")
    assert_allclose(fit.predict(case.frame[:4]), fit.fittedvalues[:4], rtol=1e-11)


def test_nested_levels_are_matched_by_both_variables():
    fit = fitted("pastes_REML")
    new = pd.DataFrame({"batch": ["A", "A", "new"], "cask": ["a", "zzz", "a"]})
    mean, batch = fit.fe_params["Intercept"], fit.random_effects["batch"]["A"]
    expected = [mean + batch + fit.random_effects["cask:batch"]["a:A"], mean + batch, mean]
    assert_allclose(fit.predict(new), expected)
