"""Predictions: of the rows of the fit, of new rows, with the transforms and levels of the fit."""

import numpy as np
import pandas as pd
import pytest
from helpers import oracle
from helpers.cases import lmm_cases, load_case
from helpers.cells import an_empty_cell
from helpers.diagnostics import reference
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose
from scipy import linalg, stats

from interlace_jax import RankWarning
from interlace_jax.inference import prediction


@pytest.fixture(scope="module")
def fit():
    return fitted("sleepstudy_slope_REML")


@pytest.mark.parametrize("case", lmm_cases(method="REML"))
def test_predicting_the_rows_of_the_fit_gives_its_fitted_values(case):
    fit = fitted(case.name)
    assert_allclose(fit.predict(), fit.fittedvalues, rtol=1e-10)
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
    assert_allclose(fit.predict(at_zero), fit.fe_params["Intercept"], rtol=1e-10)


def test_one_row_of_a_factor_is_coded_as_in_the_fit():
    fit = fitted("machines_int_REML")
    new = pd.DataFrame({"Machine": ["C"], "Worker": ["W2"]})
    expected = fit.fe_params["Intercept"] + fit.fe_params["Machine[T.C]"]
    assert_allclose(fit.predict(new, include_re=False), expected)


@pytest.mark.parametrize(
    "transform", ["poly(Days, 2)", "scale(Days)", "bs(Days, df=4)", "center(Days)"]
)
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


@pytest.mark.parametrize("in_a_file", [False, True])
def test_predictions_in_cells_without_data_are_warned_of(in_a_file, tmp_path):
    data = an_empty_cell()
    data.to_parquet(tmp_path / "rows.parquet")
    fit = quiet_fit("y ~ e * h + (1 | g)", tmp_path / "rows.parquet" if in_a_file else data)
    fit.predict(data)
    new = pd.DataFrame({"e": ["a", "b", "b", None], "h": ["q", "q", "p", "q"], "g": 0})
    with pytest.warns(
        RankWarning, match=r"1 rows .* 'e\[T.b\]:h\[T.q\]', which was left out, as 0"
    ):
        fit.predict(new)


def test_nested_levels_are_matched_by_both_variables():
    fit = fitted("pastes_REML")
    new = pd.DataFrame({"batch": ["A", "A", "new"], "cask": ["a", "zzz", "a"]})
    mean, batch = fit.fe_params["Intercept"], fit.random_effects["batch"]["A"]
    expected = [mean + batch + fit.random_effects["cask:batch"]["a:A"], mean + batch, mean]
    assert_allclose(fit.predict(new), expected)


# Intervals ----------------------------------------------------------------------------------------


def dense_variance(problem, theta, x, z):
    """Var(x'(beta^ - beta) + z'(b^ - b)) over sigma^2 by generalised least squares; z (q,) over
    all levels, dense.
    """
    pairs = zip(problem.factors, problem.Lambdas(theta), strict=True)
    Z, D = zip(*((f.dense(), np.kron(np.eye(f.m), L @ L.T)) for f, L in pairs), strict=True)
    Z, D, Vi = np.hstack(Z), linalg.block_diag(*D), np.linalg.inv(problem.V(theta))
    off = x - problem.X.T @ Vi @ Z @ D @ z
    return (
        off @ np.linalg.solve(problem.X.T @ Vi @ problem.X, off)
        + z @ (D - D @ Z.T @ Vi @ Z @ D) @ z
    )


def rows_of(problem):
    """x and the dense z of the rows of the fit."""
    return problem.X, np.hstack([f.dense() for f in problem.factors])


@pytest.mark.parametrize("name", ["weighted_REML", "penicillin_REML", "pastes_REML"])
def test_standard_errors_are_those_of_the_dense_formula(name):
    fit, case = fitted(name), load_case(name)
    X, Z = rows_of(case.problem)
    some = [0, 5, len(X) - 1]
    variance = np.array([dense_variance(case.problem, fit.theta, X[i], Z[i]) for i in some])
    narrow, wide = (fit.predict(interval=kind).iloc[some] for kind in ("confidence", "prediction"))
    assert_allclose(narrow["se"], fit.sigma * np.sqrt(variance), rtol=1e-7)
    assert_allclose(wide["se"], fit.sigma * np.sqrt(variance + 1 / case.problem.w[some]), rtol=1e-7)
    assert_allclose(narrow["fit"], fit.fittedvalues.iloc[some])
    new = fit.predict(case.frame.iloc[some], interval="prediction")  # new rows have weight 1
    assert_allclose(new["se"], fit.sigma * np.sqrt(variance + 1), rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "case"),
    [("sleepstudy_slope_REML", "sleepstudy"), ("weighted_int_REML", "weighted_int")],
)
def test_standard_errors_are_those_of_hendersons_equations_in_r(name, case):
    # theta differs between the programs by some 1e-6 of its SD
    assert_allclose(
        fitted(name).predict(interval="confidence")["se"], reference()[case]["se"], rtol=1e-5
    )


def test_a_new_level_counts_with_its_full_variance_and_leaves_nested_factors_nested():
    fit, problem = fitted("pastes_REML"), load_case("pastes_REML").problem
    new = pd.DataFrame({"batch": ["A", "A", "new", "A"], "cask": ["a", "zzz", "a", "zzz"]})
    cask, batch = (fit.variance_components[name] / fit.scale for name in ("cask:batch", "batch"))
    X, Z = rows_of(problem)
    outer = Z[0].copy()
    outer[: len(fit.random_effects["cask:batch"])] = 0.0  # row 0 is cask a of batch A
    known, within, mean = (
        dense_variance(problem, fit.theta, X[0], z) for z in (Z[0], outer, 0 * outer)
    )
    wanted = np.array([known, within + cask, mean + cask + batch, within + cask])
    assert_allclose(
        fit.predict(new, interval="confidence")["se"], fit.sigma * np.sqrt(wanted), rtol=1e-8
    )


def test_factors_left_out_count_as_new_levels_of_a_new_response_only():
    fit = fitted("pastes_REML")
    new = pd.DataFrame({"batch": ["A"], "cask": ["a"]})
    total = sum(fit.variance_components.values())
    mean = fit.predict(new, include_re=False, interval="confidence")["se"]
    assert_allclose(mean, fit.fe_bse.iloc[0], rtol=1e-12)
    wide = fit.predict(new[[]], include_re=False, interval="prediction")["se"]
    assert_allclose(wide, np.sqrt(mean**2 + total), rtol=1e-9)
    batch = fit.predict(new[["batch"]], include_re="batch", interval="confidence")
    assert_allclose(
        batch["fit"], fit.fe_params.iloc[0] + fit.random_effects["batch"]["A"], rtol=1e-12
    )
    unseen = fit.predict(new.assign(cask="unseen"), interval="confidence")["se"]
    assert_allclose(batch["se"] ** 2 + fit.variance_components["cask:batch"], unseen**2, rtol=1e-9)


def test_degrees_of_freedom_are_satterthwaites_of_the_variance_in_question(fit):
    """By differences of the dense variance, as for coefficients."""
    problem, i = load_case("sleepstudy_slope_REML").problem, 3
    X, Z = rows_of(problem)
    at = np.append(fit.theta, fit.sigma)
    covariance = 2 * np.linalg.inv(
        oracle.hessian(lambda x: oracle.joint_deviance(problem, x[:-1], x[-1], True), at)
    )
    for kind, residual in (("confidence", 0), ("prediction", 1)):

        def variance(x, residual=residual):
            return x[-1] ** 2 * (dense_variance(problem, x[:-1], X[i], Z[i]) + residual)

        g = oracle.gradient(variance, at)
        half = stats.t.ppf(0.95, 2 * variance(at) ** 2 / (g @ covariance @ g)) * np.sqrt(
            variance(at)
        )
        found = fit.predict(interval=kind, level=0.9).iloc[i]
        assert_allclose(
            [found["fit"] - found["lower"], found["upper"] - found["fit"]], half, rtol=1e-5
        )


def test_population_intervals_follow_the_rule_of_the_fit():
    new = pd.DataFrame({"Days": [0.0, 1.0]})
    for rule in ("satterthwaite", "kenward-roger", "normal"):
        one = quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy(), df_method=rule)
        found = one.predict(new, include_re=False, interval="confidence")
        assert_allclose(
            found.loc[0, ["lower", "upper"]], one.fe_conf_int.loc["Intercept"], rtol=1e-12
        )


def test_uncertainty_of_theta_is_added_by_the_delta_method(fit):
    """Predictions by the dense formula, differentiated by differences."""
    problem = load_case("sleepstudy_slope_REML").problem
    at = np.append(fit.theta, fit.sigma)
    covariance = 2 * np.linalg.inv(
        oracle.hessian(lambda x: oracle.joint_deviance(problem, x[:-1], x[-1], True), at)
    )
    slope = oracle.gradient(lambda theta: oracle.fitted(problem, theta), fit.theta)
    added = np.einsum("in,ij,jn->n", slope, covariance[:-1, :-1], slope)
    without, with_it = (
        fit.predict(interval="confidence", theta_uncertainty=flag)["se"] for flag in (False, True)
    )
    assert_allclose(with_it**2 - without**2, added, rtol=1e-4, atol=1e-6)


def test_large_new_data_are_done_in_chunks(fit, monkeypatch):
    new = pd.concat(
        [sleepstudy(), pd.DataFrame({"Days": [3.0, np.nan], "Subject": ["new", "S308"]})]
    )
    whole = fit.predict(new, interval="prediction")
    monkeypatch.setattr(prediction, "CHUNK", 1)  # 256 rows, by the size of the fit
    often = fit.predict(pd.concat([new, new]), interval="prediction")
    assert_allclose(often[:182], whole, rtol=1e-10)
    assert_allclose(often[182:], whole, rtol=1e-10)
    assert whole.index.equals(new.index)
    assert whole.iloc[-1].isna().all() and not whole.iloc[-2].isna().any()


def test_what_intervals_cannot_be_made_of_is_refused(fit):
    with pytest.raises(ValueError, match="'confidence' or 'prediction'"):
        fit.predict(interval="both")
    with pytest.raises(ValueError, match="level"):
        fit.predict(interval="confidence", level=95)
    with pytest.raises(ValueError, match="'subject'; the grouping factors are 'Subject'"):
        fit.predict(include_re=["subject"])
    with pytest.raises(ValueError, match="rows of the fit"):
        fit.predict(offset=np.zeros(180))


def test_levels_of_another_type_are_refused():
    fit = quiet_fit(
        "Reaction ~ Days + (1 | Subject)",
        sleepstudy().assign(Subject=lambda d: d.Subject.str[1:].astype(int)),
    )
    with pytest.raises(ValueError, match="'308'.*same type"):
        fit.predict(pd.DataFrame({"Days": [0.0], "Subject": ["308"]}), interval="confidence")


SPELLINGS = [
    str.lower,
    "{} ".format,
    "{}".format,
    lambda name: name[1:],
    lambda name: f"s-0{name[1:]}",
]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_labels_that_are_spelled_otherwise_do_not_pass_for_new_groups(spell):
    data = sleepstudy()
    fit = quiet_fit("Reaction ~ Days + (1 | Subject)", data)
    renamed = data.assign(Subject=[spell(name) for name in data.Subject])
    if list(renamed.Subject) == list(data.Subject):
        assert_allclose(fit.predict(renamed), fit.predict(data))
        return
    with pytest.warns(
        UserWarning, match="none of the levels of 'Subject' in newdata is known to the fit"
    ):
        found = fit.predict(renamed)
    assert_allclose(found, fit.predict(data, include_re=False))
    fit.predict(renamed, include_re=False)
    fit.predict(pd.concat([renamed, data]))
    fit.predict(data.assign(Subject="somebody new"))
