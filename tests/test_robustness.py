"""Units, origins and awkward data: the same inference, a finite result, or one clear error;
never NaN in silence.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace

SLOPE = "Reaction ~ Days + (1 + Days | Subject)"


def sound(fit):
    """Everything that a user would print is finite, and adds up."""
    for name in ("deviance", "sigma", "theta", "fe_params", "fe_bse", "fe_pvalues"):
        assert np.all(np.isfinite(getattr(fit, name))), name
    assert np.all(fit.fe_df > 0)
    for tables in (fit.random_effects, fit.random_effects_se):
        assert all(np.isfinite(table.to_numpy()).all() for table in tables.values())
    assert np.isfinite(fit.varcov.to_numpy()).all()
    y = fit.model.design.y
    assert_allclose(fit.fittedvalues + fit.resid, y, rtol=0, atol=1e-12 * np.abs(y).max())
    assert fit.converged
    return fit


# Units and origins --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e3, 1e-3, 1e6, 1e-6])
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_the_unit_of_a_slope_changes_no_inference(scale, method):
    fit = fitted(f"sleepstudy_slope_{method}")
    data = sleepstudy()
    data["Days"] = data.Days * scale
    other = sound(quiet_fit(SLOPE, data, method=method))
    # log|X'V^-1 X| of the restricted likelihood knows the unit of X: 2 log(scale).
    constant = 2 * np.log(scale) * (method == "REML")
    assert_allclose(other.deviance, fit.deviance + constant, rtol=0, atol=1e-8)
    assert_allclose(other.fe_tvalues, fit.fe_tvalues, rtol=1e-6)
    assert_allclose(other.fe_df, fit.fe_df, rtol=1e-4)
    units = [1, scale]
    assert_allclose(
        other.random_effects["Subject"] * units, fit.random_effects["Subject"], rtol=1e-4, atol=1e-4
    )
    assert_allclose(
        other.random_effects_se["Subject"] * units, fit.random_effects_se["Subject"], rtol=1e-5
    )
    assert_allclose(other.fittedvalues, fit.fittedvalues, rtol=1e-7)
    assert not other.is_singular


def test_the_rescaled_optima_that_others_miss():
    for scale, llf in ((1000, -878.7219), (1 / 1000, -864.9064)):
        fit = quiet_fit(SLOPE, sleepstudy().assign(Days=lambda d, s=scale: d.Days * s))
        assert_allclose(fit.llf, llf, atol=1e-4)
        assert_allclose(fit.variance_components["Subject"]["(Intercept)"], 612.0899, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_the_unit_of_the_response_changes_no_inference(scale):
    fit = fitted("sleepstudy_slope_REML")
    other = sound(fit.refit(fit.model.design.y * scale))
    assert_allclose(other.deviance, fit.deviance + 2 * 178 * np.log(scale), rtol=0, atol=1e-7)
    assert_allclose(other.theta, fit.theta, atol=1e-6)
    assert_allclose(other.fe_tvalues, fit.fe_tvalues, rtol=1e-6)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_the_origin_of_a_slope_does_not_matter_to_an_unstructured_term(method):
    fit = fitted(f"sleepstudy_slope_{method}")
    years = sound(
        quiet_fit(SLOPE, sleepstudy().assign(Days=lambda d: d.Days + 2000), method=method)
    )
    # Intercepts at year 0 correlate with slopes to 1 - 1e-6, which costs digits in what is reported
    # at year 0.
    assert_allclose(years.deviance, fit.deviance, rtol=0, atol=1e-7)
    assert_allclose(years.sigma, fit.sigma, rtol=1e-6)
    assert_allclose(years.fe_tvalues["Days"], fit.fe_tvalues["Days"], rtol=1e-5)
    assert_allclose(years.fe_df["Days"], fit.fe_df["Days"], rtol=1e-4)
    ours, theirs = years.random_effects["Subject"], fit.random_effects["Subject"]
    assert_allclose(ours.Days, theirs.Days, atol=1e-4)
    assert_allclose(ours["(Intercept)"] + 2000 * ours.Days, theirs["(Intercept)"], atol=1e-4)
    assert_allclose(
        years.random_effects_se["Subject"].Days, fit.random_effects_se["Subject"].Days, rtol=1e-4
    )
    assert_allclose(years.fittedvalues, fit.fittedvalues, rtol=1e-7)
    assert not years.is_singular


@pytest.mark.parametrize("size", [1e6, 1e-40])
def test_equal_weights_of_any_size_are_no_weights(size):
    fit = fitted("sleepstudy_slope_REML")
    weighted = sound(quiet_fit(SLOPE, sleepstudy(), weights=np.full(180, size)))
    assert_allclose(weighted.deviance, fit.deviance, rtol=0, atol=1e-7)
    assert_allclose(weighted.scale, fit.scale * size, rtol=1e-6)
    assert_allclose(weighted.varcov, fit.varcov, rtol=1e-5)
    assert_allclose(weighted.fe_bse, fit.fe_bse, rtol=1e-6)


def test_the_order_of_rows_does_not_matter():
    shuffled = sleepstudy().sample(frac=1, random_state=0)
    fit = quiet_fit(SLOPE, shuffled)
    assert_allclose(fit.deviance, fitted("sleepstudy_slope_REML").deviance, rtol=0, atol=1e-9)
    assert fit.fittedvalues.index.tolist() == shuffled.index.tolist()


# Missing values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column, value", [("Reaction", np.nan), ("Days", np.nan), ("Subject", None)]
)
def test_a_missing_value_anywhere_drops_the_row(column, value):
    data = sleepstudy().astype({"Days": float})
    complete = quiet_fit("Reaction ~ 1 + (1 + Days | Subject)", data.drop(index=[3, 50]))
    data.loc[[3, 50], column] = value
    fit = quiet_fit("Reaction ~ 1 + (1 + Days | Subject)", data)
    assert (fit.nobs, fit.n_dropped) == (178, 2)
    assert_allclose(fit.deviance, complete.deviance, rtol=1e-12)
    with pytest.raises(ValueError, match=f"{column}.*2"):
        interlace.fit("Reaction ~ 1 + (1 + Days | Subject)", data, na_action="raise")


# The boundary -------------------------------------------------------------------------------------


def test_a_singular_fit_warns_once_naming_factor_and_term():
    with pytest.warns(interlace.SingularFitWarning, match="Batch") as caught:
        fit = interlace.fit("Yield ~ 1 + (1 | Batch)", interlace.load_dataset("dyestuff2"))
    assert len(caught) == 1
    sound(fit)
    assert_array_equal(fit.theta, 0)
    assert_array_equal(fit.random_effects["Batch"], 0)
    assert_allclose(fit.fe_df, 29, rtol=1e-6)  # nothing but the residual is left
    assert fit.is_singular


@pytest.fixture(scope="module")
def perfect():
    """Slopes that are twice the intercepts, with noise: the correlation is estimated at 1."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(20), 6), np.tile(np.arange(6.0), 20)
    b = rng.normal(size=20)
    y = b[g] * (1 + 2 * x) + rng.normal(size=120)
    return pd.DataFrame(dict(y=y, x=x, g=[f"g{i}" for i in g]))


def test_a_perfect_correlation_is_reported_as_one(perfect):
    with pytest.warns(interlace.SingularFitWarning, match=r"\|\|"):
        fit = interlace.fit("y ~ x + (1 + x | g)", perfect)
    sound(fit)
    assert fit.theta[2] == 0
    assert_allclose(fit.varcorr.sdcor[2], 1, rtol=1e-12)
    _, vectors = np.linalg.eigh(fit.varcov)
    assert np.all(np.isfinite(vectors))


def test_varcorr_of_a_zero_variance_has_no_correlation_and_no_warning(perfect):
    data = perfect.assign(y=np.random.default_rng(3).normal(size=120))
    data["y"] -= data.groupby("g").y.transform("mean")  # less than no variance between groups
    fit = sound(quiet_fit("y ~ x + (1 + x | g)", data))
    assert fit.is_singular
    assert fit.varcorr.vcov.notna().all()


# Awkward data -------------------------------------------------------------------------------------


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(12), 5)
    x = rng.normal(size=60)
    y = 1 + x + rng.normal(size=12)[g] + rng.normal(size=12)[g] * x / 2 + rng.normal(size=60)
    return pd.DataFrame(dict(y=y, x=x, g=[f"g{i:02d}" for i in g], i=np.arange(60), z=3.0, u=2 * x))


def fit_or_error(*arguments, **options):
    """A sound fit, or None after a ValueError of ours."""
    try:
        fit = quiet_fit(*arguments, **options)
    except ValueError as err:
        assert len(str(err)) > 20 and "\n" not in str(err)
        return None
    return sound(fit)


def test_a_constant_response_is_an_error(data):
    with pytest.raises(ValueError, match="'y' is 7 in all 60 rows"):
        interlace.fit("y ~ x + (1 | g)", data.assign(y=7.0))


def test_a_response_exactly_linear_in_x_is_an_error_or_finite(data):
    fit = fit_or_error("y ~ x + (1 | g)", data.assign(y=2 + 3 * data.x))
    if fit is not None:
        assert_allclose(fit.fe_params, [2, 3], rtol=1e-6)


def test_a_response_of_group_values_only_is_an_error_or_finite(data):
    fit = fit_or_error("y ~ 1 + (1 | g)", data.assign(y=data.groupby("g").y.transform("mean")))
    if fit is not None:
        assert_allclose(fit.fe_params, data.y.mean(), rtol=1e-6)


def test_two_rows_are_too_few():
    with pytest.raises(ValueError, match="2"):
        interlace.fit("y ~ 1 + (1 | g)", pd.DataFrame(dict(y=[1.0, 2.0], g=["a", "b"])))


def test_one_level_is_an_error_that_names_the_factor(data):
    with pytest.raises(ValueError, match="'g'.*one level"):
        interlace.fit("y ~ x + (1 | g)", data.assign(g="only"))


def test_a_level_per_row_is_an_error_that_says_why(data):
    with pytest.raises(ValueError, match="60 levels.*'i'.*60 rows"):
        interlace.fit("y ~ x + (1 | i)", data)


def test_a_slope_without_variance_is_an_intercept(data):
    fit = fit_or_error("y ~ x + (1 + z | g)", data)
    if fit is not None:
        assert_allclose(
            fit.deviance, quiet_fit("y ~ x + (1 | g)", data).deviance, rtol=0, atol=1e-5
        )


def test_a_slope_given_twice_in_two_units_is_one_slope(data):
    fit = fit_or_error("y ~ x + (1 + x + u | g)", data)
    if fit is not None:
        assert_allclose(
            fit.deviance, quiet_fit("y ~ x + (1 + x | g)", data).deviance, rtol=0, atol=1e-5
        )


def test_a_slope_of_zeros_is_an_error_or_finite(data):
    fit = fit_or_error("y ~ x + (1 + z | g)", data.assign(z=0.0))
    if fit is not None:
        assert_allclose(
            fit.deviance, quiet_fit("y ~ x + (1 | g)", data).deviance, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("scale", [1e-200, 1e200, 1e-100, 1e100])
def test_responses_of_any_size_give_the_same_fit_or_an_error(data, scale):
    expected = quiet_fit("y ~ x + (1 + x | g)", data)
    fit = fit_or_error("y ~ x + (1 + x | g)", data.assign(y=data.y * scale))
    if fit is not None:
        assert_allclose(fit.theta, expected.theta, atol=1e-5)
        assert_allclose(fit.fe_tvalues, expected.fe_tvalues, rtol=1e-5)


def test_a_large_mean_costs_digits_only(data):
    expected = quiet_fit("y ~ x + (1 | g)", data)
    fit = sound(quiet_fit("y ~ x + (1 | g)", data.assign(y=data.y + 1e6)))
    assert_allclose(fit.theta, expected.theta, atol=1e-5)


def test_most_groups_may_have_one_row(data):
    sound(
        quiet_fit("y ~ x + (1 | g)", data.assign(g=np.where(np.arange(60) < 50, np.arange(60), 55)))
    )


def test_two_levels_are_enough(data):
    sound(quiet_fit("y ~ x + (1 | g)", data.assign(g=np.where(data.i % 2, "a", "b"))))


def test_an_extreme_outlier_is_fitted(data):
    data.loc[7, "y"] = 1e8
    fit = sound(quiet_fit("y ~ x + (1 + x | g)", data))
    assert fit.sigma > 1e6


def test_integers_are_numbers_and_booleans_are_not(data):
    fit = sound(quiet_fit("y ~ x + (1 | g)", data.assign(y=data.i)))
    assert fit.fittedvalues.dtype == float
    with pytest.raises(ValueError, match="'y' is not numeric but bool"):
        interlace.fit("y ~ x + (1 | g)", data.assign(y=data.y > 0))


def test_weights_of_very_different_size_are_sound(data):
    sound(quiet_fit("y ~ x + (1 + x | g)", data, weights=10.0 ** (data.i.to_numpy() % 9 - 4)))


def test_rank_deficiency_warns_once_and_names_the_columns(data):
    with pytest.warns(UserWarning, match="'u'") as caught:
        fit = interlace.fit("y ~ x + u + (1 | g)", data)
    assert len(caught) == 1
    assert_allclose(fit.deviance, quiet_fit("y ~ x + (1 | g)", data).deviance, rtol=1e-12)


def test_spellings_without_intercept_are_one_model(data):
    fits = [
        quiet_fit("y ~ x + " + term, data)
        for term in ("(0 + x | g)", "(x - 1 | g)", "(-1 + x | g)")
    ]
    assert_allclose([fit.deviance for fit in fits], fits[0].deviance, rtol=1e-12)
    assert fits[0].theta.shape == (1,)


def test_categorical_slopes_have_a_variance_for_each_level():
    fit = fitted("machines_slope_REML")
    assert list(fit.variance_components["Worker"]) == ["Machine[A]", "Machine[B]", "Machine[C]"]


@pytest.mark.slow
def test_a_thousand_fixed_effects_are_fitted():
    rng = np.random.default_rng(0)
    f, g = rng.permutation(np.arange(1500) % 1000), rng.permutation(np.arange(1500) % 30)
    y = rng.normal(size=1000)[f] + rng.normal(size=30)[g] + rng.normal(size=1500)
    data = pd.DataFrame(dict(y=y, f=[f"f{i}" for i in f], g=[f"g{i}" for i in g]))
    fit = quiet_fit("y ~ f + (1 | g)", data)
    assert fit.converged and len(fit.fe_params) == 1000
    assert np.isfinite(fit.fe_bse).all()
    assert 0.5 < fit.theta[0] < 2


def test_no_sound_fit_warns(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sound(interlace.fit("y ~ x + (1 | g)", data))


# Mistakes of a first day --------------------------------------------------------------------------


def test_a_fixed_factor_of_one_level_is_not_left_out_in_silence():
    with pytest.warns(interlace.RankWarning, match="'site' has one level only"):
        fit = interlace.fit("Reaction ~ Days + site + (1 | Subject)", sleepstudy().assign(site="a"))
    assert list(fit.fe_params.index) == ["Intercept", "Days"]


def test_nor_are_slopes_of_a_factor_of_one_level():
    with pytest.warns(interlace.RankWarning, match="'site' has one level only"):
        fit = interlace.fit("Reaction ~ Days + (site | Subject)", sleepstudy().assign(site="a"))
    assert fit.model.design.factors[0].columns == ("(Intercept)",)


@pytest.mark.parametrize(
    "mistake, message",
    [
        (lambda fit: fit.simulate(-1), "nsim must be a whole number, 0 or more, not -1"),
        (lambda fit: fit.simulate(2.5), "nsim must be a whole number, 0 or more, not 2.5"),
        (lambda fit: fit.bootstrap(0), "n must be a whole number, 1 or more, not 0"),
        (lambda fit: fit.bootstrap("many"), "n must be a whole number, 1 or more, not 'many'"),
        (lambda fit: fit.test(""), "the hypothesis is empty"),
        (lambda fit: fit.test(3), "one finite weight for each of the 2 coefficients"),
        (lambda fit: fit.profile(points=0), "points must be a whole number, 1 or more, not 0"),
        (lambda fit: fit.profile(zmax=-1), "zmax must be positive, not -1"),
        (lambda fit: interlace.emmeans(fit, "Days", by="Days"), "specs and by have 'Days' twice"),
        (lambda fit: interlace.power(fit, "Days", effect="a"), "effect must be numbers"),
        (
            lambda fit: interlace.power(fit, "Days", alpha=5),
            "alpha must lie between 0 and 1, as in 0.05, not 5",
        ),
        (
            lambda fit: interlace.power(fit, "Days", nsim=0),
            "nsim must be a whole number, 1 or more, not 0",
        ),
        (
            lambda fit: interlace.fit_many(SLOPE, sleepstudy(), by=["Subject"]),
            r"by takes one column, not \['Subject'\]",
        ),
        (lambda fit: fit.refit(["a"] * 180), "y must be numbers: could not convert"),
        (lambda fit: fit.model.fit(theta0="a"), "theta must be numbers: could not convert"),
        (
            lambda fit: interlace.fit(
                SLOPE, pd.concat([sleepstudy(), sleepstudy()[["Days"]]], axis=1)
            ),
            "2 columns named",
        ),
        (
            lambda fit: interlace.fit(SLOPE, sleepstudy(), weights="w"),
            r"is not in the data\. The columns are",
        ),
    ],
)
def test_mistakes_are_answered_in_words(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake(fitted("sleepstudy_slope_REML"))


@pytest.mark.parametrize(
    "mistake, message",
    [
        (
            lambda fit: fit.predict(include_re=3),
            'include_re must be text such as "Subject" or a list of such texts',
        ),
        (lambda fit: fit.confint(parm=1), 'parm must be text such as "sigma"'),
        (
            lambda fit: fit.delta(lambda p: np.log(p.sigma)),
            "write it with jax.numpy in place of numpy",
        ),
        (
            lambda fit: fit.delta(lambda p: float(p.sigma)),
            "write it with jax.numpy in place of numpy",
        ),
        (lambda fit: interlace.emmeans(fit, 3), 'specs must be text such as "x"'),
        (lambda fit: interlace.emmeans(fit, "Days", at=3), 'at must be a mapping such as {"x": '),
        (
            lambda fit: interlace.emmeans("fit", "Days"),
            "emmeans takes a fit of this package, .*, not str",
        ),
        (lambda fit: interlace.check(None), "check takes a fit of this package, .*, not NoneType"),
        (
            lambda fit: interlace.power(fit, "Days", n_levels=20),
            'n_levels must be a mapping such as {"subject": ',
        ),
    ],
)
def test_mistakes_of_type_are_answered_in_words(mistake, message):
    with pytest.raises(TypeError, match=message):
        mistake(fitted("sleepstudy_slope_REML"))


@pytest.mark.parametrize(
    "responses, message",
    [
        (["Reaction", "Subject"], "responses has columns that are not numeric: 'Subject'"),
        (np.full((180, 2), "a", dtype=object), "responses must be numbers"),
        (np.ones((180, 0)), "responses has no columns"),
        (["Reaction", "Reaction"], "responses has 'Reaction' more than once"),
    ],
)
def test_responses_that_are_no_numbers_are_refused_in_words(responses, message):
    with pytest.raises(ValueError, match=message):
        interlace.fit_many("~ Days + (1 | Subject)", sleepstudy(), responses=responses)


@pytest.mark.parametrize("arguments", [dict(responses=["y"]), dict(by="g")])
def test_what_is_no_frame_is_refused_in_words(arguments):
    formula = "y ~ x + (1 | g)" if "by" in arguments else "~ x + (1 | g)"
    with pytest.raises(TypeError, match="data must be a pandas or polars data frame, not list"):
        interlace.fit_many(formula, [1, 2], **arguments)


def test_anova_takes_fits():
    with pytest.raises(TypeError, match="anova compares fits of this package, not int"):
        interlace.anova(fitted("sleepstudy_slope_REML"), 3)


# Names that tables and functions use themselves ---------------------------------------------------

TAKEN = ["contrast", "t", "p", "se", "df", "lower", "estimate", "term", "level"]
TAKEN += ["I", "exp", "C", "T", "index", "lambda", "a b", "µ"]


def numbers(found):
    """All numbers of a table or a mapping of tables, in their order."""
    if isinstance(found, dict):
        return np.concatenate([numbers(table) for table in found.values()])
    frame = getattr(found, "frame", found)
    if isinstance(frame, pd.Series):
        frame = frame.to_frame()
    return frame.select_dtypes("number").to_numpy(float).ravel()


VERBS = {
    "coefficients": lambda fit, x, f, g: fit.fe_conf_int,
    "anova": lambda fit, x, f, g: fit.anova(),
    "test": lambda fit, x, f, g: fit.test({x: 1.0}),
    "emmeans": lambda fit, x, f, g: interlace.emmeans(fit, f),
    "pairs": lambda fit, x, f, g: interlace.emmeans(fit, f).pairs(),
    "trend": lambda fit, x, f, g: interlace.emmeans(fit, f, trend=x),
    "predict": lambda fit, x, f, g: fit.predict(
        pd.DataFrame({x: [0.3], f: ["b"], g: ["g1"]}), interval="prediction"
    ),
    "unseen": lambda fit, x, f, g: fit.predict(
        pd.DataFrame({x: [0.3], f: ["b"], g: ["new"]}), interval="confidence"
    ),
    "augment": lambda fit, x, f, g: fit.augment().filter(regex=r"^\."),
    "random effects": lambda fit, x, f, g: fit.random_effects,
    "confint": lambda fit, x, f, g: fit.confint("wald"),
    "tidy": lambda fit, x, f, g: fit.tidy(),
    "glance": lambda fit, x, f, g: fit.glance(),
    "drop1": lambda fit, x, f, g: fit.drop1(),
    "varcorr": lambda fit, x, f, g: fit.varcorr,
}


@pytest.fixture(scope="module")
def plain():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=60), "f": np.tile(["a", "b", "c"], 20)})
    frame["g"] = np.repeat([f"g{i}" for i in range(6)], 10)
    frame["y"] = frame.x + np.repeat(rng.normal(size=6), 10) + rng.normal(size=60)
    return frame, quiet_fit("y ~ x + f + (1 | g)", frame)


@pytest.mark.parametrize("first", range(len(TAKEN)))
def test_columns_may_have_any_name(plain, first):
    frame, expected = plain
    names = [TAKEN[(first + i) % len(TAKEN)] for i in range(4)]
    renamed = frame.rename(columns=dict(zip("xfgy", names, strict=True)))
    x, f, g, y = (f"`{n}`" if " " in n or n == "lambda" else n for n in names)
    fit = quiet_fit(f"{y} ~ {x} + {f} + (1 | {g})", renamed)
    for verb, ask in VERBS.items():
        found, known = ask(fit, *names[:3]), ask(expected, "x", "f", "g")
        assert_allclose(numbers(found), numbers(known), rtol=1e-8, err_msg=verb)
    assert all(name in str(fit.summary()) for name in names)


def test_no_factor_has_the_name_of_the_residual(plain):
    with pytest.raises(ValueError, match="has the name of the residual in all tables; rename it"):
        interlace.fit("y ~ x + (1 | residual)", plain[0].rename(columns={"g": "residual"}))
