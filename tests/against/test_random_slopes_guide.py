"""The code of the guide to random slopes, block by block, and what the guide says about it."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import interlace_jax as interlace

SUBJECTS = [f"subject_{i:02}" for i in range(1, 21)]
ITEMS = [f"item_{i:02}" for i in range(1, 13)]
SLOPE = ["(Intercept)", "condition"]


@pytest.fixture(scope="module")
def df():
    """Every subject answers every item once; condition is numeric."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame([(s, i) for s in SUBJECTS for i in ITEMS], columns=["subject", "item"])
    subject, item = data.subject.map(SUBJECTS.index), data.item.map(ITEMS.index)
    data["condition"] = ((subject + item) % 4).astype(float)
    b = rng.multivariate_normal([0, 0], [[900.0, -100.0], [-100.0, 64.0]], len(SUBJECTS))[subject]
    noise = rng.normal(0, 25, len(ITEMS))[item] + rng.normal(0, 20, len(data))
    data["rt"] = 500 + b[:, 0] + (12 + b[:, 1]) * data.condition + noise
    return data


@pytest.fixture(scope="module")
def slope(df):
    """Correlated intercept + slope."""
    return interlace.fit("rt ~ condition", data=df, random=["(1 + condition | subject)"])


@pytest.fixture(scope="module")
def intercept(df):
    return interlace.fit("rt ~ condition", data=df, groups="subject")


@pytest.fixture(scope="module")
def mixed_ml(df):
    return interlace.fit(
        "rt ~ condition", data=df, random=["(1 + condition | subject)", "(1 | item)"], method="ML"
    )


# Syntax


def test_correlated_slopes_are_lme4s(slope, df):
    whole = interlace.fit("rt ~ condition + (1 + condition | subject)", df)
    pd.testing.assert_series_equal(whole.fe_params, slope.fe_params)
    assert whole.llf == pytest.approx(slope.llf, rel=1e-10)
    assert slope.converged and not slope.is_singular
    assert len(slope.theta) == 3


def test_uncorrelated_slopes_have_no_covariance(slope, df):
    result = interlace.fit("rt ~ condition", data=df, random=["(1 + condition || subject)"])
    assert result.varcov.loc["(Intercept)", "condition"] == 0.0
    assert len(result.theta) == 2
    assert result.llf < slope.llf


def test_slopes_and_intercepts_of_different_factors(df):
    result = interlace.fit(
        "rt ~ condition",
        data=df,
        random=[
            "(1 + condition | subject)",  # by-subject slope
            "(1 | item)",  # item intercept only
        ],
    )
    assert result.ngroups == {"subject": 20, "item": 12}
    assert result.random_effects["subject"].shape == (20, 2)
    assert isinstance(result.random_effects["item"], pd.Series)
    variances = result.variance_components
    assert list(variances) == ["subject", "item", "residual"]
    assert isinstance(variances["item"], float)


def test_a_categorical_condition_gets_the_name_of_its_column(df):
    data = df.assign(condition=np.where(df.condition > 1, "new", "old"))
    result = interlace.fit("rt ~ condition", data=data, random=["(1 + condition | subject)"])
    assert result.fe_params.index.tolist() == ["Intercept", "condition[T.old]"]
    assert result.random_effects["subject"].columns.tolist() == ["(Intercept)", "condition[T.old]"]


# Interpreting results


def test_random_effects_are_deviations_of_subjects_by_term(slope, df):
    b = slope.random_effects["subject"]
    assert isinstance(b, pd.DataFrame)
    assert b.columns.tolist() == SLOPE
    assert b.index.tolist() == SUBJECTS
    per_row = b.loc[df.subject].to_numpy()
    deviation = per_row[:, 0] + per_row[:, 1] * df.condition.to_numpy()
    population = slope.fe_params["Intercept"] + slope.fe_params["condition"] * df.condition
    np.testing.assert_allclose(slope.fittedvalues, population + deviation, rtol=1e-12)


def test_a_lone_intercept_gives_series(intercept):
    b = intercept.random_effects["subject"]
    assert isinstance(b, pd.Series)
    assert b.index.tolist() == SUBJECTS


def test_variance_components_and_varcov_agree(slope):
    components = slope.variance_components
    assert list(components) == ["subject", "residual"]
    assert list(components["subject"]) == SLOPE
    assert components["residual"] == slope.scale
    varcov = slope.varcov
    assert varcov.index.tolist() == varcov.columns.tolist() == SLOPE
    np.testing.assert_array_equal(np.diag(varcov), list(components["subject"].values()))
    assert varcov.loc["(Intercept)", "condition"] == varcov.loc["condition", "(Intercept)"]


def test_negative_covariance_means_smaller_slopes_in_slow_subjects(slope):
    b = slope.random_effects["subject"]
    assert slope.varcov.loc["(Intercept)", "condition"] < 0
    assert b.corr().loc["(Intercept)", "condition"] < 0


def test_likelihood_ratio_test_finds_the_slopes(df, mixed_ml):
    m_slopes = mixed_ml
    m_intercept = interlace.fit("rt ~ condition", data=df, groups=["subject", "item"], method="ML")
    lrt = 2 * (m_slopes.llf - m_intercept.llf)
    p = scipy.stats.chi2.sf(lrt, df=2)
    assert m_slopes.nparams - m_intercept.nparams == 2
    assert lrt > 0
    assert p < 0.05
    assert m_slopes.aic < m_intercept.aic


# Common issues


def test_a_singular_fit_warns_and_offers_the_independent_terms(df):
    rng = np.random.default_rng(0)
    data = df.assign(rt=df.rt - df.rt.mean() + rng.normal(0, 1e4, len(df)))
    with pytest.warns(
        interlace.SingularFitWarning, match=r"'subject'.*\(1 \+ condition \|\| subject\)"
    ):
        result = interlace.fit("rt ~ condition", data=data, random=["(1 + condition | subject)"])
    assert result.is_singular and result.converged


def test_groups_and_random_give_the_same_fit(df):
    data = df.rename(columns={"rt": "y", "condition": "x", "subject": "g1", "item": "g2"})
    before = interlace.fit("y ~ x", data=data, groups=["g1", "g2"])
    after = interlace.fit(
        "y ~ x",
        data=data,
        random=["(1 | g1)", "(1 | g2)"],
    )
    assert before.llf == pytest.approx(after.llf, rel=1e-10)
    pd.testing.assert_series_equal(before.fe_params, after.fe_params)
    pd.testing.assert_frame_equal(before.varcorr, after.varcorr)
    for factor in ("g1", "g2"):
        pd.testing.assert_series_equal(before.random_effects[factor], after.random_effects[factor])


# Uncertainty in BLUPs


def test_standard_errors_have_the_form_of_the_random_effects(intercept, slope):
    se = intercept.random_effects_se
    assert se["subject"].index.tolist() == SUBJECTS
    assert (se["subject"] > 0).all()
    se = slope.random_effects_se
    assert se["subject"].columns.tolist() == SLOPE
    # Given the data a random effect varies less than without.
    assert (se["subject"] ** 2 < np.diag(slope.varcov)).to_numpy().all()


def test_intervals_are_centred_on_the_random_effects(intercept):
    ci = intercept.random_effects_ci()
    assert ci["subject"].columns.tolist() == ["lower", "upper"]
    ci_90 = intercept.random_effects_ci(level=0.90)
    for level, interval in ((0.95, ci["subject"]), (0.90, ci_90["subject"])):
        half = scipy.stats.norm.ppf(0.5 + level / 2) * intercept.random_effects_se["subject"]
        np.testing.assert_allclose(interval["upper"] - interval["lower"], 2 * half)
        np.testing.assert_allclose(interval.mean(axis=1), intercept.random_effects["subject"])


def test_intervals_of_slopes_are_labelled_by_term_and_bound(slope):
    ci = slope.random_effects_ci()["subject"]
    assert ci.columns.tolist() == [(term, bound) for term in SLOPE for bound in ("lower", "upper")]
    b, se = slope.random_effects["subject"], slope.random_effects_se["subject"]
    np.testing.assert_allclose(
        ci[("condition", "upper")], b["condition"] + 1.959963985 * se["condition"]
    )


def test_caterpillar_plot_draws_subjects_in_order(intercept, tmp_path):
    from plotnine import aes, coord_flip, geom_errorbar, geom_hline, geom_point, ggplot, theme_bw

    blups = intercept.random_effects["subject"]
    ci = intercept.random_effects_ci()["subject"]

    caterpillar = (
        pd.DataFrame(
            {
                "group": blups.index,
                "blup": blups.values,
                "lower": ci["lower"].values,
                "upper": ci["upper"].values,
            }
        )
        .sort_values("blup")
        .assign(rank=lambda d: range(len(d)))
    )

    plot = (
        ggplot(caterpillar, aes(x="rank", y="blup"))
        + geom_errorbar(aes(ymin="lower", ymax="upper"), width=0.3, alpha=0.5)
        + geom_point(size=2)
        + geom_hline(yintercept=0, linetype="dashed", color="grey")
        + coord_flip()
        + theme_bw()
    )

    assert sorted(caterpillar["group"]) == SUBJECTS
    assert (caterpillar["lower"] < caterpillar["blup"]).all() and (
        caterpillar["blup"] < caterpillar["upper"]
    ).all()
    plot.save(tmp_path / "caterpillar.png", width=5, height=5, dpi=80, verbose=False)
    assert (tmp_path / "caterpillar.png").read_bytes().startswith(b"\x89PNG")
