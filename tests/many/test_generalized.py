"""fit_many with a family: every model of a batch is the one that `fit` makes of its data."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace

FORMULA = "~ x + (1 | g) + offset(log(time))"


@cache
def frame() -> pd.DataFrame:
    """Sixty rows of twelve groups."""
    rng = np.random.default_rng(4)
    columns = dict(g=np.repeat(np.arange(12), 5).astype(str), x=rng.normal(size=60))
    return pd.DataFrame(columns).assign(time=rng.uniform(0.5, 2, 60), m=rng.integers(1, 9, 60))


@cache
def counts() -> pd.DataFrame:
    """Good responses, one that knows no groups, and others that are no good."""
    rng, data = np.random.default_rng(5), frame()
    found = {}
    for name, sd in dict(a=0.4, b=1.0, c=0.7, none=0.0, gaps=0.6).items():
        effects = sd * np.repeat(rng.normal(size=12), 5)
        found[name] = rng.poisson(data["time"] * np.exp(1 + 0.4 * data["x"] + effects)) * 1.0
    found["gaps"][[3, 17, 40]] = np.nan
    found["zero"] = np.zeros(60)
    found["minus"] = found["a"] - 5.0
    found["infinite"] = np.where(np.arange(60) == 7, np.inf, found["a"])
    found["half"] = found["b"] + 0.5 * (np.arange(60) == 2)
    return pd.DataFrame(found)


@cache
def poisson() -> interlace.GeneralizedMany:
    """The models of all of these."""
    return interlace.fit_many(FORMULA, frame(), responses=counts(), family="poisson")


def quiet(*args, **arguments):
    """A single fit without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return interlace.fit(*args, **arguments)


def assert_same(many, label, fit):
    """Whether a row of the tables has the numbers of a single fit."""
    assert many.llf[label] == pytest.approx(fit.llf, abs=1e-7)
    assert many.converged[label] and many.nobs[label] == fit.nobs
    assert many.is_singular[label] == fit.is_singular
    assert_allclose(many.fe_params.loc[label], fit.fe_params, atol=1e-5 * fit.fe_bse.min())
    assert_allclose(many.fe_bse.loc[label], fit.fe_bse, rtol=2e-5)
    assert_allclose(many.theta.loc[label], fit.theta, atol=2e-5)
    d = len(fit.theta)
    assert_allclose(many.theta_bse.loc[label] ** 2, np.diag(fit.parameter_cov)[:d], rtol=1e-4)


def test_kenward_roger_is_refused():
    with pytest.raises(ValueError, match="Kenward-Roger is defined for linear models"):
        poisson().test("x", ddf="kenward-roger")


@pytest.mark.parametrize("label", ["a", "b", "c", "none", "gaps", "half"])
def test_every_response_has_the_fit_that_it_has_alone(label):
    data = frame().assign(y=counts()[label])
    assert_same(poisson(), label, quiet("y" + FORMULA, data, family="poisson"))


def test_what_cannot_be_fitted_says_why():
    status = poisson().status
    assert "the response 'response' is 0 in all 60 rows" in status["zero"]
    assert "row " in status["minus"] and "counts 0, 1, 2" in status["minus"]
    assert status["infinite"] == "infinite values"
    assert poisson().fe_params.loc[["zero", "minus", "infinite"]].isna().all(axis=None)
    assert (poisson().nobs[["zero", "minus", "infinite"]] == 0).all()


def test_tests_are_those_of_single_fits_and_adjusted_over_the_models():
    many, fit = poisson(), quiet("y" + FORMULA, frame().assign(y=counts()["b"]), family="poisson")
    assert_allclose(many.fe_pvalues.loc["b"], fit.fe_pvalues, rtol=1e-4)
    tests = many.test("x = 0", adjust="bh").set_index("model")
    assert_allclose(tests.loc["b", "p"], fit.fe_pvalues["x"], rtol=1e-4)
    assert np.isinf(tests.loc["b", "df"]) and np.isnan(tests.loc["zero", "p"])
    assert_allclose(tests["p_adjusted"], many.adjusted_pvalues()["x"])
    assert many.top("x", 2)["p"].is_monotonic_increasing
    anova = many.anova().query("model == 'b'")
    assert_allclose(anova["Chisq"], fit.anova()["Chisq"], rtol=1e-4)
    tidy = many.to_frame()
    assert list(tidy.columns) == ["model", "coefficient", "estimate", "se", "df", "t", "p"]
    assert set(many.variance_components.columns) == {("g", "(Intercept)")}


def test_a_model_of_many_is_the_full_fit():
    fit = poisson()["c"]
    assert isinstance(fit, interlace.GeneralizedFit) and fit.family.name == "poisson"
    assert_same(poisson(), "c", fit)


def test_groups_of_rows_have_the_fits_and_numbers_of_the_family_that_they_have_alone():
    rng, data = np.random.default_rng(6), frame()
    mean = np.exp(2 + 0.5 * data["x"] + np.repeat(rng.normal(size=12), 5))
    data = data.assign(
        y=rng.negative_binomial(2, 2 / (2 + mean)) * 1.0, part=np.repeat(["p", "q"], 30)
    )
    many = interlace.fit_many("y ~ x + (1 | g)", data, by="part", family="nbinom2")
    for label in ("p", "q"):
        fit = quiet("y ~ x + (1 | g)", data[data["part"] == label], family="nbinom2")
        assert_same(many, label, fit)
        own = fit.family_params.loc["size"]
        assert many.family_params.loc[label, "size"] == pytest.approx(own["estimate"], rel=1e-4)
        assert many.family_params_bse.loc[label, "size"] == pytest.approx(own["se"], rel=1e-4)
        assert many[label].nobs == 30


def test_separated_responses_are_not_converged_and_say_what_separates_them():
    data = frame()
    rng = np.random.default_rng(8)
    y = dict(good=rng.integers(0, 2, 60) * 1.0, whole=(data["x"] > 0.1) * 1.0, three=counts()["a"])
    many = interlace.fit_many("~ x + (1 | g)", data, responses=pd.DataFrame(y), family="binomial")
    assert many.converged.tolist() == [True, False, False]
    assert "separated: 'x' separates the outcomes" in many.status["whole"]
    assert "0 or 1" in many.status["three"]


def test_arguments_of_linear_models_are_refused():
    with pytest.raises(ValueError, match="method='REML' belongs to linear mixed models"):
        interlace.fit_many(FORMULA, frame(), responses=counts(), family="poisson", method="REML")
    with pytest.raises(ValueError, match="trials= belongs to binomial families"):
        interlace.fit_many("~ x + (1 | g)", frame(), responses=counts()[["a"]], trials="m")


def test_the_parametric_bootstrap_refits_what_it_simulates():
    data = frame().assign(y=counts()["b"])
    fit = interlace.fit("y" + FORMULA, data, family="poisson")
    made = fit.bootstrap(24, seed=3)
    drawn = fit.simulate(24, seed=3)
    again = quiet("y" + FORMULA, data.assign(y=drawn[5]), family="poisson")
    assert_allclose(made.estimates.loc[5, ["Intercept", "x"]], again.fe_params, atol=1e-5)
    assert made.outcomes["converged"] == 24
    assert_allclose(made.bse["x"], fit.fe_bse["x"], rtol=0.5)
    limits = made.confint(kind="basic")
    assert list(limits.index) == list(fit.confint().index)
    assert (limits["lower"] < limits["upper"]).all()
    with pytest.raises(ValueError, match="kind='cases' is for linear mixed models so far"):
        fit.bootstrap(24, kind="cases")


def test_replicates_that_cannot_be_fitted_are_counted():
    data = frame().assign(y=counts()["b"] * 0.0)
    data.loc[[3, 30], "y"] = 1.0
    fit = quiet("y ~ 1 + (1 | g) + offset(log(time))", data, family="poisson")
    with pytest.warns(UserWarning, match="of 24 replicates could not be fitted"):
        made = fit.bootstrap(24, seed=2)
    assert made.many.status.str.contains("is 0 in all 60 rows").sum() > 0
