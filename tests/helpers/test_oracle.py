"""The dense oracle reproduces lme4, lmerTest and pbkrtest at their theta, so it can judge the
library.
"""

import numpy as np
import pytest
from helpers import cases, oracle
from helpers.cases import lmm_cases, load_case
from numpy.testing import assert_allclose

every_case = pytest.mark.parametrize("case", lmm_cases())
# Differentiating numerically takes hundreds of evaluations at O(n^3) each.
few_rows = pytest.mark.parametrize("case", lmm_cases(max_rows=300))


@every_case
def test_both_criteria_are_lme4s(case):
    assert_allclose(
        oracle.deviance(case.problem, case.theta, False),
        case["ml_deviance_at_theta"],
        atol=1e-8,
        rtol=0,
    )
    assert_allclose(
        oracle.deviance(case.problem, case.theta, True),
        case["reml_criterion_at_theta"],
        atol=1e-8,
        rtol=0,
    )
    assert (
        case["objective"]
        == case["reml_criterion_at_theta" if case.reml else "ml_deviance_at_theta"]
    )


@every_case
def test_sigma_fixed_effects_and_their_covariance_are_lme4s(case):
    sigma = oracle.sigma(case.problem, case.theta, case.reml)
    cov = oracle.beta_cov(case.problem, case.theta, sigma)
    assert_allclose(sigma, case["sigma"], rtol=1e-9)
    error = oracle.gls(case.problem, case.theta).beta - case.values("fixef")
    assert np.all(np.abs(error) < 1e-6 * case.values("se"))
    assert_allclose(np.sqrt(np.diag(cov)), case.values("se"), rtol=1e-8)
    assert_allclose(cov, case["vcov"], rtol=1e-7, atol=1e-9 * np.max(cov))


@every_case
def test_modes_and_their_covariances_are_lme4s(case):
    modes = oracle.modes(case.problem, case.theta)
    covs = oracle.mode_covs(case.problem, case.theta, case["sigma"])
    for name, b, cov in zip(case["n_levels"], modes, covs, strict=True):
        expected = case["ranef"][name]
        scale = max(np.max(expected["cond_sd"]), 1e-3)
        assert_allclose(b, expected["values"], rtol=0, atol=1e-7 * scale)
        assert_allclose(
            np.sqrt(np.diagonal(cov, axis1=1, axis2=2)), expected["cond_sd"], rtol=1e-7, atol=1e-9
        )
        if "cond_cov" in expected:
            assert_allclose(cov, expected["cond_cov"], rtol=0, atol=1e-8 * scale**2)


@every_case
def test_conditional_fitted_values_are_lme4s(case):
    fitted = oracle.fitted(case.problem, case.theta)
    assert_allclose(fitted[:20], case["fitted_first20"], rtol=1e-8)
    assert_allclose(
        case.problem.y[:20] - fitted[:20], case["resid_first20"], rtol=0, atol=1e-8 * np.std(fitted)
    )
    assert_allclose(np.sum(fitted**2), case["fitted_norm2"], rtol=1e-9)


@few_rows
def test_the_gradient_at_the_reference_optimum_is_zero_in_units_of_the_curvature(case):
    free = case.problem.free(case.theta)

    def deviance(theta):
        return oracle.deviance(case.problem, theta, case.reml)

    gradient = oracle.gradient(deviance, case.theta)
    assert_allclose(gradient[~free], 0, atol=1e-6)
    if free.any():
        hessian = case["optimizer"]["polished"]["theta_hessian"]
        assert_allclose(
            oracle.hessian(deviance, case.theta), hessian["matrix"], rtol=1e-4, atol=1e-3
        )
        assert np.all(np.abs(gradient) < 1e-4 * np.sqrt(np.diag(hessian["matrix"])))


@few_rows
def test_satterthwaite_degrees_of_freedom_are_lmertests(case):
    df = oracle.satterthwaite(case.problem, case.theta, np.eye(case["p"]), case.reml)
    expected = [case["satterthwaite"]["df"][name] for name in case["coef_names"]]
    assert_allclose(df, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "case", [c for c in lmm_cases(method="REML") if "df" in c.values[0]["kenward_roger"]]
)
def test_kenward_roger_is_pbkrtests(case):
    expected = case["kenward_roger"]
    ours = oracle.kenward_roger(case.problem, case.theta, list(np.eye(case["p"])))
    assert_allclose(ours.cov, expected["vcov_adj"], rtol=0, atol=1e-10 * np.max(ours.cov))
    assert_allclose(ours.df, [expected["df"][name] for name in case["coef_names"]], rtol=1e-9)
    assert_allclose(ours.scale, 1, rtol=1e-9)


F_TESTS = [
    ("oats", "Variety"),
    ("machines_slope", "Machine"),
    ("cake_main", "recipe"),
    ("cake_main", "temp"),
]


@pytest.mark.parametrize(("name", "factor"), F_TESTS)
def test_kenward_roger_f_tests_of_several_coefficients_are_pbkrtests(name, factor):
    case = load_case(f"{name}_REML")
    table = case["anova_type3"]["kenward_roger"]
    expected = [
        table["values"][column][table["row_names"].index(factor)] for column in ("den_df", "F")
    ]
    L = np.eye(case["p"])[[name.startswith(factor) for name in case["coef_names"]]]
    ours = oracle.kenward_roger(case.problem, case.theta, [L])
    effect = L @ oracle.gls(case.problem, case.theta).beta
    F = ours.scale[0] * effect @ np.linalg.solve(L @ ours.cov @ L.T, effect) / len(L)
    assert_allclose([ours.df[0], F], expected, rtol=1e-8)


@pytest.mark.parametrize(
    "name", ["dyestuff_REML", "dyestuff2_ML", "pastes_REML", "weighted_int_ML", "oats_ML"]
)
def test_the_brute_force_fit_finds_the_reference_optimum(name):
    case = load_case(name)
    theta = oracle.fit(case.problem, case.reml, starts=2)
    assert_allclose(
        oracle.deviance(case.problem, theta, case.reml), case["objective"], atol=1e-7, rtol=0
    )
    assert_allclose(theta, case.theta, atol=1e-4)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_the_joint_deviance_is_least_at_the_profiled_sigma(reml):
    case = load_case("sleepstudy_slope_REML")
    sigma = oracle.sigma(case.problem, case.theta, reml)

    def joint(log_sigma):
        return oracle.joint_deviance(case.problem, case.theta, np.exp(log_sigma[0]), reml)

    at = np.array([np.log(sigma)])
    assert_allclose(joint(at), oracle.deviance(case.problem, case.theta, reml), rtol=1e-12)
    assert abs(oracle.gradient(joint, at)[0]) < 1e-6
    n, p = case.problem.X.shape  # d2/d(log sigma)2 of nu 2 log sigma + r2 / sigma^2 at the optimum
    assert_allclose(oracle.hessian(joint, at), [[4 * (n - p if reml else n)]], rtol=1e-6)


def test_numerical_derivatives_of_a_known_function_are_exact_to_nine_digits():
    def f(x):
        return np.exp(x[0]) * np.sin(x[1]) + x[1] ** 3

    x = np.array([0.3, 1.1])
    e, s, c = np.exp(0.3), np.sin(1.1), np.cos(1.1)
    assert_allclose(oracle.gradient(f, x), [e * s, e * c + 3 * 1.1**2], rtol=1e-10)
    assert_allclose(oracle.hessian(f, x), [[e * s, e * c], [e * c, -e * s + 6 * 1.1]], rtol=1e-8)


def test_a_zero_weight_is_the_same_as_no_row():
    problem = oracle.random_design(0, "zero_weights")
    assert len(problem.used().y) == np.count_nonzero(problem.weights) < len(problem.y)
    assert np.all(problem.used().w > 0)


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_random_designs_are_models_lme4_would_accept(kind):
    for seed in range(3):
        problem = oracle.random_design(seed, kind)
        n, p = problem.X.shape
        assert np.linalg.matrix_rank(problem.X) == p
        assert len(oracle.random_theta(problem, seed)) == problem.d
        for factor in problem.factors:
            assert 1 < factor.m and factor.m * factor.Z.shape[1] < n
            assert set(factor.codes) == set(range(factor.m))
        levels = [factor.m for factor in problem.factors]
        assert levels == sorted(levels, reverse=True)


def test_random_designs_are_reproducible_and_differ_by_seed():
    first, again, other = (oracle.random_design(seed, "crossed_slopes") for seed in (1, 1, 2))
    assert np.array_equal(first.y, again.y)
    assert not np.array_equal(first.y, other.y)


@pytest.mark.parametrize("kind", ["slope", "crossed_slopes", "nested_chain", "weights"])
def test_the_covariance_of_y_is_that_of_its_parts(kind):
    """V element by element from the definition of the model, for a few pairs of rows."""
    problem = oracle.random_design(5, kind)
    theta = oracle.random_theta(problem, 5)
    V = problem.V(theta)
    for i, j in [(0, 0), (3, 3), *np.random.default_rng(0).integers(0, len(problem.y), (40, 2))]:
        expected = (i == j) / problem.w[i]
        for factor, L in zip(problem.factors, problem.Lambdas(theta), strict=True):
            if factor.codes[i] == factor.codes[j]:
                expected += factor.Z[i] @ L @ (factor.Z[j] @ L)
        assert_allclose(V[i, j], expected, rtol=1e-12, atol=1e-14)


def test_cases_are_read_with_their_text_columns_as_text():
    case = load_case("cake_REML")
    assert all(isinstance(value, str) for column in case["factors"] for value in case.frame[column])
    assert case.formula == "angle ~ 1 + recipe * temp + (1 | recipe:replicate)"


def test_changing_a_cases_frame_leaves_the_case_alone():
    case = load_case("cake_REML")
    frame = case.frame
    frame["angle"] = 0
    assert case.frame["angle"].sum() > 0


def test_every_file_in_the_index_is_there_and_no_other():
    index = cases.json.loads((cases.REFERENCE / "index.json").read_text())
    listed = {entry["file"] for entry in index["cases"]}
    assert listed == {f"cases/{path.name}" for path in (cases.REFERENCE / "cases").iterdir()}
