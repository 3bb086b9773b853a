"""Likelihood-ratio tests between fits: against lme4, by simulation, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from helpers.cases import load_case
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace

LRTS = [
    "crossed_lrt_int_vs_slope",
    "crossed_lrt_subj_vs_both",
    "sleepstudy_lrt_indep_vs_slope",
    "sleepstudy_lrt_int_vs_slope",
]
CRITERIA = ["npar", "AIC", "BIC", "logLik", "deviance"]


pytestmark = pytest.mark.filterwarnings("ignore:REML fits are refitted")


def reml(name):
    return fitted(name.replace("_ML", "_REML"))


@pytest.mark.parametrize("name", LRTS)
def test_reml_fits_are_refitted_and_give_lme4s_table(name):
    reference = load_case(name)
    with pytest.warns(UserWarning, match="refitted by ML"):
        table = interlace.anova(reml(reference["big"]), reml(reference["small"]))
    assert_allclose(table[CRITERIA].T, [reference[c] for c in CRITERIA], rtol=1e-8)
    assert_allclose(
        table.iloc[1][["Chisq", "Df", "Pr(>Chisq)"]],
        [reference["chisq"], reference["df"], reference["p"]],
        rtol=1e-5,
    )
    assert table.index.tolist() == ["m2", "m1"]


def test_without_refitting_reml_criteria_are_compared():
    small, big = fitted("sleepstudy_int_REML"), fitted("sleepstudy_slope_REML")
    table = interlace.anova(small, big, refit=False)
    assert_allclose(table.Chisq.iloc[1], small.deviance - big.deviance)


@pytest.mark.parametrize(("small", "big", "k"), [
    ("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (1 + Days | Subject)", 1),
    ("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (1 + Days || Subject)", 0),
])  # fmt: skip
def test_one_variance_is_tested_by_a_mixture(small, big, k):
    row = interlace.anova(quiet_fit(small, sleepstudy()), quiet_fit(big, sleepstudy())).iloc[1]
    lower = stats.chi2.sf(row.Chisq, k) if k else 0.0
    assert_allclose(
        row["Pr(>Chisq) boundary"], 0.5 * (lower + stats.chi2.sf(row.Chisq, k + 1)), rtol=1e-8
    )


def test_correlations_and_coefficients_are_not_at_a_boundary():
    frame = sleepstudy()
    fits = [
        quiet_fit(f"Reaction ~ {f}", frame) for f in ("1 + (1 | Subject)", "Days + (1 | Subject)")
    ]
    for table in (
        interlace.anova(*fits),
        interlace.anova(fitted("sleepstudy_slope_indep_ML"), fitted("sleepstudy_slope_ML")),
    ):
        assert table["Pr(>Chisq) boundary"].iloc[1] == table["Pr(>Chisq)"].iloc[1]


def test_two_variances_at_once_have_no_simple_mixture():
    table = interlace.anova(fitted("crossed_int_ML"), fitted("crossed_slope_both_ML"))
    assert np.isnan(table["Pr(>Chisq) boundary"].iloc[1])


def test_a_statistic_of_zero_has_p_one():
    frame = load_case("dyestuff2_ML").frame.assign(other=lambda f: np.tile(list("abcde"), 6))
    big = quiet_fit("Yield ~ 1 + (1 | Batch) + (1 | other)", frame)
    row = interlace.anova(quiet_fit("Yield ~ 1 + (1 | other)", frame), big).iloc[1]
    assert_allclose(row.Chisq, 0.0, atol=1e-7)
    assert row["Pr(>Chisq) boundary"] > 0.49


def test_simulation_finds_an_effect_and_leaves_noise_alone():
    rng = np.random.default_rng(5)
    frame = sleepstudy().assign(noise=lambda f: rng.normal(size=len(f)))
    frame["y"] = 3 * rng.normal(size=18)[pd.factorize(frame.Subject)[0]] + rng.normal(
        size=len(frame)
    )
    small, big = (
        quiet_fit(f"y ~ noise + {random}", frame)
        for random in ("(1 | Subject)", "(1 + noise || Subject)")
    )
    row = interlace.anova(small, big, nsim=100, seed=1).iloc[1]
    # A variance is 0 in more than half of the small samples, so that even the mixture is a little
    # conservative.
    assert 0.05 < row["Pr(>Chisq) simulated"] < row["Pr(>Chisq) boundary"] < row["Pr(>Chisq)"]
    slopes = interlace.anova(
        fitted("sleepstudy_int_ML"), fitted("sleepstudy_slope_ML"), nsim=19, seed=1
    )
    assert slopes["Pr(>Chisq) simulated"].iloc[1] == 1 / 20


def test_compound_symmetry_is_nested_in_an_unstructured_covariance():
    fits = (
        fitted("machines_nested_ML"),
        quiet_fit(
            "score ~ 1 + Machine + (0 + Machine | Worker)",
            load_case("machines_nested_ML").frame,
            method="ML",
        ),
    )
    assert interlace.anova(*fits).Df.iloc[1] == 4


def test_what_cannot_be_compared_is_refused_with_the_reason():
    slope, frame = fitted("sleepstudy_slope_ML"), sleepstudy()
    refusals = {
        "rows": quiet_fit("Reaction ~ Days + (1 | Subject)", frame.iloc[:170], method="ML"),
        "response": quiet_fit("np.log(Reaction) ~ Days + (1 | Subject)", frame, method="ML"),
        "weights": quiet_fit(
            "Reaction ~ Days + (1 | Subject)", frame.assign(w=2.0), weights="w", method="ML"
        ),
        "not nested.*Days": quiet_fit(
            "Reaction ~ 1 + (Days + I(Days**2) | Subject)", frame, method="ML"
        ),
        "not nested.*random": quiet_fit(
            "Reaction ~ Days + (0 + Days | Subject)", frame, method="ML"
        ),
    }
    with pytest.raises(ValueError, match="not nested.*random"):
        interlace.anova(
            refusals.pop("not nested.*random"),
            quiet_fit("Reaction ~ Days + I(Days**2) + (1 | Subject)", frame, method="ML"),
        )
    for reason, other in refusals.items():
        with pytest.raises(ValueError, match=reason):
            interlace.anova(slope, other)
    with pytest.raises(ValueError, match="two or more"):
        interlace.anova(slope)
    with pytest.raises(ValueError, match="refit=True"):
        interlace.anova(fitted("sleepstudy_int_REML"), slope, refit=False)


SLOPES = [f"Reaction ~ Days + ({term} | Subject)" for term in ("1", "1 + Days")]


def test_rows_in_another_order_are_the_same_data():
    """The likelihood does not depend on it; labels of rows tell which is which, for simulated
    responses too.
    """
    frame, mixed = sleepstudy(), sleepstudy().sample(frac=1, random_state=1)
    fits = [
        [quiet_fit(f, data, method="ML") for f, data in zip(SLOPES, order, strict=True)]
        for order in ((frame, frame), (frame, mixed), (mixed, frame))
    ]
    tables = [interlace.anova(*pair, nsim=9, seed=1) for pair in fits]
    assert_allclose(tables[1].to_numpy(), tables[0].to_numpy(), rtol=1e-6)
    assert_allclose(tables[2].iloc[:, :-1], tables[0].iloc[:, :-1], rtol=1e-6)


def test_rows_whose_order_cannot_be_known_are_refused_in_words():
    mixed = sleepstudy().sample(frac=1, random_state=1).reset_index(drop=True)
    with pytest.raises(ValueError, match="in another order"):
        interlace.anova(
            *(
                quiet_fit(f, data, method="ML")
                for f, data in zip(SLOPES, (sleepstudy(), mixed), strict=True)
            )
        )


def test_models_have_the_names_given():
    fits = fitted("sleepstudy_slope_ML"), fitted("sleepstudy_int_ML")
    table = interlace.anova(*fits, names=["slopes", "intercepts"])
    assert table.index.tolist() == ["intercepts", "slopes"] == list(table.attrs["models"])
    for wrong in (["one"], ["same", "same"]):
        with pytest.raises(ValueError, match="2 different texts"):
            interlace.anova(*fits, names=wrong)


def test_correlated_residuals_are_compared_in_one_order_of_rows_only():
    data = sleepstudy()
    shuffled = data.sample(frac=1.0, random_state=0)
    fits = [
        quiet_fit("Reaction ~ Days + (1 | Subject)", data, method="ML"),
        quiet_fit(
            "Reaction ~ Days + (1 | Subject)", shuffled, method="ML", residual="ar1(Days | Subject)"
        ),
    ]
    with pytest.raises(ValueError, match="fit both to the data in one order"):
        interlace.anova(*fits)
