"""Tests of coefficients by each rule for degrees of freedom, against their definitions."""

import numpy as np
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from scipy import stats


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
    assert_allclose(
        [row.F, row.num_df, row.den_df, row.p], [F, 2, 17, stats.f.sf(F, 2, 17)], rtol=1e-6
    )


def test_redundant_rows_do_not_count():
    fit = fitted("sleepstudy_slope_REML")
    assert_allclose(
        fit.test(["Days", "2 * Days = 0"]).iloc[0][["F", "num_df"]],
        [fit.fe_tvalues["Days"] ** 2, 1],
    )


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


def test_rules_are_read_as_r_writes_them():
    fit = fitted("sleepstudy_slope_REML")
    for written in ("Kenward-Roger", "Satterthwaite"):
        assert_frame_equal(fit.anova(ddf=written), fit.anova(ddf=written.lower()))
    assert fit.model.fit(df_method="Kenward-Roger").df_method == "kenward-roger"


def test_an_unknown_rule_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="satterthwaite"):
        fitted("sleepstudy_slope_REML").test("Days", ddf="exact")


def test_the_scales_of_predictors_make_no_difference_to_joint_tests():
    frame = sleepstudy().assign(
        half=lambda f: (f.Subject > "S335").astype(float), metres=lambda f: 1e6 * f.Days
    )
    plain = quiet_fit("Reaction ~ Days + half + (1 + Days | Subject)", frame)
    scaled = quiet_fit(
        "Reaction ~ metres + half + (1 + metres | Subject)", frame.assign(half=1e-6 * frame.half)
    )
    one = plain.test(["Days = 0", "half = 0"], ddf="kenward-roger")
    other = scaled.test(["metres = 0", "half = 0"], ddf="kenward-roger")
    assert_allclose(np.asarray(other, float), np.asarray(one, float), rtol=1e-6)


@pytest.mark.parametrize("written", [["Days = 2", "Days = 5"], "Days = 2, 2 * Days = 5"])
def test_hypotheses_that_cannot_all_be_true_have_no_joint_test(written):
    fit = fitted("sleepstudy_slope_REML")
    with pytest.raises(ValueError, match="contradict"):
        fit.test(written)
    assert len(fit.test(written, joint=False)) == 2


@pytest.mark.parametrize(
    "written", [[], "", {}, "Days - Days = 0", {"Days": 0}, [0.0, 0.0], "0 = 0"]
)
def test_hypotheses_about_nothing_are_refused(written):
    with pytest.raises(ValueError, match="empty|says nothing|cannot be read"):
        fitted("sleepstudy_slope_REML").test(written)
