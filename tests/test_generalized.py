"""Generalised models from the front door: references of lme4, glmmTMB and ordinal, and what a
fit can be asked.
"""

import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import special

import interlace_jax as interlace
from interlace_jax import plot
from interlace_jax.fitting import GeneralizedModel

REFERENCE = Path(__file__).parent / "reference"
ROWS = pd.read_csv(REFERENCE / "generalized" / "rows.csv").assign(
    thinned=lambda frame: frame["count"] * frame["binary"]
)
FITS = json.loads((REFERENCE / "generalized" / "fits.json").read_text())
CBPP = interlace.load_dataset("cbpp")
RATINGS = ["never", "rarely", "often", "always"]
FORMULA = "incidence ~ period + (1 | herd)"

CASES = {
    "bernoulli_probit_slope": (
        "binary ~ x + (1 + x | g)",
        dict(family=interlace.Binomial("probit")),
    ),
    "binomial_logit": (
        "cbind(successes, m - successes) ~ x + z + (1 | g)",
        dict(family="binomial"),
    ),
    "betabinomial": ("successes ~ x + z + (1 | g)", dict(family="betabinomial", trials="m")),
    "poisson_offset": ("count ~ x + offset(log(exposure)) + (1 | g)", dict(family="poisson")),
    "nbinom2_dispersion": (
        "count ~ x + offset(log(exposure)) + (1 | g)",
        dict(family="nbinom2", dispersion="~ x"),
    ),
    "zero_inflated_poisson": ("zeros ~ x + (1 | g)", dict(family="poisson", zero_inflation="~ x")),
    "zero_inflated_nbinom2": (
        "thinned ~ x + offset(log(exposure)) + (1 | g)",
        dict(family="nbinom2", zero_inflation="~ z"),
    ),
    "hurdle_poisson": (
        "zeros ~ x + (1 | g)",
        dict(family="truncated_poisson", zero_inflation="~ x"),
    ),
    "gamma_log": ("positive ~ x + (1 | g)", dict(family="gamma")),
    "ordinal_logit": ("rating ~ x + z + (1 | g)", dict(family="ordinal")),
}
SLOW = {
    "bernoulli_cloglog": ("binary ~ x + (1 | g)", dict(family=interlace.Binomial("cloglog"))),
    "nbinom2": ("count ~ x + offset(log(exposure)) + (1 | g)", dict(family="nbinom2")),
    "nbinom1": ("count ~ x + offset(log(exposure)) + (1 | g)", dict(family="nbinom1")),
    "truncated_poisson": ("some ~ x + (1 | g)", dict(family="truncated_poisson")),
    "beta_logit": ("share ~ x + (1 | g)", dict(family="beta")),
    "beta_dispersion": ("share ~ x + (1 | g)", dict(family="beta", dispersion="~ x")),
    "gaussian_log": ("positive ~ x + (1 | g)", dict(family=interlace.Gaussian("log"))),
    "ordinal_probit": ("rating ~ x + z + (1 | g)", dict(family=interlace.Ordinal("probit"))),
    # What clmm calls cloglog is exp(-exp(-x)), MASS::polr's loglog.
    "ordinal_cloglog": ("rating ~ x + z + (1 | g)", dict(family=interlace.Ordinal("loglog"))),
}
EVERY = [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def ratings(frame):
    """The rows with the ratings as an ordered category."""
    return frame.assign(rating=pd.Categorical(frame["rating"], categories=RATINGS, ordered=True))


@pytest.fixture(scope="module")
def cbpp():
    return interlace.fit(FORMULA, CBPP, family="binomial", trials="size")


@pytest.fixture(scope="module", params=EVERY)
def case(request):
    """A fit and its reference."""
    formula, arguments = (CASES | SLOW)[request.param]
    return interlace.fit(formula, ratings(ROWS), **arguments), FITS[request.param]


def test_fits_reach_the_optimum_of_the_reference(case):
    fit, want = case
    assert fit.converged
    # glmmTMB's optima are polished; those of clmm lie up to 1e-7 above theirs.
    assert fit.deviance < want["deviance"] + 1e-6
    assert fit.deviance > want["deviance"] - 1e-5
    places = [i for i, name in enumerate(want["names"]) if name in ("beta", "x", "z")]
    beta, se = (np.array([float(want[key][i]) for i in places]) for key in ("par", "se"))
    assert (abs(fit.fe_params - beta) < 1e-4 * se).all()
    # clmm has its standard errors from differences of the gradient.
    assert_allclose(fit.fe_bse, se, rtol=2e-4 if "sd" in want else 1e-5)


def test_numbers_of_the_family_are_those_of_the_reference(case):
    fit, want = case
    by_name = {
        name: [i for i, n in enumerate(want["names"]) if n == name] for name in ("betad", "betazi")
    }
    dispersion = [want["par"][i] for i in by_name["betad"]]
    if fit.family.name in ("gamma", "gaussian") and dispersion:
        # glmmTMB's numbers are the log of the shape of a gamma and of the variance of a Gaussian.
        dispersion = [-dispersion[0] if fit.family.name == "gamma" else 0.5 * dispersion[0]]
    expected = [*dispersion, *(want["par"][i] for i in by_name["betazi"])]
    if fit.family.name == "ordinal":
        assert_allclose(fit.family_params["estimate"], want["par"][:3], atol=2e-5)
        assert_allclose(fit.family_params["se"], want["se"][:3], rtol=1e-3)
    else:
        assert_allclose(fit.estimate.gamma, expected, atol=2e-5)


def test_lme4s_fit_of_cbpp_is_met(cbpp):
    want = json.loads((REFERENCE / "cases_glmm" / "cbpp_laplace.json").read_text())
    assert cbpp.llf == pytest.approx(want["logLik"], abs=1e-8)
    assert_allclose(cbpp.fe_params, list(want["fixef"].values()), atol=1e-6)
    assert_allclose(cbpp.fe_bse, list(want["se"].values()), rtol=1e-6)
    assert_allclose(cbpp.theta, want["theta"], atol=1e-6)
    assert cbpp.nparams == 5 and cbpp.aic == pytest.approx(cbpp.deviance + 10)


SPELLINGS = {
    "cbind": ("cbind(incidence, size - incidence) ~ period + (1 | herd)", {}),
    "proportion_weights": ("share ~ period + (1 | herd)", dict(weights="size")),
    "quotient_weights": ("incidence / size ~ period + (1 | herd)", dict(weights="size")),
    "proportion_trials": ("share ~ period + (1 | herd)", dict(trials="size")),
    "quotient_trials": ("incidence / size ~ period + (1 | herd)", dict(trials="size")),
    "array_trials": (FORMULA, dict(trials=CBPP["size"].to_numpy())),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_counts_is_the_same_model(spelling, cbpp):
    formula, arguments = SPELLINGS[spelling]
    frame = CBPP.assign(share=CBPP["incidence"] / CBPP["size"])
    fit = interlace.fit(formula, frame, family="binomial", **arguments)
    assert fit.deviance == pytest.approx(cbpp.deviance, abs=1e-9)
    assert_allclose(fit.fe_params, cbpp.fe_params, atol=1e-8)
    assert_allclose(fit.resid, cbpp.resid, atol=1e-8)
    assert_allclose(fit.predict(frame.head(3)), cbpp.predict(CBPP.head(3)), atol=1e-8)
    drawn, counts = fit.simulate(2, seed=1), cbpp.simulate(2, seed=1)
    is_share = "share" in formula or "/" in formula
    assert_allclose(drawn * (CBPP[["size"]].to_numpy() if is_share else 1.0), counts, atol=1e-9)
    again = fit.model.with_response(drawn[0])
    assert_allclose(again.design.y, counts[0], atol=1e-9)


def test_binary_responses_are_read_in_every_form():
    base = interlace.compile("binary ~ x + (1 | g)", ROWS, family="binomial").design
    yes = ROWS["binary"] == 1
    forms = {
        "bool": yes,
        "text": np.where(yes, "yes", "no"),
        "category": pd.Categorical(np.where(yes, "alive", "dead"), categories=["dead", "alive"]),
        "float": ROWS["binary"] * 1.0,
    }
    outcomes = {
        "bool": "binary = True",
        "text": 'binary = "yes"',
        "category": 'binary = "alive"',
        "float": None,
    }
    for name, values in forms.items():
        design = interlace.compile(
            "binary ~ x + (1 | g)", ROWS.assign(binary=values), family="binomial"
        ).design
        assert_allclose(design.y, base.y)
        assert design.observed.outcome == outcomes[name]
    computed = interlace.compile("I(binary == 1) ~ x + (1 | g)", ROWS, family="bernoulli").design
    assert_allclose(computed.y, base.y)


BAD = {
    "unknown family": (FORMULA, dict(family="poison"), "family must be one of"),
    "quotient without trials": (
        "incidence / size ~ period + (1 | herd)",
        dict(family="binomial"),
        r"write cbind\(incidence, size - incidence\), or incidence with trials='size'",
    ),
    "share without trials": (
        "share ~ period + (1 | herd)",
        dict(family="binomial"),
        "nothing says out of how many trials",
    ),
    "counts without trials": (FORMULA, dict(family="binomial"), "row 0: .* is 2 there"),
    "more successes than trials": (
        FORMULA,
        dict(family="binomial", trials=1),
        "more successes than trials",
    ),
    "trials of counts": (
        FORMULA,
        dict(family="poisson", trials="size"),
        "trials= belongs to binomial families",
    ),
    "trials without family": (FORMULA, dict(trials="size"), "say family='binomial'"),
    "REML": (
        FORMULA,
        dict(family="poisson", method="REML"),
        "REML integrates the fixed effects out",
    ),
    "df": (FORMULA, dict(family="poisson", df_method="kenward-roger"), "Gaussian quadratic forms"),
    "no dispersion": (FORMULA, dict(family="poisson", dispersion="~ period"), "has no dispersion"),
    "continuous zeros": (
        "share ~ 1 + (1 | herd)",
        dict(family="gamma", zero_inflation="~ 1"),
        "adds zeros to counts",
    ),
    "zeros of a gamma": (
        FORMULA,
        dict(family="gamma"),
        "the response 'incidence' is 0 there .* numbers above 0",
    ),
    "all zero": ("none ~ period + (1 | herd)", dict(family="poisson"), "is 0 in all 56 rows"),
    "no success": ("none ~ period + (1 | herd)", dict(family="binomial"), "is 0 in all 56 rows"),
    "negative": ("minus ~ period + (1 | herd)", dict(family="poisson"), "is -2 there"),
    "text of ratings": (
        "period ~ 1 + (1 | herd)",
        dict(family="ordinal"),
        "make it an ordered category",
    ),
    "four outcomes": ("period ~ 1 + (1 | herd)", dict(family="binomial"), "use family='ordinal'"),
    "two-sided dispersion": (
        FORMULA,
        dict(family="nbinom2", dispersion="y ~ x"),
        "dispersion= takes a one-sided formula",
    ),
    "cbind of counts": (
        "cbind(incidence, size) ~ 1 + (1 | herd)",
        dict(family="poisson"),
        "response of binomial families",
    ),
    "zeros that are not there": (
        "size ~ period + (1 | herd)",
        dict(family="poisson", zero_inflation="~ 1"),
        "has no zeros",
    ),
    "iterative": (FORMULA, dict(family="poisson", core="iterative"), "is for linear mixed models"),
    "truncated with zeros": (FORMULA, dict(family="truncated_poisson"), "a hurdle model"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_model_is_refused_in_a_sentence(what):
    formula, arguments, message = BAD[what]
    share = (CBPP["incidence"] / CBPP["size"]).clip(0.01)
    frame = CBPP.assign(share=share, none=0.0, minus=CBPP["incidence"] - 4.0)
    with pytest.raises(ValueError, match=message):
        interlace.fit(formula, frame, **arguments)


def test_counts_that_are_not_whole_warn():
    with pytest.warns(UserWarning, match="no whole number in 56 rows, first in row 0"):
        interlace.compile(
            "half ~ period + (1 | herd)",
            CBPP.assign(half=CBPP["incidence"] + 0.5),
            family="poisson",
        )


def test_an_empty_category_is_refused():
    frame = ratings(ROWS)
    frame["rating"] = frame["rating"].cat.add_categories("ever")
    with pytest.raises(ValueError, match="no row of the response 'rating' is 'ever'"):
        interlace.fit("rating ~ x + (1 | g)", frame, family="ordinal")


def test_summary_says_what_was_fitted(cbpp):
    text = str(cbpp.summary())
    assert text.startswith("Generalised linear mixed model: binomial (logit), Laplace")
    assert "Trials: size" in text and "z value" in text and "Pr(>|z|)" in text
    assert "Residual" not in text and "herd" in text
    assert "<table" in cbpp._repr_html_()


def test_tables_have_z_tests(cbpp):
    assert np.isinf(cbpp.fe_df).all()
    assert_allclose(cbpp.fe_pvalues, 2 * special.ndtr(-abs(cbpp.fe_tvalues)))
    assert_allclose(cbpp.parameter_cov.loc[cbpp.fe_cov.index, cbpp.fe_cov.columns], cbpp.fe_cov)
    table = cbpp.anova()
    b, V = cbpp.fe_params.to_numpy()[1:], cbpp.fe_cov.to_numpy()[1:, 1:]
    assert table.loc["period", "Chisq"] == pytest.approx(b @ np.linalg.solve(V, b))
    assert table.loc["period", "Df"] == 3
    assert set(cbpp.variance_components) == {"herd"} and len(cbpp.varcorr) == 1
    limits = cbpp.confint()
    assert_allclose(limits.loc["Intercept"], cbpp.fe_conf_int.loc["Intercept"])
    assert "sigma" not in limits.index and limits.loc["sd_(Intercept)|herd", "lower"] > 0


def test_predictions_are_on_the_scale_asked_for(cbpp):
    new = CBPP.head(4)
    link, mean = cbpp.predict(new, type="link"), cbpp.predict(new)
    assert_allclose(special.expit(link), mean)
    typical = cbpp.predict(new, type="link", include_re=False)
    assert_allclose(typical, cbpp.model.design.X[:4] @ cbpp.fe_params)
    assert_allclose(cbpp.predict(), cbpp.fittedvalues)
    assert_allclose(cbpp.predict(type="link"), cbpp.linear_predictor)
    band = cbpp.predict(new, include_re=False, interval="confidence")
    se = np.sqrt(
        np.einsum("np,pq,nq->n", cbpp.model.design.X[:4], cbpp.fe_cov, cbpp.model.design.X[:4])
    )
    assert_allclose(special.logit(band["upper"]), typical + special.ndtri(0.975) * se)
    with pytest.raises(ValueError, match="without random effects so far"):
        cbpp.predict(new, interval="confidence")


def test_averages_over_random_effects_are_integrals(cbpp):
    new = CBPP.head(2)
    eta, sd = cbpp.predict(new, type="link", include_re=False), cbpp.theta[0]
    z = np.linspace(-9, 9, 20001)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    exact = [np.sum(density * special.expit(e + sd * z)) for e in eta]
    assert_allclose(cbpp.predict(new, marginal=True), exact, rtol=1e-8)
    band = cbpp.predict(new, marginal=True, interval="confidence")
    assert (band["lower"] < band["fit"]).all() and (band["fit"] < band["upper"]).all()


def test_residuals_are_what_they_are_called(cbpp):
    mu, m = cbpp.fittedvalues, CBPP["size"].to_numpy()
    assert_allclose(cbpp.resid, CBPP["incidence"] / m - mu)
    assert_allclose(cbpp.residuals("pearson"), cbpp.resid / np.sqrt(mu * (1 - mu) / m))
    y = CBPP["incidence"].to_numpy()
    lack = special.xlogy(y, y / (m * mu)) + special.xlogy(m - y, (m - y) / (m * (1 - mu)))
    assert_allclose(cbpp.residuals("deviance"), np.sign(y - m * mu) * np.sqrt(2 * lack), atol=1e-5)
    assert_allclose(cbpp.residuals("working"), cbpp.resid / (mu * (1 - mu)))
    scaled = cbpp.scaled_residuals(100, seed=1)
    assert scaled.between(0, 1).all()
    with pytest.raises(ValueError, match="kind must be"):
        cbpp.residuals("conditional")


def test_random_effects_have_modes_and_standard_errors(cbpp):
    want = json.loads((REFERENCE / "cases_glmm" / "cbpp_laplace.json").read_text())["ranef"]["herd"]
    assert_allclose(cbpp.random_effects["herd"], np.ravel(want["values"]), atol=1e-5)
    assert_allclose(cbpp.random_effects_se["herd"], np.ravel(want["cond_sd"]), atol=1e-5)


def test_likelihood_ratio_tests_compare_fits_of_one_family(cbpp):
    smaller = interlace.fit("incidence ~ 1 + (1 | herd)", CBPP, family="binomial", trials="size")
    table = interlace.anova(smaller, cbpp)
    assert table["Chisq"].iloc[1] == pytest.approx(smaller.deviance - cbpp.deviance)
    assert table["Df"].iloc[1] == 3
    probit = interlace.fit(FORMULA, CBPP, family=interlace.Binomial("probit"), trials="size")
    with pytest.raises(ValueError, match="different distributions or approximations"):
        interlace.anova(cbpp, probit)
    with pytest.warns(interlace.SingularFitWarning):
        linear = interlace.fit(FORMULA, CBPP, method="ML")
    with pytest.raises(ValueError, match="different distributions or approximations"):
        interlace.anova(cbpp, linear)


VERBS = ("leverage", "jackknife", "augment")


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_of_linear_models_are_refused_by_name(cbpp, verb):
    with pytest.raises(ValueError, match=rf"{verb}\(\) is for linear mixed models so far"):
        getattr(cbpp, verb)()


def test_other_functions_refuse_generalised_fits(cbpp):
    with pytest.raises(ValueError, match="Gaussian|linear mixed models"):
        interlace.emmeans(cbpp, "period", ddf="satterthwaite")


def test_a_fit_survives_pickling_and_refits(cbpp):
    again = pickle.loads(pickle.dumps(cbpp))
    assert again.deviance == cbpp.deviance
    assert again.refit(CBPP["incidence"].to_numpy()).deviance == pytest.approx(
        cbpp.deviance, abs=1e-9
    )
    other = cbpp.update("~ 1 + (1 | herd)")
    assert other.family == cbpp.family and list(other.fe_params.index) == ["Intercept"]


def test_the_gaussian_family_through_this_path_is_the_linear_mixed_model():
    frame = interlace.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (1 | Subject)"
    unused = dict.fromkeys(("weights", "offset", "cov", "trials", "dispersion", "zero_inflation"))
    model = GeneralizedModel.of(
        formula, frame, family=interlace.Gaussian(), na_action="drop", nagq=1, **unused
    )
    through = model.fit()
    linear = interlace.fit(formula, frame, method="ML")
    assert through.deviance == pytest.approx(linear.deviance, abs=1e-6)
    assert_allclose(through.fe_params, linear.fe_params, rtol=1e-6)
    assert through.sigma == pytest.approx(linear.sigma, rel=1e-5)
    assert_allclose(through.theta, linear.theta * linear.sigma, rtol=1e-4)


def test_no_variance_between_groups_is_zero_and_said_to_be():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(20), 10)
    y = np.tile(rng.permutation(np.repeat([0, 1], 5)), 20)
    frame = pd.DataFrame({"y": y, "g": g.astype(str), "x": rng.normal(size=200)})
    with pytest.warns(
        interlace.SingularFitWarning, match="standard deviation of '.Intercept.' across 'g'"
    ):
        fit = interlace.fit("y ~ x + (1 | g)", frame, family="binomial")
    assert fit.theta[0] == 0.0 and fit.converged and fit.is_singular
    assert np.isfinite(fit.fe_bse).all()


def test_separation_is_found_and_explained():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"g": np.repeat(np.arange(20), 12).astype(str), "x": rng.normal(size=240)})
    frame["urban"] = np.tile([1.0, 0, 0, 0], 60)
    chance = special.expit(0.5 * frame["x"] + np.repeat(rng.normal(size=20), 12))
    frame["y"] = np.where(frame["urban"] == 1, 1, rng.random(240) < chance) * 1.0
    with pytest.warns(
        interlace.SeparationWarning, match="'urban' separates.*all 60 rows with urban = 1 are 1"
    ):
        fit = interlace.fit("y ~ x + urban + (1 | g)", frame, family="binomial")
    assert not fit.converged and fit.separation.columns == ("urban",)
    assert "Warning: 'urban' separates" in str(fit.summary())
    frame["whole"] = (frame["x"] > 0) * 1.0
    with pytest.warns(interlace.SeparationWarning, match="'x' separates"):
        assert not interlace.fit("whole ~ x + (1 | g)", frame, family="binomial").converged


def test_an_effect_a_row_is_allowed_for_counts():
    frame = ROWS.assign(row=np.arange(len(ROWS)).astype(str)).head(60)
    fit = interlace.fit("count ~ x + (1 | row)", frame, family="poisson")
    assert fit.converged and fit.theta[0] > 0.1
    with pytest.raises(ValueError, match="more rows than random effects"):
        interlace.fit("positive ~ x + (1 | row)", frame, family="gamma")


def test_offsets_of_formulas_are_read_from_new_data():
    model = interlace.compile("count ~ x + offset(log(exposure)) + (1 | g)", ROWS, family="poisson")
    given = interlace.compile(
        "count ~ x + (1 | g)", ROWS, family="poisson", offset=np.log(ROWS["exposure"])
    )
    assert_allclose(model.design.offset, given.design.offset)
    fit = model.fit()
    more = ROWS.head(3).assign(exposure=2 * ROWS["exposure"])
    assert_allclose(fit.predict(more), 2 * fit.predict(ROWS.head(3)))
    assert "offset(log(exposure))" in str(fit.model.design.formula)
    linear = interlace.fit("positive ~ x + offset(exposure) + (1 | g)", ROWS)
    assert_allclose(linear.predict(more) - linear.predict(ROWS.head(3)), ROWS["exposure"].head(3))


def test_the_likelihood_is_a_function_with_derivatives(cbpp):
    model, e = cbpp.model, cbpp.estimate
    assert model.loglik(e.theta, e.beta) == pytest.approx(cbpp.llf, abs=1e-8)
    with jax.enable_x64(True):
        theta, beta = jnp.asarray(e.theta), jnp.asarray(e.beta)
        slopes = jax.jit(jax.grad(model.deviance, (0, 1)))(theta, beta)
        assert_allclose(np.concatenate(slopes), 0.0, atol=1e-5)
        at = jnp.stack([theta, 1.2 * theta])
        values = jax.vmap(lambda theta: model.deviance(theta, beta))(at)
        assert values[0] == pytest.approx(cbpp.deviance) and values[1] > values[0]
    with jax.enable_x64(False):  # the same in a float32 program, to its precision
        single = model.loglik(jnp.asarray(e.theta), jnp.asarray(e.beta))
        assert single.dtype == jnp.float32 and single == pytest.approx(cbpp.llf, rel=1e-6)
    with pytest.raises(ValueError, match="beta of this model is 4 numbers"):
        model.deviance(e.theta, e.beta[:2])
    assert model.theta0.shape == (1,) and model.beta0.shape == (4,) and model.phi0.shape == (0,)


def test_tables_of_papers_have_no_residual_where_there_is_none(cbpp):
    assert cbpp.tidy("ran_pars")["term"].tolist() == ["sd__(Intercept)"]
    assert "residual" not in str(interlace.compare(cbpp)).lower()
    assert cbpp.glance()["log_lik"].iloc[0] == pytest.approx(cbpp.llf)


def test_words_of_another_package_about_linear_models_are_refused(cbpp):
    with pytest.raises(ValueError, match=r"hlm_resid\(\) is for linear mixed models so far"):
        interlace.hlm_resid(cbpp)


def test_random_effects_and_variances_are_plotted(cbpp):
    assert plot.caterpillar(cbpp).draw() is not None
    assert plot.variance_components(cbpp).draw() is not None


def test_quadrature_meets_lme4s(cbpp):
    want = json.loads((REFERENCE / "cases_glmm" / "cbpp_agq9.json").read_text())
    fit = interlace.fit(FORMULA, CBPP, family="binomial", trials="size", nagq=9)
    assert fit.converged and fit.nagq == 9
    assert fit.llf == pytest.approx(want["logLik"], abs=1e-6)
    assert_allclose(fit.fe_params, list(want["fixef"].values()), atol=2e-5)
    assert_allclose(fit.theta, want["theta"], atol=2e-5)
    assert "9 quadrature nodes" in str(fit.summary())
    with pytest.raises(ValueError, match="different distributions or approximations"):
        interlace.anova(fit, cbpp)


BESIDE = {  # a formula, data and arguments of fits by nagq=0
    "cbpp": (FORMULA, CBPP, dict(family="binomial", trials="size")),
    "counts": ("count ~ x + offset(log(exposure)) + (1 + x | g)", ROWS, dict(family="poisson")),
}


@pytest.mark.parametrize("name", BESIDE)
def test_coefficients_beside_the_random_effects_are_lme4s(name):
    formula, data, arguments = BESIDE[name]
    want = json.loads((REFERENCE / "cases_glmm" / "nagq0.json").read_text())[name]
    fit = interlace.fit(formula, data, nagq=0, **arguments)
    assert fit.converged and "Laplace with nagq=0" in str(fit.summary())
    assert fit.llf == pytest.approx(want["logLik"], abs=1e-6)
    # bobyqa has theta to half the digits of the deviance, and the rest follows theta
    assert_allclose(fit.theta, want["theta"], atol=1e-5)
    assert_allclose(fit.fe_params, want["beta"], atol=1e-5)
    assert_allclose(fit.fe_bse, want["se"], rtol=1e-5)
    with pytest.raises(ValueError, match="a profile follows the maximum of a likelihood"):
        fit.confint("profile")


def test_quadrature_is_refused_where_the_integral_has_too_many_dimensions():
    frame = ROWS.assign(h=np.tile(list("abcd"), len(ROWS) // 4))
    with pytest.raises(
        ValueError, match="quadrature needs one grouping factor, and there are 'g' and 'h'"
    ):
        interlace.fit("binary ~ x + (1 | g) + (1 | h)", frame, family="binomial", nagq=5)
    with pytest.raises(ValueError, match="nagq must be a whole number: 0"):
        interlace.fit("binary ~ x + (1 | g)", ROWS, family="binomial", nagq=-1)
    with pytest.raises(ValueError, match="nagq=0 .* 'nbinom2' has 'size' besides"):
        interlace.fit("count ~ x + (1 | g)", ROWS, family="nbinom2", nagq=0)
    with pytest.raises(ValueError, match="nagq=0 is for single fits"):
        interlace.fit_many("count ~ x + (1 | g)", ROWS, by="z", family="poisson", nagq=0)
    with pytest.raises(ValueError, match="nagq= belongs to generalised models"):
        interlace.fit("positive ~ x + (1 | g)", ROWS, nagq=5)


def test_marginal_means_of_the_response_are_those_of_emmeans(cbpp):
    """Numbers of emmeans 1.8.4 for glmmTMB's fit, whose tests have 51 degrees of freedom; ours
    are normal.
    """
    means = interlace.emmeans(cbpp, "period", type="response")
    pairs = means.pairs()
    assert_allclose(
        pairs["odds ratio"], [2.697519, 3.091546, 4.856479, 1.146070, 1.800351, 1.570890], rtol=2e-6
    )
    assert_allclose(
        pairs["se"], [0.8271738, 1.0098158, 2.0758369, 0.4363184, 0.8466184, 0.7607574], rtol=2e-6
    )
    assert pairs["contrast"].iloc[0] == "p1 / p2"
    link = interlace.emmeans(cbpp, "period").frame
    assert_allclose(means.frame["response"], special.expit(link["emmean"]))
    assert_allclose(means.frame["upper"], special.expit(link["upper"]))
    adjusted = interlace.emmeans(cbpp, "period", type="response", bias_adjust=True).frame
    assert_allclose(
        adjusted["response"], [0.21783158, 0.09706133, 0.08601106, 0.05696916], rtol=1e-5
    )
    assert_allclose(adjusted["se"], [0.03728079, 0.02648576, 0.02537255, 0.02276051], rtol=1e-4)
    with pytest.raises(ValueError, match="use type='response'"):
        interlace.emmeans(cbpp, "period", bias_adjust=True)


def test_counts_without_overdispersion_end_at_poissons_likelihood_and_say_so():
    rng = np.random.default_rng(11)
    frame = pd.DataFrame({"g": np.repeat(np.arange(30), 20).astype(str), "x": rng.normal(size=600)})
    frame["y"] = (
        rng.poisson(np.exp(1 + 0.3 * frame["x"] + 0.5 * np.repeat(rng.normal(size=30), 20))) * 1.0
    )
    with pytest.warns(
        interlace.SingularFitWarning, match="no overdispersion: use family='poisson'"
    ):
        fit = interlace.fit("y ~ x + (1 | g)", frame, family="nbinom2")
    poisson = interlace.fit("y ~ x + (1 | g)", frame, family="poisson")
    assert fit.converged and fit.deviance == pytest.approx(poisson.deviance, abs=1e-4)
    assert_allclose(fit.fe_bse, poisson.fe_bse, rtol=1e-4)
    assert np.isnan(fit.family_params.loc["size", "se"])
    assert "runs off to infinity" in str(fit.summary())


def test_predictors_in_odd_units_fit_like_plain_ones():
    plain = interlace.fit("count ~ x + (1 | g)", ROWS, family="poisson")
    odd = interlace.fit(
        "count ~ z + (1 | g)", ROWS.assign(z=2000 + 1e-3 * ROWS["x"]), family="poisson"
    )
    assert odd.deviance == pytest.approx(plain.deviance, abs=1e-7)
    assert odd.fe_params["z"] == pytest.approx(1e3 * plain.fe_params["x"], rel=1e-6)
    assert odd.optimum.steps <= plain.optimum.steps + 2


def test_a_weight_of_two_is_the_row_twice():
    doubled = interlace.fit("count ~ x + (1 | g)", pd.concat([ROWS, ROWS]), family="poisson")
    weighted = interlace.fit(
        "count ~ x + (1 | g)", ROWS, family="poisson", weights=np.full(len(ROWS), 2.0)
    )
    assert weighted.deviance == pytest.approx(doubled.deviance, abs=1e-7)
    assert_allclose(weighted.fe_bse, doubled.fe_bse, rtol=1e-6)
