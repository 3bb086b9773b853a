"""Permutation tests and power: right counts, right errors, the same draws from the same seed."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

import interlace_jax as interlace
from interlace_jax.many.permutation import _shuffle
from interlace_jax.resampling.power import extended

CONDITION = "condition[T.b]"


@cache
def _frame():
    """Twelve subjects by six items by two conditions; `old` is a property of subjects."""
    subject, item, b = (a.ravel() for a in np.meshgrid(np.arange(12), np.arange(6), [0, 1], indexing="ij"))
    frame = pd.DataFrame({"subject": subject, "item": item, "condition": np.where(b, "b", "a")})
    return frame.assign(old=(subject % 2).astype(float))


@cache
def _many():
    """Twenty responses: an effect of the condition in the first, of age in the second."""
    frame, rng = _frame(), np.random.default_rng(0)
    Y = rng.normal(size=(len(frame), 20)) + rng.normal(size=(12, 20))[frame["subject"]]
    Y += rng.normal(size=(6, 20))[frame["item"]]
    Y[:, 0] += 1.5 * (frame["condition"] == "b")
    Y[:, 1] += 4.0 * frame["old"]
    return interlace.fit_many("~ condition + old + (1 | subject) + (1 | item)", frame, responses=Y)


@cache
def _within():
    return _many().permutation_test("condition", 39, within="subject", seed=1, progress=False)


@cache
def _between():
    return _many().permutation_test("old", 39, between="subject", seed=1, progress=False)


def test_an_effect_is_found_and_noise_is_not():
    within, between = (test.table.set_index("model") for test in (_within(), _between()))
    assert within["p_max"][0] == 1 / 40 and (within["p_max"][1:] > 0.05).all()
    assert between["p_max"][1] == 1 / 40 and (between["p_max"].drop(1) > 0.05).all()
    assert_array_equal(within["coefficient"], CONDITION)
    assert_array_equal(between["coefficient"], "old")


def test_p_values_are_uniform_without_an_effect():
    p = np.r_[_within().table["p"][1:], _between().table["p"][2:]]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_adjusted_p_value_counts_the_largest_t_of_each_permutation():
    test, t = _within(), _many().fe_tvalues[CONDITION].abs()
    expected = [(1 + (test.null[CONDITION] >= value).sum()) / 40 for value in t]
    assert_allclose(test.table["p_max"], expected)
    assert (test.table["p_max"] >= test.table["p"]).all()


def test_a_permutation_within_levels_is_the_refit_of_shuffled_data():
    rng, frame = np.random.default_rng(1), _frame()
    shuffled = frame["condition"].to_numpy().copy()
    keys = rng.random(len(frame))
    for s in range(12):
        rows = np.flatnonzero(frame["subject"] == s)
        shuffled[rows] = frame["condition"].to_numpy()[rows[np.argsort(keys[rows])]]
    Y = _many()._work.Y
    t = [
        quiet_fit(
            "y ~ condition + old + (1 | subject) + (1 | item)", frame.assign(y=Y[:, j], condition=shuffled)
        ).fe_tvalues[CONDITION]
        for j in range(20)
    ]
    assert_allclose(_within().null[CONDITION][0], np.max(np.abs(t)), rtol=1e-4)


def test_whole_levels_keep_one_value_when_they_exchange():
    import narwhals.stable.v1 as nw  # isort: skip

    frame, used = nw.from_native(_frame()), np.arange(len(_frame()))
    rng = np.random.default_rng(2)
    source = _shuffle(frame, used, "old", None, "subject")(rng)
    new = _frame()["old"].to_numpy()[source]
    assert (pd.Series(new).groupby(_frame()["subject"]).nunique() == 1).all()
    assert new.sum() == _frame()["old"].sum()
    inside = _shuffle(frame, used, "condition", "subject", None)(rng)
    assert_array_equal(np.sort(inside), used)
    assert_array_equal(_frame()["subject"].to_numpy()[inside], _frame()["subject"])
    assert not np.array_equal(inside, used)


def test_the_same_seed_gives_the_same_permutations():
    again = _many().permutation_test("condition", 39, within="subject", seed=1, progress=False)
    assert_frame_equal(again.table, _within().table, check_exact=True)
    other = _many().permutation_test("condition", 39, within="subject", seed=2, progress=False)
    assert not other.null.equals(again.null)


def test_every_refit_is_counted():
    outcomes = _within().outcomes
    assert len(outcomes) == 39
    assert (outcomes["fitted"] == 20).all() and (outcomes["converged"] <= 20).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(predictor="age"), "'age' is not a column"),
        (dict(predictor="condition", within="people"), "'people' is not a column"),
        (dict(predictor="condition", between="subject"), "varies within the levels of 'subject'"),
        (dict(predictor="condition", within="subject", between="item"), "not both"),
        (dict(predictor="item"), "change no fixed effect"),
        (dict(predictor="old", within="subject"), "change no fixed effect"),
    ],
)
def test_a_permutation_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _many().permutation_test(n=2, **arguments)


def test_groups_of_a_frame_have_no_common_permutation():
    frame = _frame().assign(y=_many()._work.Y[:, 0])
    many = interlace.fit_many("y ~ condition + (1 | subject)", frame, by="old")
    with pytest.raises(ValueError, match="responses="):
        many.permutation_test("condition", 2)


# Power ---------------------------------------------------------------------------------------------------------------


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
    # Condition varies within subjects and items, so that its difference has variance 4 sigma^2 / n and n - p - ... df.
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
    again = interlace.power(_pilot(), CONDITION, 0.4, {"subject": [12, 24]}, nsim=150, seed=1, progress=False)
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
    subject, item = (next(f for f in larger.factors if f.name == name).codes for name in ("subject", "item"))
    assert pd.DataFrame({"s": subject, "i": item}).value_counts().eq(2).all()
    old = design.factors[0].codes
    assert_array_equal(np.sort(larger.X[(subject == 13) & (item < 6)], 0), np.sort(design.X[old == 1], 0))


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
