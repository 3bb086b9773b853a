"""Power: right shares, right errors, the same draws from the same seed."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.subjects_and_items import CONDITION
from helpers.subjects_and_items import many as _many
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import interlace_jax as interlace
from interlace_jax.resampling.power import extended


@cache
def _pilot():
    return _many()[3]


@cache
def _curve():
    effects, subjects = [0.0, 0.4, 1.5], {"subject": [12, 24]}
    return interlace.power(_pilot(), CONDITION, effects, subjects, nsim=150, seed=1, progress=False)


def test_power_grows_with_the_effect_and_with_the_subjects():
    curve = _curve().set_index(["effect", "subject"])
    assert (curve.loc[0.4, "power"].diff().dropna() > 0.1).all()
    assert curve.loc[(1.5, 24), "power"] == 1.0
    assert (curve.loc[0.0, "lower"] < 0.05).all() and (curve.loc[0.0, "upper"] > 0.05).all()
    assert curve.loc[(0.0, 12), "nobs"] == 144 and curve.loc[(0.0, 24), "nobs"] == 288


def test_power_of_a_balanced_design_is_that_of_the_noncentral_t():
    # Condition varies within subjects and items, so that its difference has variance 4 sigma^2 / n
    # and n - p - ... df.
    fit, row = _pilot(), _curve().set_index(["effect", "subject"]).loc[(0.4, 24)]
    df, noncentrality = 288 - 24 - 6, 0.4 / np.sqrt(4 * fit.scale / 288)
    critical = stats.t.ppf(0.975, df)
    exact = stats.nct.sf(critical, df, noncentrality) + stats.nct.cdf(-critical, df, noncentrality)
    assert abs(row["power"] - exact) < 4 * np.sqrt(exact * (1 - exact) / 150)


def test_the_interval_is_wilsons():
    row = _curve().iloc[2]
    expected = stats.binomtest(round(row["power"] * 150), 150).proportion_ci(method="wilson")
    assert_allclose(row[["lower", "upper"]].astype(float), [expected.low, expected.high])
    assert (_curve()["converged"] == 1.0).all() and (_curve()["singular"] < 0.2).all()


def test_power_of_the_same_seed_is_the_same():
    again = interlace.power(
        _pilot(), CONDITION, 0.4, {"subject": [12, 24]}, nsim=150, seed=1, progress=False
    )
    assert_array_equal(again["power"], _curve().query("effect == 0.4")["power"])


def test_the_estimate_is_the_effect_unless_another_is_given():
    fit = _pilot()
    row = interlace.power(fit, CONDITION, nsim=150, seed=3, df_method="normal", progress=False)
    assert_allclose(row["effect"], fit.fe_params[CONDITION])
    assert row["nobs"][0] == 144


def test_new_levels_are_copies_with_random_effects_of_their_own():
    design = _pilot().model.design
    larger = extended(design, {"subject": 15, "item": 7})
    levels = {f.name: len(f.levels) for f in larger.factors}
    assert levels == {"subject": 15, "item": 7} and len(larger.X) == 15 * 7 * 2
    subject, item = (
        next(f for f in larger.factors if f.name == name).codes for name in ("subject", "item")
    )
    assert pd.DataFrame({"s": subject, "i": item}).value_counts().eq(2).all()
    old = design.factors[0].codes
    assert_array_equal(
        np.sort(larger.X[(subject == 13) & (item < 6)], 0), np.sort(design.X[old == 1], 0)
    )


def test_levels_inside_a_copied_level_are_new():
    fit = interlace.fit("strength ~ 1 + (1 | batch/cask)", interlace.load_dataset("pastes"))
    larger = extended(fit.model.design, {"batch": 13})
    assert {f.name: len(f.levels) for f in larger.factors} == {"cask:batch": 39, "batch": 13}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(coefficient="conditionb"), "no coefficient 'conditionb'"),
        (
            dict(coefficient=CONDITION, n_levels={"people": 10}),
            "no grouping factor 'people'; there are 'subject', 'item'",
        ),
        (dict(coefficient=CONDITION, n_levels={"subject": [1, 10]}), "whole numbers above 1"),
        (dict(coefficient=CONDITION, n_levels={"subject": 12.5}), "whole numbers above 1"),
        (dict(coefficient=CONDITION, df_method="kenward-roger"), "'satterthwaite' or 'normal'"),
    ],
)
def test_power_of_what_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        interlace.power(_pilot(), **arguments, nsim=2)
