"""Simulation and the bootstrap: draws with the right moments, refits that are fits, intervals
that cover.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from helpers.resampled import _parametric, _sleep
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

import interlace_jax as interlace
from interlace_jax.inference.terms import variables


@cache
def _cases():
    return _sleep().bootstrap(150, seed=1, kind="cases")


def test_the_same_seed_gives_the_same_draws_and_another_others():
    fit = _sleep()
    assert_frame_equal(fit.simulate(3, seed=5), fit.simulate(3, seed=5))
    assert not np.allclose(fit.simulate(3, seed=5), fit.simulate(3, seed=6))
    again = fit.bootstrap(400, seed=1)  # to rounding, as programs come to be compiled
    assert_frame_equal(again.estimates, _parametric().estimates, rtol=1e-6, atol=1e-6)
    cases = fit.bootstrap(150, seed=1, kind="cases")
    assert_frame_equal(cases.estimates, _cases().estimates, rtol=1e-6, atol=1e-6)


def test_every_replicate_is_the_refit_of_its_response():
    fit, boot = _sleep(), _parametric()
    Y = fit.simulate(400, seed=1)
    for i in (0, 17, int(boot.many.is_singular.idxmax())):
        one = quiet_fit("y ~ Days + (Days | Subject)", sleepstudy().assign(y=Y[i].to_numpy()))
        assert_allclose(-2 * boot.many.llf[i], one.deviance, rtol=0, atol=1e-8)
        assert_allclose(boot.estimates.loc[i], one.parameters, rtol=1e-4)
        assert boot.many.is_singular[i] == one.is_singular


def test_every_case_replicate_is_the_fit_of_its_groups():
    fit, boot, frame = _sleep(), _cases(), sleepstudy()
    subjects = np.sort(frame["Subject"].unique())
    picks = np.random.default_rng(1).integers(0, 18, (150, 18))
    for i in (0, 99):
        parts = [
            frame[frame["Subject"] == subjects[s]].assign(Subject=f"pick{k}")
            for k, s in enumerate(picks[i])
        ]
        one = quiet_fit("Reaction ~ Days + (Days | Subject)", pd.concat(parts))
        assert_allclose(-2 * boot.many.llf[i], one.deviance, rtol=0, atol=1e-8)
        assert_allclose(boot.estimates.loc[i], one.parameters, rtol=1e-4)
        assert_allclose(boot.many[i].deviance, one.deviance, rtol=0, atol=1e-8)
        design = boot.many[i].model.design
        assert_array_equal(variables(design, frame)["Days"], design.X[:, 1])
    assert boot.bse["Days"] == pytest.approx(fit.fe_bse["Days"], rel=0.3)


def test_groups_of_a_nested_design_are_drawn_with_all_that_is_in_them():
    fit = fitted("pastes_REML")
    boot = fit.bootstrap(20, seed=3, kind="cases")
    frame = fit.model.data
    batches = np.sort(frame["batch"].unique())
    picks = np.random.default_rng(3).integers(0, 10, (20, 10))[4]
    parts = [
        frame[frame["batch"] == batches[b]].assign(batch=f"pick{k}") for k, b in enumerate(picks)
    ]
    one = quiet_fit("strength ~ 1 + (1 | batch/cask)", pd.concat(parts))
    assert_allclose(-2 * boot.many.llf[4], one.deviance, rtol=0, atol=1e-8)


def test_groups_that_are_crossed_are_not_drawn():
    fit = fitted("penicillin_REML")
    with pytest.raises(ValueError, match="sample and plate are crossed"):
        fit.bootstrap(10, kind="cases")
    with pytest.raises(ValueError, match="'parametric' or 'cases'"):
        fit.bootstrap(10, kind="residual")


def test_a_draw_that_does_not_determine_the_coefficients_is_counted():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(5), 6)
    frame = pd.DataFrame(
        {"g": g, "between": 1.0 * (g == 0), "y": rng.normal(size=30) + rng.normal(size=5)[g]}
    )
    fit = quiet_fit("y ~ between + (1 | g)", frame)
    with pytest.warns(
        UserWarning, match="of 40 replicates could not be fitted .* intervals are of the other"
    ):
        boot = fit.bootstrap(40, seed=1, kind="cases")
    without = ~(np.random.default_rng(1).integers(0, 5, (40, 5)) == 0).any(1)
    assert 0 < without.sum() < 40
    failed = boot.many.status.str.contains("rank deficient")
    assert_array_equal(failed, without)
    assert boot.outcomes[boot.many.status[failed].iloc[0]] == without.sum()
    assert boot.estimates[failed].isna().all().all() and np.isfinite(
        boot.confint()["lower"]["between"]
    )


def test_outcomes_count_every_replicate():
    boot = _parametric()
    assert boot.outcomes.drop("singular").sum() == 400
    assert boot.outcomes["singular"] == boot.many.is_singular.sum() > 0
    assert "400 bootstrap replicates" in repr(boot)


def test_basic_limits_are_reflected_where_the_parameter_has_no_bounds():
    fit, boot = _sleep(), _parametric()
    table, quantiles = boot.confint(0.9, kind="basic"), boot.estimates.quantile([0.05, 0.95])
    for name, to_free, back in [
        ("sd_(Intercept)|Subject", np.log, np.exp),
        ("sigma", np.log, np.exp),
        ("cor_Days.(Intercept)|Subject", np.arctanh, np.tanh),
    ]:
        expected = back(
            2 * to_free(fit.parameters[name]) - to_free(quantiles[name].to_numpy()[::-1])
        )
        assert_allclose(table.loc[name], expected)
    assert (table.filter(like="sd_", axis=0) > 0).all(axis=None)
    assert (table.filter(like="cor_", axis=0).abs() <= 1).all(axis=None)


def test_basic_limits_of_a_structure_stay_where_it_has_a_meaning():
    rng = np.random.default_rng(3)
    g, time = np.repeat(np.arange(15), 8), np.tile(np.arange(4), 30)
    b = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4))))
    y = (rng.normal(size=(15, 4)) @ b.T)[g, time] + rng.normal(size=120)
    frame = pd.DataFrame({"g": g, "time": time, "y": y})
    fit = quiet_fit("y ~ 1 + (0 + C(time) | g)", frame, cov={"g": interlace.AR1()})
    boot = fit.bootstrap(60, seed=1, progress=False)
    limits = boot.confint(0.9, kind="basic").loc["rho|g"]
    low, high = boot.many.theta["g.free(rho)"].quantile([0.05, 0.95])
    free = np.arctanh(fit.parameters["rho|g"])
    assert_allclose(limits, np.tanh([2 * free - high, 2 * free - low]), rtol=1e-6)
    assert -1 <= limits["lower"] < limits["upper"] <= 1


def test_intervals_are_quantiles_and_their_reflections():
    fit, boot = _sleep(), _parametric()
    days = boot.estimates["Days"]
    lower, upper = np.quantile(days, [0.05, 0.95])
    assert_allclose(boot.confint(0.9).loc["Days"], [lower, upper])
    centre = 2 * fit.fe_params["Days"]
    assert_allclose(boot.confint(0.9, kind="basic").loc["Days"], [centre - upper, centre - lower])
    with pytest.raises(ValueError, match="'percentile' or 'basic' or 'bca'"):
        boot.confint(kind="studentized")


def test_bca_limits_are_scipys_for_a_mean():
    # A balanced one-way model's intercept is the grand mean of the groups' means, whatever the
    # variances.
    rng = np.random.default_rng(5)
    means = rng.exponential(10, size=14)
    frame = pd.DataFrame({"g": np.repeat(np.arange(14), 4)})
    noise = rng.normal(size=(14, 4))
    frame["y"] = (means[:, None] + noise - noise.mean(1, keepdims=True)).ravel()
    fit = interlace.fit("y ~ 1 + (1 | g)", frame)
    boot = fit.bootstrap(600, seed=6, kind="cases")
    picks = np.random.default_rng(6).integers(0, 14, (600, 14))
    known = type("Known", (), {"bootstrap_distribution": means[picks].mean(1)})
    assert_allclose(boot.estimates["Intercept"], known.bootstrap_distribution, rtol=1e-6)
    theirs = stats.bootstrap((means,), np.mean, n_resamples=0, method="BCa", bootstrap_result=known)
    assert_allclose(
        boot.confint(kind="bca").loc["Intercept"], theirs.confidence_interval, rtol=1e-4
    )


def test_bca_of_a_crossed_design_is_refused():
    boot = fitted("penicillin_REML").bootstrap(20, seed=1)
    with pytest.raises(ValueError, match="kind='bca' needs groups"):
        boot.confint(kind="bca")
    assert (boot.confint()["lower"] < boot.confint()["upper"]).all()


def test_bootstrap_errors_are_near_those_of_the_fit():
    fit, boot = _sleep(), _parametric()
    assert_allclose(boot.bse[fit.fe_bse.index], fit.fe_bse, rtol=0.15)
    bias = boot.estimates.mean() - fit.parameters
    assert (bias[fit.fe_bse.index].abs() < 4 * fit.fe_bse / np.sqrt(400)).all()


def test_cases_may_have_predictors_of_any_size():
    frame = sleepstudy().assign(x=lambda f: 1e9 * (f.Days + 1.0))
    fit = quiet_fit("Reaction ~ x + {x**2} + (1 | Subject)", frame)
    assert fit.bootstrap(2, seed=1, kind="cases", progress=False).many.converged.all()
