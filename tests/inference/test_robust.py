"""Sandwich covariances and between-within degrees of freedom against references, and textbook
formulas of matrices.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose

import interlace_jax as interlace

FOLDER = Path(__file__).parents[1] / "reference" / "residual"
CASES = {"fev_us_full_REML": "us(visit | id)", "fev_ar1_arm_REML": "ar1(visit | id)"}
every_case = pytest.mark.parametrize("name", CASES)
every_kind = pytest.mark.parametrize("kind", ["CR0", "CR2", "CR3"])


@cache
def case(name):
    return json.loads((FOLDER / "cases" / f"{name}.json").read_text())


@cache
def mmrm(name):
    given = case(name)
    return quiet_fit(
        given["fixed"],
        pd.read_csv(FOLDER / given["data"]),
        method=given["method"],
        residual=CASES[name],
    )


@every_case
@every_kind
def test_sandwiches_are_the_references(name, kind):
    expected, fit = case(name)["exact"]["sandwich"][kind], mmrm(name)
    names = case(name)["exact"]["coef_names"]
    found = fit.robust(kind)
    se = np.sqrt(np.diag(expected["vcov"]))
    assert_allclose(
        found.cov.loc[names, names] / np.outer(se, se),
        expected["vcov"] / np.outer(se, se),
        atol=1e-7,
    )
    assert_allclose(found.table.loc[names, "df"], expected["df"], rtol=1e-6)
    assert_allclose(found.bse[names], se, rtol=1e-6)


@every_kind
def test_of_a_mixed_model_it_is_the_textbooks(kind):
    """Formed of n x n matrices, with the square root by an eigendecomposition of each cluster's
    block.
    """
    fit = fitted("sleepstudy_slope_REML")
    X, n = fit.design.X, fit.nobs
    f = fit.design.factors[0]
    S = fit.covariances["Subject"].to_numpy()
    same = f.codes[:, None] == f.codes[None]
    V = fit.scale * np.eye(n) + (f.Z @ S @ f.Z.T) * same
    L = np.linalg.cholesky(V)
    Xs, u = np.linalg.solve(L, X), np.linalg.solve(L, fit.design.y - X @ fit.estimate.beta)
    Phi = np.linalg.inv(Xs.T @ Xs)
    H, meat, g = Xs @ Phi @ Xs.T, 0.0, []
    for i in range(len(f.levels)):
        mine = np.flatnonzero(f.codes == i)
        values, vectors = np.linalg.eigh(np.eye(len(mine)) - H[np.ix_(mine, mine)])
        A = vectors @ np.diag(values ** {"CR0": 0, "CR2": -0.5, "CR3": -1}[kind]) @ vectors.T
        score = Xs[mine].T @ A @ u[mine]
        meat = meat + np.outer(score, score)
        g.append((np.eye(n) - H)[:, mine] @ A @ Xs[mine] @ Phi)
    found = fit.robust(kind)
    assert_allclose(found.cov, Phi @ meat @ Phi, rtol=1e-8)
    for j in range(2):
        columns = np.column_stack([part[:, j] for part in g])
        G = columns.T @ columns
        assert_allclose(found.table["df"].iloc[j], np.trace(G) ** 2 / np.trace(G @ G), rtol=1e-8)


def test_tests_use_the_robust_covariance():
    fit = mmrm("fev_ar1_arm_REML")
    found = fit.robust()
    row = found.test("arm[T.TRT] = 0").iloc[0]
    assert_allclose(row["se"], found.bse["arm[T.TRT]"])
    joint = found.test(["arm[T.TRT] = 0", "Intercept = 40"])
    assert joint["num_df"].iloc[0] == 2
    assert joint["den_df"].iloc[0] < found.table["df"].max()
    assert "CR2 over 197 clusters" in repr(found)


@every_kind
def test_joint_tests_are_hotellings_by_dense_matrices(kind):
    """eta from the variances of the entries of the standardised covariance, of the quadratic
    forms of all rows.
    """
    fit = fitted("sleepstudy_slope_REML")
    found, X, n = fit.robust(kind).coefficients, fit.design.X, fit.nobs
    f, S = fit.design.factors[0], fit.covariances["Subject"].to_numpy()
    L = np.linalg.cholesky(
        fit.scale * np.eye(n) + (f.Z @ S @ f.Z.T) * (f.codes[:, None] == f.codes[None])
    )
    Xs = np.linalg.solve(L, X)
    Phi = np.linalg.inv(Xs.T @ Xs)
    R = np.eye(n) - Xs @ Phi @ Xs.T
    g = []
    for i in range(len(f.levels)):
        mine = np.flatnonzero(f.codes == i)
        values, vectors = np.linalg.eigh(R[np.ix_(mine, mine)])
        A = vectors @ np.diag(values ** {"CR0": 0, "CR2": -0.5, "CR3": -1}[kind]) @ vectors.T
        g.append(R[:, mine] @ A @ Xs[mine] @ Phi)
    G = np.array(
        [[sum(np.outer(part[:, s], part[:, t]) for part in g) for t in (0, 1)] for s in (0, 1)]
    )
    expected = np.einsum("stii->st", G)
    root = np.linalg.inv(np.linalg.cholesky(expected))
    D = np.einsum("as,bt,stij->abij", root, root, G)
    D = 0.5 * (D + D.swapaxes(2, 3))
    eta = 2 * 3 / (2 * np.einsum("stij,stij->", D, D))  # Var(u'Du) = 2 tr(D D) for symmetric D
    assert_allclose(found.scale_and_df(np.eye(2)), ((eta - 1) / eta, eta - 1), rtol=1e-8)
    assert_allclose(found.scale_and_df(np.eye(2)[:1]), (1.0, found.df(np.eye(2)[:1])[0]), rtol=1e-8)


def test_too_few_clusters_for_a_joint_test_give_no_number():
    fit = quiet_fit("Reaction ~ Days + I(Days^2) + (1 | Subject)", sleepstudy().iloc[:20])
    row = fit.robust().test(np.eye(3)).iloc[0]
    assert np.isnan(row[["F", "den_df", "p"]]).all()


def test_terms_and_means_take_robust_coefficients():
    fit = fitted("sleepstudy_slope_REML")
    robust = fit.robust()
    row = robust.test("Days = 0").iloc[0]
    assert_allclose(fit.test("Days = 0", ddf=robust.coefficients).iloc[0], row)
    assert_allclose(fit.anova(3, ddf=robust.coefficients).loc["Days", "Pr(>F)"], row.p, rtol=1e-8)
    slope = interlace.emmeans(fit, [], trend="Days", ddf=robust.coefficients).frame.iloc[0]
    assert_allclose(slope[["se", "df"]], row[["se", "df"]], rtol=1e-8)
    with pytest.raises(ValueError, match="another fit"):
        fitted("sleepstudy_int_REML").test("Days = 0", ddf=robust.coefficients)


def test_clusters_must_be_independent():
    fit = fitted("penicillin_REML")
    with pytest.raises(ValueError, match="share random effects or residuals"):
        fit.robust()
    with pytest.raises(
        ValueError, match="cluster='lab' is none of the groups of this model: 'plate', 'sample'"
    ):
        fit.robust(cluster="lab")
    with pytest.raises(ValueError, match="kind must be 'CR0' or 'CR2' or 'CR3', not 'HC1'"):
        fit.robust("HC1")


@every_case
def test_between_within_is_the_references(name):
    expected, fit = case(name)["exact"], mmrm(name)
    coefficients = fit.coefficients("between-within")
    order = [fit.fe_params.index.get_loc(c) for c in expected["coef_names"]]
    assert_allclose(coefficients.df(np.eye(len(order)))[order], expected["between_within"]["df"])


def test_between_within_of_contrasts_takes_the_least():
    fit = mmrm("fev_ar1_arm_REML")
    row = fit.test("arm[T.TRT] + Intercept = 0", ddf="between-within").iloc[0]
    assert row["df"] == 195
    assert fit.anova(ddf="between-within")["DenDF"].tolist() == [195]


def test_between_within_needs_subjects():
    frame = pd.DataFrame({"y": np.arange(8.0) % 3, "a": list("aabbccdd"), "b": list("xyxyxyxy")})
    with pytest.raises(ValueError, match="'between-within' needs to know the subjects"):
        quiet_fit("y ~ 1 + (1 | a) + (1 | b)", frame, df_method="between-within")
