"""Fits by the iterative core against the same by the dense one."""

import copy
import pickle
import warnings
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace
from interlace_jax.engines import choice, iterative
from interlace_jax.numerics.crossproducts import cells

SLOPES = "y ~ x + (1 + x | g) + (1 | h)"
INTERCEPTS = "y ~ x + (1 | g) + (1 | h)"


@pytest.fixture(autouse=True)
def quiet_dense_fits():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interlace.SingularFitWarning)
        yield


@cache
def frame(groups=200, others=60, rows=3000, sd=0.5):
    rng = np.random.default_rng(4)
    g, h, x = rng.integers(0, groups, rows), rng.integers(0, others, rows), rng.normal(size=rows)
    b = rng.normal(size=(groups, 2)) @ np.array([[0.6, 0.1], [0.0, 0.3]])
    y = 1.0 + 0.2 * x + b[g, 0] + b[g, 1] * x + sd * rng.normal(size=others)[h]
    w = rng.uniform(0.5, 2.0, rows)
    return pd.DataFrame(dict(g=g, h=h, x=x, w=w, y=y + rng.normal(size=rows) / np.sqrt(w)))


@cache
def both(formula, method="REML", weights="w"):
    """The dense fit and the iterative one."""
    return tuple(
        interlace.fit(formula, frame(), method=method, weights=weights, core=core) for core in CORES
    )


CORES = ("dense", "iterative")
every_fit = pytest.mark.parametrize(
    "formula, method", [(SLOPES, "REML"), (SLOPES, "ML"), (INTERCEPTS, "REML")]
)


@every_fit
def test_theta_is_within_a_hundredth_of_its_standard_error(formula, method):
    exact, found = both(formula, method)
    se = exact.delta(lambda p: p.theta)["se"].to_numpy()
    assert found.converged
    assert np.max(np.abs(found.theta - exact.theta) / se) < 0.01
    assert_allclose(found.sigma, exact.sigma, rtol=1e-4)


@every_fit
def test_the_deviance_is_within_three_times_its_reported_noise(formula, method):
    exact, found = both(formula, method)
    assert 0 < found.optimum.noise <= iterative.NOISE
    assert abs(found.deviance - exact.deviance) < 3 * found.optimum.noise
    assert exact.optimum.noise == 0


def test_theta_errs_as_much_as_its_noise_says(monkeypatch):
    exact, _ = both(SLOPES)
    se = exact.delta(lambda p: p.theta)["se"].to_numpy()
    monkeypatch.setattr(iterative, "PROBES", (8,))
    errors, said = [], []
    for seed in range(10):
        monkeypatch.setattr(iterative, "SEED", seed)
        found = interlace.fit(SLOPES, frame(), weights="w", core="iterative")
        errors.append((found.theta - exact.theta) / se)
        said.append(found.optimum.theta_noise)
    ratio = np.sqrt(np.mean(np.square(errors)) / np.mean(np.square(said)))
    assert 0.6 < ratio < 1.4  # 40 errors know their size to 11%
    assert exact.optimum.theta_noise == 0


@every_fit
def test_fixed_effects_are_those_of_the_dense_core(formula, method):
    exact, found = both(formula, method)
    # They move with theta, which moves by 0.5% of its standard error.
    assert_allclose(found.fe_params, exact.fe_params, atol=0.01 * exact.fe_bse.min())
    assert_allclose(found.fe_bse, exact.fe_bse, rtol=1e-3)
    assert_allclose(found.fe_df, exact.fe_df, rtol=1e-2)


def test_a_likelihood_ratio_test_says_what_probes_make_uncertain():
    small, big = both(INTERCEPTS), both(SLOPES)
    exact, found, mixed = (
        interlace.anova(small[i], big[j], refit=False) for i, j in ((0, 0), (1, 1), (0, 1))
    )
    noise = found["Chisq noise"].iloc[1]
    assert abs(found["Chisq"].iloc[1] - exact["Chisq"].iloc[1]) < 3 * noise
    assert_allclose(mixed["Chisq noise"].iloc[1], big[1].optimum.noise)
    assert "Chisq noise" not in exact


def test_what_the_same_probes_do_to_two_fits_cancels():
    reml, ml = both(SLOPES)[1], both(SLOPES, "ML")[1]
    noise = reml.model.engine.noise_of_difference(reml.estimate, ml.model.engine, ml.estimate)
    assert 0 < noise < 0.1 * reml.optimum.noise


def test_random_effects_and_their_standard_deviations_are_those_of_the_dense_core():
    exact, found = both(SLOPES)
    for name, expected in exact.random_effects.items():
        sd = np.asarray(exact.random_effects_se[name])
        assert np.max(np.abs(np.asarray(found.random_effects[name] - expected)) / sd) < 0.01
        # Estimated to a relative standard error of 1% in the worst of hundreds of levels.
        assert_allclose(np.asarray(found.random_effects_se[name]), sd, rtol=0.05)


@pytest.mark.parametrize("formula", (INTERCEPTS, SLOPES))
def test_standard_deviations_err_as_much_as_their_noise_says(formula):
    exact, found = both(formula)
    for name, sd in exact.random_effects_se.items():
        z = (found.random_effects_se[name] - sd) / found.random_effects_se_noise[name]
        assert 0.7 < np.sqrt(np.mean(np.square(z))) < 1.3  # 60 levels know their spread to 9%
        assert np.all(np.asarray(exact.random_effects_se_noise[name]) == 0.0)


def test_everything_made_of_the_estimates_works():
    exact, found = both(SLOPES)
    assert_allclose(found.fittedvalues, exact.fittedvalues, atol=0.01)
    new = frame().head(5).assign(g=[0, 1, 2, 3, 999])
    assert_allclose(found.predict(new), exact.predict(new), atol=0.01)
    assert_allclose(found.simulate(2, seed=1), exact.simulate(2, seed=1), atol=0.05)
    assert_allclose(
        found.varcorr[["sdcor", "sdcor_se"]].dropna(),
        exact.varcorr[["sdcor", "sdcor_se"]].dropna(),
        rtol=0.01,
    )
    assert_allclose(found.icc(), exact.icc(), rtol=0.01)
    assert_allclose(found.optimum.hessian_eigenvalues, exact.optimum.hessian_eigenvalues, rtol=0.01)
    assert "Iterative core: the criterion is known to within" in str(found.summary())
    assert "Iterative" not in str(exact.summary())


def test_a_check_needs_no_matrix():
    exact, found = (interlace.check(fit, nsim=20).table.set_index("check") for fit in both(SLOPES))
    assert found["verdict"].equals(exact["verdict"])
    # Modes are within a hundredth of their standard deviation, and so are residuals.
    assert_allclose(
        found.drop("optimum")["statistic"], exact.drop("optimum")["statistic"], rtol=0.01
    )


def test_rows_are_augmented_by_all_that_needs_no_leverage(monkeypatch):
    # normalized residuals take long
    monkeypatch.setattr("interlace_jax.diagnostics.augment.LARGEST", 0)
    exact, found = both(SLOPES)
    table, expected = found.augment(None), exact.augment(None)
    lost = set(expected) - set(table)
    assert lost == {
        ".resid_standardized",
        ".leverage_fixed",
        ".leverage_random",
        ".leverage_overall",
    }
    assert_allclose(table, expected[list(table)], atol=0.01)
    with pytest.raises(ValueError, match=r"influence=None\) needs the dense core"):
        found.augment()


def test_the_same_data_give_the_same_numbers():
    first, again = both(SLOPES)[1], interlace.fit(SLOPES, frame(), weights="w", core="iterative")
    # The probes are the same; searches of other roundings end within what convergence means.
    assert_allclose(again.deviance, first.deviance, rtol=1e-10)
    assert_allclose(again.theta, first.theta, rtol=1e-5)


def crossed(rows, groups):
    rng = np.random.default_rng(rows)
    g, h = rng.integers(0, groups, rows), rng.integers(0, 60, rows)
    y = rng.normal(size=groups)[g] + rng.normal(size=60)[h] + rng.normal(size=rows)
    return pd.DataFrame(dict(g=g, h=h, x=rng.normal(size=rows), w=rng.uniform(0.5, 2.0, rows), y=y))


def test_data_of_similar_size_share_their_programs(caplog):
    interlace.fit(INTERCEPTS, crossed(3000, 200), weights="w", core="iterative", df_method="normal")
    with jax.log_compiles():
        for rows, groups in ((2950, 202), (2970, 197)):
            interlace.fit(
                INTERCEPTS, crossed(rows, groups), weights="w", core="iterative", df_method="normal"
            )
    assert not [message for message in caplog.messages if message.startswith("Compiling")]


def test_rounding_numbers_of_levels_and_chunks_changes_nothing(monkeypatch):
    data = crossed(3060, 197)
    rounded, exact = (
        interlace.compile(INTERCEPTS, data, weights="w", core="iterative") for _ in range(2)
    )
    a = rounded.engine.products
    monkeypatch.setattr(iterative, "bucket", int)
    monkeypatch.setattr(cells, "bucket", int)
    b = exact.engine.products
    assert a.G[0].shape == (1, 1, 208) and b.G[0].shape == (1, 1, 197)
    assert len(a.cells[0][1].owner) > len(b.cells[0][1].owner)
    # The same sums of the same numbers, and zeros, to rounding.
    assert_allclose(rounded.theta0, exact.theta0, rtol=1e-12)
    assert_allclose(
        rounded.deviance(np.array([0.9, 1.1])), exact.deviance(np.array([0.9, 1.1])), rtol=1e-12
    )


def test_a_model_of_another_response_keeps_the_core():
    found = both(SLOPES)[1]
    other = found.refit(frame()["y"] + 3.0)
    assert other.model.engine.name == "iterative"
    assert_allclose(other.theta, found.theta, rtol=1e-3)
    assert_allclose(other.fe_params["Intercept"], found.fe_params["Intercept"] + 3.0, atol=1e-3)


def test_a_fit_survives_pickling_and_copying():
    found = both(INTERCEPTS)[1]
    for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert_array_equal(twin.theta, found.theta)
        assert_allclose(twin.fe_df, found.fe_df, rtol=1e-6)


def test_the_compiled_model_gives_deviance_and_start_near_those_of_the_dense_core():
    exact, found = (fit.model for fit in both(SLOPES))
    assert_allclose(found.theta0, exact.theta0, rtol=1e-8)
    theta = np.array([0.5, 0.1, 0.3, 0.4])
    for reml in (True, False):
        assert_allclose(found.deviance(theta, reml), exact.deviance(theta, reml), atol=0.1)
    again = found.fit(theta0=theta)
    assert_allclose(again.theta, both(SLOPES)[1].theta, atol=1e-4)


def test_compiled_and_batched_the_loglik_and_its_gradient_are_the_same():
    # which looks at its data when asked
    model = interlace.compile(INTERCEPTS, frame(), weights="w", core="iterative")
    loglik = jax.value_and_grad(model.loglik)
    thetas = jnp.array([[0.5, 0.4], [0.8, 0.9], [0.3, 0.0]])
    values, slopes = jax.jit(jax.vmap(loglik))(thetas)
    loop = [loglik(theta) for theta in thetas]
    assert_allclose(values, [value for value, _ in loop], rtol=1e-6)
    assert_allclose(slopes, [slope for _, slope in loop], rtol=1e-5)


def test_a_variance_of_zero_is_found_as_exactly_zero():
    data = frame().assign(y=lambda d: d["y"] - d.groupby("h")["y"].transform("mean"))
    with pytest.warns(interlace.SingularFitWarning, match="'h'"):
        found = interlace.fit(INTERCEPTS, data, weights="w", core="iterative")
    exact = interlace.fit(INTERCEPTS, data, weights="w", core="dense")
    assert found.theta[1] == 0.0
    assert_allclose(found.theta, exact.theta, rtol=1e-3)
    assert_allclose(found.fe_df, exact.fe_df, rtol=1e-2)


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.bootstrap(10),
        lambda fit: fit.cross_val(),
        lambda fit: interlace.power(fit, "x"),
        lambda fit: fit.confint("profile"),
        lambda fit: fit.coefficients("kenward-roger"),
        lambda fit: fit.model.fit(df_method="kenward-roger"),
        lambda fit: fit.model.moments,
    ],
)
def test_what_needs_a_matrix_is_refused_with_the_way_out(ask):
    with pytest.raises(ValueError, match='needs the dense core.*core="dense"'):
        ask(both(SLOPES)[1])


def test_refused_intervals_and_residuals_name_those_that_are_not(monkeypatch):
    fit = both(SLOPES)[1]
    for more in (dict(interval="prediction"), dict(interval="confidence", theta_uncertainty=True)):
        with pytest.raises(
            ValueError, match=r'"confidence" with include_re=False.* needs the dense core'
        ):
            fit.predict(include_re=False, **more)
    assert fit.predict(include_re=False, interval="confidence")["se"].gt(0).all()
    monkeypatch.setattr("interlace_jax.models.covariance.LARGEST", 10)
    with pytest.raises(ValueError, match="'pearson' has no such limit"):
        fit.residuals("normalized")
    assert len(fit.residuals("pearson")) == fit.nobs


def test_a_profile_that_is_refused_is_named():
    with pytest.raises(ValueError, match="^a profile needs the dense core"):
        both(SLOPES)[1].profile("x")


def test_a_model_without_fixed_effects_is_fitted():
    exact, found = (
        interlace.fit("y ~ 0 + (1 | g) + (1 | h)", frame(), core=core) for core in CORES
    )
    assert_allclose(found.theta, exact.theta, rtol=1e-4)
    assert abs(found.deviance - exact.deviance) < 3 * found.optimum.noise
    assert "No fixed effects" in str(found.summary())


def test_one_factor_has_nothing_to_iterate_on():
    with pytest.raises(
        ValueError, match="core=\"iterative\" is for crossed factors, and 'g' is alone"
    ):
        interlace.fit("y ~ x + (1 | g)", frame(), core="iterative")
    with pytest.raises(
        ValueError, match="core must be 'auto' or 'dense' or 'sparse' or 'iterative', not 'huge'"
    ):
        interlace.fit(INTERCEPTS, frame(), core="huge")


def test_the_dense_core_is_taken_until_it_would_be_slow_or_large():
    def chosen(groups, others, rows):
        rng = np.random.default_rng(0)
        data = pd.DataFrame(
            dict(
                g=rng.integers(0, groups, rows),
                h=rng.integers(0, others, rows),
                y=rng.normal(size=rows),
            )
        )
        return interlace.compile("y ~ 1 + (1 | g) + (1 | h)", data).engine.name

    assert chosen(3000, 1100, 70_000) == "dense"
    assert chosen(20_000, 4000, 100_000) == "iterative"


def test_nested_factors_stay_with_the_dense_core_which_is_linear():
    rng = np.random.default_rng(0)
    inner = rng.integers(0, 9000, 30_000)
    data = pd.DataFrame(dict(inner=inner, outer=inner // 3, y=rng.normal(size=30_000)))
    assert interlace.compile("y ~ 1 + (1 | outer/inner)", data).engine.name == "dense"


def test_cross_validation_of_a_model_too_large_for_the_dense_core_is_refused(monkeypatch):
    monkeypatch.setattr(choice, "DENSE_SECONDS", 0.0)
    with pytest.raises(ValueError, match="cross-validation needs the dense core"):
        interlace.cross_val(INTERCEPTS, frame())


def test_more_probes_are_taken_where_the_noise_is_too_large(monkeypatch):
    monkeypatch.setattr(iterative, "NOISE", both(INTERCEPTS)[1].optimum.noise / 1.2)
    found = interlace.fit(INTERCEPTS, frame(), weights="w", core="iterative")
    assert found.estimate.probes > both(INTERCEPTS)[1].estimate.probes
    assert found.optimum.noise < both(INTERCEPTS)[1].optimum.noise
    assert abs(found.deviance - both(INTERCEPTS)[0].deviance) < 3 * found.optimum.noise


def test_sds_that_stay_uncertain_are_said_to_be(monkeypatch):
    monkeypatch.setattr(iterative, "SD_ERROR", 1e-9)
    monkeypatch.setattr(iterative, "PROBES", (8, 16, 32))
    fit = copy.copy(both(SLOPES)[1])
    fit.__dict__.pop("_conditional", None)
    with pytest.warns(
        UserWarning, match="estimated from 32 random probes, to within a standard error of"
    ):
        fit.random_effects_se  # noqa: B018 - looking is what is tested
