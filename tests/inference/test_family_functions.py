"""R squared, intraclass correlations and any function of the parameters of generalised models."""

import functools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import special

import interlace_jax as interlace

REFERENCE = Path(__file__).parents[1] / "reference" / "generalized"
ROWS = pd.read_csv(REFERENCE / "rows.csv")
SHARES = json.loads((REFERENCE / "shares.json").read_text())


@functools.cache
def cbpp():
    data = interlace.load_dataset("cbpp")
    return interlace.fit("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


@functools.cache
def fitted(response, family, **arguments):
    return interlace.fit(f"{response} ~ x + (1 | g)", ROWS, family=family, **arguments)


def parts(fit):
    """Variance of the fixed part over the rows, and of a random intercept."""
    return np.var(fit.design.X @ fit.fe_params.to_numpy(), ddof=1), fit.theta[0] ** 2


def test_r_squared_of_a_logit_is_that_of_the_formula_and_of_the_reference():
    fixed, random = parts(cbpp())
    total = fixed + random + np.pi**2 / 3
    assert_allclose(cbpp().r2()["estimate"], [fixed / total, (fixed + random) / total])
    assert_allclose(cbpp().icc()["estimate"], [random / (random + np.pi**2 / 3), random / total])
    # glmer's optimum is not polished
    assert_allclose(cbpp().r2()["estimate"], SHARES["cbpp"], rtol=2e-3)


@pytest.mark.parametrize(
    ("response", "family"),
    [("some", "poisson"), ("count", "nbinom2"), ("count", "nbinom1"), ("positive", "gamma")],
)
def test_r_squared_of_log_links_is_that_of_the_reference(response, family):
    fit = fitted(response, family)
    for method, expected in SHARES[family].items():
        assert_allclose(fit.r2(method=method)["estimate"], expected, rtol=2e-4)
    assert_allclose(fit.r2(), fit.r2(method="lognormal"))


def test_the_delta_way_has_the_mean_of_all_levels():
    """Of a logit 1 / (p (1 - p)), where p is averaged over the groups of the model with an
    intercept alone.
    """
    null = cbpp().update("~ 1 + (1 | herd)")
    p = float(null.predict(null.model.data.head(1), marginal=True).iloc[0])
    fixed, random = parts(cbpp())
    assert cbpp().icc(method="delta")["estimate"].iloc[0] == pytest.approx(
        random / (random + 1 / (p * (1 - p)))
    )
    z = np.linspace(-9, 9, 4001)
    average = np.average(
        special.expit(null.fe_params.iloc[0] + null.theta[0] * z), weights=np.exp(-0.5 * z**2)
    )
    assert p == pytest.approx(average, rel=1e-6)


def test_how_trials_are_put_into_rows_does_not_matter_for_an_observation():
    """Rows of one trial and rows of many have one ICC: an observation is a trial."""
    data = interlace.load_dataset("cbpp")
    single = data.loc[data.index.repeat(data["size"])].reset_index(drop=True)
    order = single.groupby(["herd", "period"], observed=True).cumcount()
    single["ill"] = (order < single["incidence"]) * 1.0
    one = interlace.fit("ill ~ period + (1 | herd)", single, family="bernoulli")
    assert one.icc()["estimate"]["adjusted"] == pytest.approx(
        cbpp().icc()["estimate"]["adjusted"], rel=1e-6
    )


def test_zeros_that_are_mixed_in_count_in_the_variance_of_an_observation():
    fit = fitted("zeros", "poisson", zero_inflation="~ 1")
    null = fit.update("~ 1 + (1 | g)")
    mu = np.exp(null.fe_params.iloc[0] + null.theta[0] ** 2 / 2)
    p0 = fit.family_params.loc["zero_probability", "estimate"]
    variance, mean = (1 - p0) * mu * (1 + p0 * mu), (1 - p0) * mu
    fixed, random = parts(fit)
    expected = fixed / (fixed + random + np.log1p(variance / mean**2))
    assert fit.r2()["estimate"].iloc[0] == pytest.approx(expected)


def test_intervals_are_those_of_the_delta_method_over_all_parameters():
    fit = fitted("count", "nbinom2")
    e, V = fit.estimate, fit.parameter_cov.to_numpy()
    mu = np.exp(fit.update("~ 1 + (1 | g)").predict(type="link", include_re=False).iloc[0])
    mu *= np.exp(fit.update("~ 1 + (1 | g)").theta[0] ** 2 / 2)
    X_var = np.var(fit.design.X[:, 1], ddof=1)

    def icc(v):
        theta, _, slope, log_size = v
        own = np.log1p(1 / mu + np.exp(-log_size))
        return theta**2 / (theta**2 + slope**2 * X_var + own)

    at = np.concatenate([e.theta, e.beta, e.gamma])
    slopes = np.array([(icc(at + h) - icc(at - h)) / 2e-5 for h in 1e-5 * np.eye(4)])
    assert fit.icc()["se"]["unadjusted"] == pytest.approx(np.sqrt(slopes @ V @ slopes), rel=1e-6)


def test_thresholds_and_what_has_no_variance_say_so():
    ratings = ROWS.assign(
        rating=pd.Categorical(
            ROWS["rating"], categories=["never", "rarely", "often", "always"], ordered=True
        )
    )
    fit = interlace.fit("rating ~ x + (1 | g)", ratings, family="ordinal")
    fixed, random = parts(fit)
    assert fit.r2()["estimate"].iloc[0] == pytest.approx(fixed / (fixed + random + np.pi**2 / 3))
    assert_allclose(
        fit.delta(lambda p: p.number("often|always"))["estimate"],
        fit.family_params["estimate"].iloc[2],
    )
    with pytest.raises(
        ValueError,
        match="method='delta' is not for family 'ordinal' with link 'logit': 'theoretical'",
    ):
        fit.icc(method="delta")
    with pytest.raises(ValueError, match="method must be"):
        fit.icc(method="latent")


def test_any_function_of_the_parameters_has_a_standard_error():
    fit = fitted("count", "nbinom2")
    V = fit.parameter_cov
    ratio = fit.delta(lambda p: jnp.exp(p["x"]), scale="log")
    assert ratio["estimate"] == pytest.approx(np.exp(fit.fe_params["x"]))
    assert_allclose(ratio[["lower", "upper"]], np.exp(fit.fe_conf_int.loc["x"]))
    both = fit.delta(lambda p: jnp.stack([p.number("size"), p.covariance("g")[0, 0]]))
    size = fit.family_params.loc["size"]
    assert_allclose(both.loc[0, ["estimate", "se"]], size[["estimate", "se"]])
    assert both.loc[1, "se"] == pytest.approx(
        2 * fit.theta[0] * np.sqrt(V.loc["theta_0", "theta_0"])
    )
    with pytest.raises(ValueError, match="no number of the family 'alpha'; there are 'size'"):
        fit.delta(lambda p: p.number("alpha"))
    with pytest.raises(TypeError, match=r"write it with jax\.numpy"):
        fit.delta(lambda p: np.exp(p["x"]))
