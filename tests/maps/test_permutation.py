"""Permutation tests: right counts, right errors, the same draws from the same seed."""

from functools import cache

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from helpers.subjects_and_items import CONDITION
from helpers.subjects_and_items import frame as _frame
from helpers.subjects_and_items import many as _many
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

import interlace_jax as interlace
from interlace_jax.maps import permutation
from interlace_jax.maps.permutation import _shuffle


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
    Y = _many().work.Y.read(0, 99)
    t = [
        quiet_fit(
            "y ~ condition + old + (1 | subject) + (1 | item)",
            frame.assign(y=Y[:, j], condition=shuffled),
        ).fe_tvalues[CONDITION]
        for j in range(20)
    ]
    assert_allclose(_within().null[CONDITION][0], np.max(np.abs(t)), rtol=1e-4)


def test_whole_levels_keep_one_value_when_they_exchange():
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
    assert_frame_equal(again.table, _within().table)
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
    frame = _frame().assign(y=_many().work.Y.read(0, 1)[:, 0])
    many = interlace.fit_many("y ~ condition + (1 | subject)", frame, by="old")
    with pytest.raises(ValueError, match="responses="):
        many.permutation_test("condition", 2)


def _with_failures(t: np.ndarray) -> permutation.PermutationTest:
    """The result where the refits gave these |t| (n, models, 1)."""
    names = np.array(_many().coefficients) == CONDITION
    found = permutation._Refits(t, names, pd.DataFrame())
    return permutation._result(_many(), found)


def test_a_refit_that_failed_is_no_evidence():
    rng, t = np.random.default_rng(0), _many().fe_tvalues[CONDITION].abs().to_numpy()
    refits = np.abs(rng.normal(size=(30, 20, 1)))
    failed = refits.copy()
    failed[:10, 3] = np.nan
    all_there, some = _with_failures(refits), _with_failures(failed)
    others = np.arange(20) != 3
    assert_array_equal(some.table["p"][others], all_there.table["p"][others])
    assert_allclose(some.table["p"][3], (1 + (refits[10:, 3, 0] >= t[3]).sum()) / 21)
    assert some.table["refits"].tolist() == [30] * 3 + [20] + [30] * 16
    assert (some.table["refits_max"] == 20).all() and some.null[CONDITION].isna().sum() == 10
    largest = refits[10:, :, 0].max(1)
    assert_allclose(some.table["p_max"], [(1 + (largest >= value).sum()) / 21 for value in t])


def test_a_model_that_is_never_refitted_has_no_p_value():
    refits = np.abs(np.random.default_rng(0).normal(size=(30, 20, 1)))
    refits[:, 3] = np.nan
    table = _with_failures(refits).table
    assert (
        np.isnan(table["p"][3]) and table["p"].drop(3).notna().all() and table["p_max"].isna().all()
    )


def test_failed_refits_are_said(monkeypatch):
    def lost(many, permuted, n, seed, show):
        t = np.ones((n, len(many), 1))
        t[:2, 5] = np.nan
        return permutation._Refits(t, permuted.changed, pd.DataFrame())

    monkeypatch.setattr(permutation, "_refit_all", lost)
    with pytest.warns(
        UserWarning, match="in 2 of 9 permutations of 'condition' some models could not be refitted"
    ):
        _many().permutation_test("condition", 9, within="subject")


@pytest.mark.parametrize("argument", ["within", "between"])
def test_every_row_needs_a_block(argument):
    frame = _frame().assign(run=lambda d: d["subject"].where(d["subject"] > 2))
    Y = _many().work.Y.read(0, 2)
    many = interlace.fit_many("~ condition + old + (1 | subject)", frame, responses=Y)
    with pytest.raises(ValueError, match=f"{argument}='run' is missing in 36 of the 144 rows used"):
        many.permutation_test("condition", 2, **{argument: "run"})
