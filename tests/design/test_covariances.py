"""`cov=` at the front door: R's numbers, labels, priors, what the tables show, and what is
refused.
"""

import warnings
from functools import cache

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import oracle
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

import interlace_jax as interlace
from interlace_jax.models.simulation import new_effects


@cache
def machines(structure, method="REML"):
    frame = interlace.load_dataset("machines")
    return interlace.fit(
        "score ~ Machine + (0 + Machine | Worker)", frame, method=method, cov={"Worker": structure}
    )


def serial():
    """30 subjects at 5 times: AR(1) with rho = 0.7 and SD 2, residuals of SD 1."""
    rng = np.random.default_rng(7)
    shape, rho = (30, 5), 0.7
    b, e = np.zeros(shape), rng.standard_normal(shape)
    b[:, 0] = e[:, 0]
    for t in range(1, 5):
        b[:, t] = rho * b[:, t - 1] + np.sqrt(1 - rho**2) * e[:, t]
    s, t = (a.ravel() for a in np.indices(shape))
    x = rng.integers(0, 2, b.size)
    y = np.round(3 + x + 2 * b.ravel() + rng.standard_normal(b.size), 3)
    return pd.DataFrame({"y": y, "x": x, "time": t, "subject": [f"s{i:02d}" for i in s]})


@cache
def repeated(method="REML"):
    return interlace.fit(
        "y ~ x + (0 + C(time) | subject)", serial(), method=method, cov={"subject": interlace.AR1()}
    )


# R ------------------------------------------------------------------------------------------------

# nlme 3.1-162: d <- nlme::Machines; with(method = "REML" or "ML" and s = "pdIdent" or "pdCompSymm")
#   lme(score ~ Machine, d, random = list(Worker = do.call(s, list(~ Machine - 1))),
#       method = method, control = lmeControl(msTol = 1e-12, tolerance = 1e-12, opt = "nlminb"))
# -2 logLik(f), f$sigma, variance and covariance of pdMatrix(f$modelStruct$reStruct)$Worker *
# f$sigma^2
NLME = [
    (interlace.HomogeneousDiagonal(), "REML", 221.25559005, 0.961576637975, 36.7679011313, 0.0),
    (
        interlace.CompoundSymmetry(),
        "REML",
        215.687568008,
        0.96157663829,
        36.7679010807,
        22.8584443554,
    ),
    (
        interlace.CompoundSymmetry(),
        "ML",
        225.26944694,
        0.961576637435,
        30.5885493807,
        19.0487037026,
    ),
]


@pytest.mark.parametrize(
    ("structure", "method", "deviance", "sigma", "variance", "covariance"), NLME
)
def test_one_variance_for_all_columns_gives_nlmes_numbers(
    structure, method, deviance, sigma, variance, covariance
):
    fit = machines(structure, method)
    assert_allclose(fit.deviance, deviance, rtol=0, atol=1e-6)
    assert_allclose(fit.sigma, sigma, rtol=1e-6)  # nlme's parameters are good to about 1e-7
    expected = variance * np.eye(3) + covariance * (1 - np.eye(3))
    assert_allclose(fit.varcov, expected, rtol=1e-6, atol=1e-9)


# glmmTMB 1.1.5: glmmTMB(score ~ Machine + cs(0 + Machine | Worker), d, REML = TRUE,
#   control = glmmTMBControl(optCtrl = list(iter.max = 1e4, eval.max = 1e4, rel.tol = 1e-14)))
# and diag() in place of cs()
GLMMTMB = [
    (
        interlace.Diagonal(),
        217.651078576,
        0.96157671181,
        [4.07927687285, 8.62529850165, 4.38947973503],
        0.0,
    ),
    (
        interlace.CompoundSymmetry(heterogeneous=True),
        209.220442314,
        0.962148609076,
        [4.11448502514, 8.41974232153, 4.46180031176],
        0.735710116658,
    ),
]


@pytest.mark.parametrize(("structure", "deviance", "sigma", "sd", "correlation"), GLMMTMB)
def test_a_variance_for_each_column_gives_glmmtmbs_numbers(
    structure, deviance, sigma, sd, correlation
):
    fit = machines(structure)
    assert_allclose(fit.deviance, deviance, rtol=0, atol=1e-6)
    assert_allclose(fit.sigma, sigma, rtol=1e-6)
    assert_allclose(np.sqrt(np.diag(fit.varcov)), sd, rtol=1e-5)
    found = fit.varcov.to_numpy() / np.outer(sd, sd)
    assert_allclose(found[np.triu_indices(3, 1)], correlation, rtol=1e-5, atol=1e-12)


# The same with y ~ x + ar1(0 + factor(time) | subject) on serial(), REML = TRUE and FALSE
AUTOREGRESSIVE = [
    (
        "REML",
        584.314639349,
        0.797589000308,
        1.68415188983,
        0.557032039886,
        [2.64631904163, 0.632502405724],
    ),
    (
        "ML",
        582.244482171,
        0.761853515751,
        1.68147017581,
        0.541904575372,
        [2.64521421226, 0.634053210101],
    ),
]


@pytest.mark.parametrize(("method", "deviance", "sigma", "sd", "rho", "beta"), AUTOREGRESSIVE)
def test_an_autoregressive_process_gives_glmmtmbs_numbers(method, deviance, sigma, sd, rho, beta):
    fit = repeated(method)
    assert_allclose(fit.deviance, deviance, rtol=0, atol=1e-6)
    # glmmTMB stops where the deviance is within 1e-9 of its minimum: rho and sigma are then good to
    # 1e-5.
    assert_allclose([fit.sigma, np.sqrt(fit.varcov.iloc[0, 0])], [sigma, sd], rtol=1e-5)
    assert_allclose(fit.structure.loc["rho|subject", "estimate"], rho, rtol=1e-5)
    assert_allclose(fit.fe_params, beta, rtol=1e-5)


# Across levels ------------------------------------------------------------------------------------


def relatives(m=12, scale=1.0):
    B = np.random.default_rng(3).normal(size=(m, 2 * m))
    labels = [f"a{i:02d}" for i in range(m)]
    return pd.DataFrame(scale * B @ B.T / (2 * m), index=labels, columns=labels)


def herd(seed=0):
    """Three records each of 12 relatives, with a breeding value of SD 2 and an intercept that
    all share.
    """
    K, rng = relatives(), np.random.default_rng(seed)
    codes = np.repeat(np.arange(12), 3)
    a = 2.0 * np.linalg.cholesky(K.to_numpy()) @ rng.standard_normal(12)
    x = rng.normal(size=36)
    return pd.DataFrame(
        {"y": 1 + x + a[codes] + rng.standard_normal(36), "x": x, "animal": K.index[codes]}
    )


def animals(K, **more):
    return interlace.fit("y ~ x + (1 | animal)", herd(), cov={"animal": interlace.Known(K)}, **more)


def test_a_kinship_model_is_the_dense_one():
    fit, frame, K = animals(relatives()), herd(), relatives().to_numpy()
    codes = np.repeat(np.arange(12), 3)
    factor = oracle.Factor(
        codes, np.ones((36, 1)), 12, ((0,),), (1.0,), lambda theta: (theta[:, None], K)
    )
    problem = oracle.Problem(
        frame["y"].to_numpy(), np.column_stack([np.ones(36), frame["x"]]), (factor,)
    )
    best = optimize.minimize_scalar(
        lambda s: oracle.deviance(problem, np.array([s]), True),
        bounds=(0.1, 10),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert_allclose(fit.deviance, best.fun, rtol=0, atol=1e-8)
    assert_allclose(fit.theta, best.x, rtol=1e-5)
    assert_allclose(
        fit.random_effects["animal"],
        oracle.modes(problem, fit.theta)[0][:, 0],
        rtol=1e-7,
        atol=1e-9,
    )
    assert_allclose(fit.fe_df, oracle.satterthwaite(problem, fit.theta, np.eye(2), True), rtol=1e-5)
    kr = oracle.kenward_roger(problem, fit.theta, [np.eye(2)[[1]]])
    assert_allclose(fit.coefficients("kenward-roger").df(np.eye(2))[1], kr.df[0], rtol=1e-6)
    # The mean variance of a row is that of its level: K_ii is not 1.
    random = fit.variance_components["animal"] * np.diag(K).mean()
    assert_allclose(
        fit.icc().loc["adjusted", "estimate"], random / (random + fit.scale), rtol=1e-10
    )


def test_labels_put_k_in_order_and_levels_without_data_are_left_out():
    K = relatives()
    more = pd.DataFrame(np.eye(14), index=[*K.index, "b1", "b2"], columns=[*K.index, "b1", "b2"])
    more.loc[K.index, K.index] = K
    shuffled = more.sample(frac=1, random_state=1).sample(frac=1, axis=1, random_state=2)
    assert_allclose(animals(shuffled).deviance, animals(K).deviance, rtol=1e-12)
    assert_allclose(animals(K.to_numpy()).deviance, animals(K).deviance, rtol=1e-12)


def test_the_size_of_k_changes_nothing_but_the_unit_of_the_variance():
    fit, large = animals(relatives()), animals(relatives(scale=1e8))
    assert_allclose(large.deviance, fit.deviance, rtol=0, atol=1e-8)
    assert_allclose(
        large.variance_components["animal"] * 1e8, fit.variance_components["animal"], rtol=1e-5
    )
    assert large.is_singular == fit.is_singular


def test_k_of_independent_levels_is_the_plain_model_also_at_zero():
    for data, formula, factor in (
        ("dyestuff", "Yield ~ 1 + (1 | Batch)", "Batch"),
        ("dyestuff2", "Yield ~ 1 + (1 | Batch)", "Batch"),
    ):
        frame = interlace.load_dataset(data)
        plain = quiet_fit(formula, frame)
        fit = quiet_fit(formula, frame, cov={factor: interlace.Known(np.eye(6))})
        assert_allclose(fit.deviance, plain.deviance, rtol=0, atol=1e-8)
        assert_allclose(fit.theta, plain.theta, atol=1e-6)
        assert fit.is_singular == plain.is_singular == (data == "dyestuff2")


def test_new_effects_have_the_covariance_of_levels_and_columns():
    class Shape:
        levels, columns = range(2), ("a", "b")

    L, Lam = np.array([[1.0, 0], [0.6, 0.8]]), np.array([[2.0, 0], [1.0, 0.5]])
    draws = (
        new_effects(Shape, Lam, L, (40_000,), np.random.default_rng(0))
        .transpose(1, 0, 2)
        .reshape(-1, 4)
    )
    # The standard error of a covariance of 5 from 40,000 draws is 0.04.
    assert_allclose(draws.T @ draws / len(draws), np.kron(L @ L.T, Lam @ Lam.T), atol=0.15)


# Kernels ------------------------------------------------------------------------------------------


@cache
def sites():
    """Four records at each of 90 places of a process with length scale 0.2 and SD 2."""
    rng = np.random.default_rng(2)
    places = pd.DataFrame(rng.uniform(size=(90, 2)), index=[f"p{i:02d}" for i in range(90)])
    D = np.linalg.norm(places.to_numpy()[:, None] - places.to_numpy(), axis=-1)
    b = 2.0 * np.linalg.cholesky(np.exp(-D / 0.2)) @ rng.standard_normal(90)
    frame = pd.DataFrame(
        {"y": np.repeat(b, 4) + rng.standard_normal(360), "site": np.repeat(places.index, 4)}
    )
    return frame, pd.DataFrame(D, index=places.index, columns=places.index)


def decay(distance, length):
    return jnp.exp(-distance / length)


@cache
def spatial():
    frame, D = sites()
    # the order of the labels does not matter
    kernel = interlace.Kernel(decay, D.iloc[::-1, ::-1], {"length": 1.0})
    return interlace.fit("y ~ 1 + (1 | site)", frame, cov={"site": kernel})


def test_a_length_scale_is_found_again():
    found = spatial().structure.loc["length|site"]
    assert found["lower"] < 0.2 < found["upper"]
    assert 0.1 < found["estimate"] < 0.4
    assert spatial().converged
    # Lying in the middle on the log scale, on which it was computed.
    assert_allclose(found["lower"] * found["upper"], found["estimate"] ** 2, rtol=1e-8)


def test_parameters_of_structures_stand_in_intervals_parameters_and_the_summary():
    fit = spatial()
    assert_allclose(
        fit.confint().loc["length|site"], fit.structure.loc["length|site", ["lower", "upper"]]
    )
    assert_allclose(fit.parameters["length|site"], np.exp(fit.theta[1]), rtol=1e-12)
    assert "length" in str(fit.summary()) and "Kernel" in str(fit.summary())
    assert fit.nparams == 4
    delta = fit.delta(lambda p: p.structure("site")[0])
    assert_allclose(
        delta[["estimate", "se"]].to_numpy(float),
        fit.structure.iloc[0, :2].to_numpy(float),
        rtol=1e-10,
    )


# Priors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [2.0, 2.5])
def test_a_boundary_avoiding_prior_keeps_a_variance_off_zero(shape):
    frame = interlace.load_dataset("dyestuff2")
    prior = interlace.BoundaryAvoiding(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = interlace.fit(
            "Yield ~ 1 + (1 | Batch)", frame, cov={"Batch": interlace.Unstructured(prior=prior)}
        )
    codes = frame["Batch"].astype("category").cat.codes.to_numpy().astype(int)
    problem = oracle.Problem(
        frame["Yield"].to_numpy(),
        np.ones((30, 1)),
        (oracle.Factor(codes, np.ones((30, 1)), 6, ((0,),)),),
    )
    best = optimize.minimize_scalar(
        lambda s: oracle.deviance(problem, np.array([s]), True) - 2 * (shape - 1) * np.log(s),
        bounds=(1e-3, 3),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert not fit.is_singular and fit.theta[0] > 0.1
    assert_allclose(fit.theta, best.x, rtol=1e-6)
    # without the prior
    assert_allclose(fit.deviance, oracle.deviance(problem, fit.theta, True), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="prior"):
        fit.confint("profile")


def test_a_prior_of_a_kernels_parameter_moves_it():
    frame, D = sites()
    kernel = interlace.Kernel(decay, D, {"length": 1.0}, prior=strong)
    fit = interlace.fit("y ~ 1 + (1 | site)", frame, cov={"site": kernel})
    assert_allclose(fit.structure.loc["length|site", "estimate"], 0.5, rtol=0.01)
    assert fit.deviance > spatial().deviance


def strong(parameters):
    return -0.5 * jnp.sum((jnp.log(parameters / 0.5) / 1e-3) ** 2)


# Zero ---------------------------------------------------------------------------------------------


def test_a_scale_without_support_is_exactly_zero_and_its_correlation_at_its_start():
    frame = serial()
    # nothing of it differs between subjects
    for _, rows in frame.groupby("subject").groups.items():
        Z = np.column_stack([np.ones(5), frame.loc[rows, "time"]])
        y = frame.loc[rows, "y"].to_numpy()
        frame.loc[rows, "y"] = y - Z @ np.linalg.lstsq(Z, y, rcond=None)[0]
    with pytest.warns(interlace.SingularFitWarning, match="estimated as 0"):
        fit = interlace.fit(
            "y ~ x + (time | subject)", frame, cov={"subject": interlace.CompoundSymmetry()}
        )
    assert_array_equal(fit.theta[0], 0.0)
    assert_allclose(
        fit.structure.loc["rho|subject", ["estimate", "se"]].to_numpy(float),
        [0.0, np.nan],
        atol=1e-12,
    )
    ols = np.linalg.lstsq(np.column_stack([np.ones(150), frame["x"]]), frame["y"], rcond=None)
    assert_allclose(fit.scale, ols[1][0] / 148, rtol=1e-10)


# Many, resampling, comparisons --------------------------------------------------------------------


def test_many_responses_are_a_loop_of_fits_with_the_same_structure():
    frame = herd()
    Y = pd.DataFrame({f"y{i}": herd(i)["y"] for i in range(3)})
    cov = {"animal": interlace.Known(relatives())}
    many = interlace.fit_many("~ x + (1 | animal)", frame, responses=Y, cov=cov)
    for name in Y:
        fit = interlace.fit("y ~ x + (1 | animal)", frame.assign(y=Y[name]), cov=cov)
        assert_allclose(many.parameters.loc[name], fit.parameters, rtol=1e-5)
        assert_allclose(many.llf[name], fit.llf, rtol=1e-9)


def test_a_parametric_bootstrap_has_the_parameters_of_structures():
    fit = repeated()
    boot = fit.bootstrap(8, seed=1)
    assert list(boot.estimates.columns) == list(fit.parameters.index)
    rho = boot.estimates["rho|subject"]
    assert_allclose(rho, boot.estimates["cor_C(time)[1].C(time)[0]|subject"], rtol=1e-9)


def test_structures_can_be_compared_with_what_they_are_special_cases_of():
    table = interlace.anova(
        machines(interlace.CompoundSymmetry(), "ML"), machines(interlace.Unstructured(), "ML")
    )
    small, big = (
        machines(s, "ML") for s in (interlace.CompoundSymmetry(), interlace.Unstructured())
    )
    assert_allclose(table["Chisq"].iloc[1], small.deviance - big.deviance)
    assert table["Df"].iloc[1] == 4
    with pytest.raises(ValueError, match="covariance structure of 'Worker'"):
        interlace.anova(
            machines(interlace.Diagonal()),
            machines(interlace.CompoundSymmetry(heterogeneous=True)),
            refit=False,
        )


# What is refused ----------------------------------------------------------------------------------


def without(labels):
    return relatives().drop(index=labels, columns=labels)


REFUSED = [
    (
        {"anmal": interlace.Known(relatives())},
        "'anmal', which is no grouping factor; there are 'animal'",
    ),
    ({"animal": interlace.Known(without(["a03"]))}, "rows of K of 'animal' lack the levels 'a03'"),
    ({"animal": interlace.Known(np.eye(5))}, r"shape \(5, 5\) for 12 levels"),
    ({"animal": interlace.Known(np.triu(np.ones((12, 12))))}, "not symmetric"),
    ({"animal": interlace.Known(np.eye(12) - 0.5)}, "smallest eigenvalue is -5"),
    ({"animal": interlace.Kernel(decay, np.ones(3), {"length": 1.0})}, "coordinates of 'animal'"),
]


@pytest.mark.parametrize(("cov", "message"), REFUSED)
def test_a_covariance_that_does_not_fit_is_refused(cov, message):
    with pytest.raises(ValueError, match=message):
        interlace.compile("y ~ x + (1 | animal)", herd(), cov=cov)


def test_other_things_than_structures_are_refused():
    for cov in (
        "animal",
        {"animal": "ar1"},
        {"animal": (interlace.AR1(), interlace.AR1())},
        {"animal": ()},
    ):
        with pytest.raises(TypeError, match="cov must be a mapping|a covariance is a structure"):
            interlace.compile("y ~ x + (1 | animal)", herd(), cov=cov)
    with pytest.raises(ValueError, match="positive value"):
        interlace.Kernel(decay, np.ones(3), {"length": 0.0})


def test_a_structure_of_columns_that_terms_keep_apart_is_refused():
    with pytest.raises(ValueError, match="its terms keep"):
        interlace.compile(
            "y ~ x + (1 + x || animal)", herd(), cov={"animal": interlace.CompoundSymmetry()}
        )


def test_methods_that_do_not_apply_say_so():
    fit = repeated()
    with pytest.raises(ValueError, match="not linear in the parameters of AR1"):
        fit.test("x = 0", ddf="kenward-roger")
    with pytest.raises(ValueError, match="not linear in the parameters of AR1"):
        fit.update(df_method="kenward-roger")
    with pytest.raises(ValueError, match="no profiles of the parameters of covariance structures"):
        fit.confint("profile", parm="rho|subject")
    with pytest.raises(ValueError, match="the levels of animal covary"):
        animals(relatives()).bootstrap(3, kind="cases")


def test_profiles_of_the_other_parameters_are_as_ever():
    limits = animals(relatives()).confint("profile", parm=["sd_(Intercept)|animal", "x"])
    wald = animals(relatives()).confint(parm=["sd_(Intercept)|animal", "x"])
    assert (limits["lower"] < animals(relatives()).parameters[limits.index]).all()
    assert_allclose(limits.loc["x"], wald.loc["x"], rtol=0.2)


def test_one_model_a_group_takes_its_own_part_of_k():
    frame = pd.concat(
        [herd(i).iloc[: 36 - 9 * i].assign(farm=f"f{i}") for i in range(2)], ignore_index=True
    )
    cov = {"animal": interlace.Known(relatives())}
    many = interlace.fit_many("y ~ x + (1 | animal)", frame, by="farm", cov=cov)
    for farm, part in frame.groupby("farm"):
        fit = interlace.fit("y ~ x + (1 | animal)", part, cov=cov)
        assert_allclose(many.llf[farm], fit.llf, rtol=1e-9)
        assert_allclose(many.theta.loc[farm], fit.theta, rtol=1e-5, atol=1e-8)
