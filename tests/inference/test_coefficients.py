"""Linear hypotheses: how they are written, and what the tests are."""

import numpy as np
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose
from scipy import stats

from interlace_jax.inference import contrasts

NAMES = ("Intercept", "recipe[T.B]", "temp[T.T185]", "recipe[T.B]:temp[T.T185]", "x", "x2")


@pytest.mark.parametrize(
    ("written", "weights", "rhs"),
    [
        ("x = 0", [0, 0, 0, 0, 1, 0], 0),
        ("x", [0, 0, 0, 0, 1, 0], 0),
        ("x2 = x", [0, 0, 0, 0, -1, 1], 0),
        ("2 * x - x2 = 1", [0, 0, 0, 0, 2, -1], 1),
        ("recipe[T.B]:temp[T.T185] = recipe[T.B]", [0, -1, 0, 1, 0, 0], 0),
        ("`temp[T.T185]` + Intercept = 250", [1, 0, 1, 0, 0, 0], 250),
        ({"x": 1, "x2": -0.5}, [0, 0, 0, 0, 1, -0.5], 0),
    ],
)
def test_a_row_may_be_text_or_weights_by_name(written, weights, rhs):
    L, right, _ = contrasts.contrast_matrix(written, NAMES)
    assert_allclose(L, [weights])
    assert_allclose(right, [rhs])


def test_several_rows_may_be_one_text_a_list_or_a_matrix():
    wanted = np.eye(6)[[4, 5]]
    for written in ("x = 0, x2 = 0", ["x", "x2 = 0"], wanted, wanted.tolist()):
        assert_allclose(contrasts.contrast_matrix(written, NAMES)[0], wanted)


@pytest.mark.parametrize("written", ["z = 0", "x == 0", {"z": 1}, [1, 2], [[np.nan] * 6], "x = "])
def test_what_cannot_be_read_is_said_with_the_names_there_are(written):
    with pytest.raises(ValueError, match="x2"):
        contrasts.contrast_matrix(written, NAMES)


def test_a_single_row_has_the_t_test_of_the_coefficient():
    fit = fitted("sleepstudy_slope_REML")
    row = fit.test("Days = 0").iloc[0]
    assert_allclose(
        [row.estimate, row.se, row.df, row.p],
        [v["Days"] for v in (fit.fe_params, fit.fe_bse, fit.fe_df, fit.fe_pvalues)],
    )
    assert_allclose([row.lower, row.upper], fit.fe_conf_int.loc["Days"])


def test_a_right_hand_side_moves_the_null_and_not_the_interval():
    fit = fitted("sleepstudy_slope_REML")
    free, moved = fit.test("Days = 0").iloc[0], fit.test("Days = 8").iloc[0]
    assert_allclose(moved.t, (free.estimate - 8.0) / free.se)
    assert_allclose(moved.lower, free.lower)


def test_two_rows_have_a_joint_f_test():
    fit = fitted("sleepstudy_slope_REML")
    row = fit.test("Intercept = 250, Days = 10").iloc[0]
    d = fit.fe_params.to_numpy() - [250, 10]
    F = d @ np.linalg.solve(fit.fe_cov, d) / 2
    # Both df are 17, and so is that of the F test.
    assert_allclose([row.F, row.num_df, row.den_df, row.p], [F, 2, 17, stats.f.sf(F, 2, 17)], rtol=1e-6)


def test_redundant_rows_do_not_count():
    fit = fitted("sleepstudy_slope_REML")
    assert_allclose(fit.test(["Days", "2 * Days = 0"]).iloc[0][["F", "num_df"]], [fit.fe_tvalues["Days"] ** 2, 1])


def test_without_df_the_tests_are_normal_and_chi_square():
    fit = fitted("sleepstudy_slope_REML")
    row = fit.test("Days = 0", ddf="normal").iloc[0]
    assert_allclose(row.p, 2 * stats.norm.sf(row.t))
    joint = fit.test(np.eye(2), ddf="normal").iloc[0]
    assert_allclose(joint.p, stats.chi2.sf(2 * joint.F, 2))


@pytest.mark.parametrize("case", ["dyestuff2_REML", "crossed_slope_both_ML", "machines_slope_REML"])
@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_degrees_of_freedom_are_finite_whatever_the_fit(case, ddf):
    fit = fitted(case)
    if fit.method == "REML" or ddf == "satterthwaite":
        df = fit.coefficients(ddf).df(np.eye(len(fit.fe_params)))
        assert ((df >= 1) & (df < fit.nobs)).all()


def test_an_unknown_rule_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="satterthwaite"):
        fitted("sleepstudy_slope_REML").test("Days", ddf="exact")


def test_the_scales_of_predictors_make_no_difference_to_joint_tests():
    frame = sleepstudy().assign(half=lambda f: (f.Subject > "S335").astype(float), metres=lambda f: 1e6 * f.Days)
    plain = quiet_fit("Reaction ~ Days + half + (1 + Days | Subject)", frame)
    scaled = quiet_fit("Reaction ~ metres + half + (1 + metres | Subject)", frame.assign(half=1e-6 * frame.half))
    one = plain.test(["Days = 0", "half = 0"], ddf="kenward-roger")
    other = scaled.test(["metres = 0", "half = 0"], ddf="kenward-roger")
    assert_allclose(np.asarray(other, float), np.asarray(one, float), rtol=1e-6)
