"""Clusters of models: an effect is found where it is, the level holds without one, and odd
requests are refused.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal

import interlace_jax as interlace
from interlace_jax.maps import neighbours
from interlace_jax.maps.clusters import subjects_of
from interlace_jax.maps.flips import flip_statistics, signs
from interlace_jax.maps.scores import Contrast, null_fits, scores

FORMULA = "~ x + (1 + x | s)"


def _data(subjects=16, rows=10):
    s = np.repeat(np.arange(subjects), rows)
    return pd.DataFrame({"s": s, "x": np.tile(np.repeat([-0.5, 0.5], rows // 2), subjects)})


def _smooth(a):
    return (a + np.roll(a, 1, -1) + np.roll(a, 2, -1)) / np.sqrt(3)


def _responses(data, models, rng, effect=0.0):
    s, x, n = data["s"].to_numpy(), data[["x"]].to_numpy(), len(data)
    m = data["s"].nunique()
    slopes = 0.7 * _smooth(rng.normal(size=(m, models)))[s] * x
    Y = _smooth(rng.normal(size=(m, models)))[s] + slopes + _smooth(rng.normal(size=(n, models)))
    Y[:, 10:18] += effect * x
    return Y


@cache
def _many() -> interlace.Many:
    data = _data()
    Y = pd.DataFrame(
        _responses(data, 40, np.random.default_rng(1), 1.8),
        columns=[f"t{i:02d}" for i in range(40)],
    )
    return interlace.fit_many(FORMULA, data, responses=Y, progress=False)


LINE = neighbours.grid(np.ones(40, bool))


@pytest.mark.parametrize("statistic", ["tfce", "mass", "max"])
def test_an_effect_is_found_where_it_is(statistic):
    found = _many().clusters("x", LINE, statistic, n=499, seed=1)
    best = found.table.loc[found.table["p"].idxmin()]
    assert best["p"] <= 0.02 and best["sign"] == 1
    members = np.flatnonzero(found.nodes["cluster"] == found.table["p"].idxmin())
    assert best["size"] == len(members) and set(members) & set(range(10, 18))
    assert_allclose(best["mass"], found.nodes["t"][members].sum())
    assert (
        best["peak_at"]
        == found.nodes["model"][members[np.argmax(np.abs(found.nodes["t"][members]))]]
    )
    assert len(found.null) == 500 and found.null[0] == np.abs(found.nodes["enhanced"]).max()
    assert found.agreement["correlation"] > 0.95
    assert "clusters among 40 models" in repr(found)


def test_p_values_count_the_flips_that_reach_them():
    found = _many().clusters("x", LINE, "max", n=199, seed=2)
    for place in (3, 12, 30):
        expected = np.mean(found.null >= abs(found.nodes["enhanced"][place]) * (1 - 1e-9))
        assert found.nodes["p"][place] == expected


def test_the_same_seed_gives_the_same_result_and_units_do_not_matter():
    first, again = (_many().clusters("x", LINE, n=99, seed=3) for _ in range(2))
    assert_frame_equal(first.nodes, again.nodes)
    Y = _many().work.Y.read(0, 40)
    scaled = interlace.fit_many(FORMULA, _data(), responses=Y * 1e12 + 5.0, progress=False)
    assert_allclose(
        scaled.clusters("x", LINE, n=99, seed=3).nodes["t"], first.nodes["t"], rtol=1e-3, atol=1e-3
    )


def test_one_tail_sees_one_sign():
    up, down = (_many().clusters("x", LINE, "mass", n=99, tail=tail, seed=1) for tail in (1, -1))
    assert (up.table["sign"] == 1).all() and (up.nodes["enhanced"] >= 0).all()
    assert (down.table["sign"] == -1).all() and (down.nodes["enhanced"] <= 0).all()


def test_the_family_wise_error_holds_with_slopes():
    """Sixty data sets of 10 neighbouring models: at a level of 5 %, 9 or more are rejected with
    probability 0.003.
    """
    data, sets = _data(12, 4), 60
    Y = np.hstack([_responses(data, 10, np.random.default_rng(seed)) for seed in range(sets)])
    many = interlace.fit_many(FORMULA, data, responses=Y, progress=False)
    contrast = Contrast.of(many.work.design, np.array([0.0, 1.0]))
    u = scores(many, null_fits(many, contrast), contrast, many.work.design.factors[0].codes)
    t = np.abs(np.vstack(list(flip_statistics(u, signs(12, 199, 0)[0]))))
    largest = t.reshape(200, sets, 10).max(2)
    assert np.sum((largest >= largest[0] * (1 - 1e-9)).mean(0) <= 0.05) <= 8


def test_models_that_cannot_be_fitted_are_no_part_of_the_map():
    Y = _many().work.Y.read(0, 40).copy()
    Y[:, 14] = 1.0
    many = interlace.fit_many(FORMULA, _data(), responses=Y, progress=False)
    nodes = many.clusters("x", LINE, n=99, seed=1).nodes
    assert nodes.loc[14, ["t", "enhanced", "p"]].isna().all() and nodes["t"].notna().sum() == 39
    assert nodes.loc[14, "cluster"] == -1


def test_few_subjects_are_flipped_in_all_ways_and_said():
    data = _data(5)
    many = interlace.fit_many(
        "~ x + (1 | s)", data, responses=_responses(data, 20, np.random.default_rng(3))
    )
    with pytest.warns(UserWarning, match="32 different flips only"):
        found = many.clusters("x", statistic="max", n=999)
    assert len(found.null) == 32


def test_subjects_that_covary_are_not_flipped():
    design = _many().work.design
    related = replace(design, factors=(replace(design.factors[0], across=object()),))
    with pytest.raises(ValueError, match="independent of each other, but the levels of s covary"):
        subjects_of(related, design.X[:, 1], None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(contrast="x, Intercept"), "has 2 rows"),
        (dict(contrast="x = 1"), "flips test that a contrast is 0, not 1"),
        (dict(contrast="x", adjacency=None), 'needs adjacency=.* "max" does without'),
        (dict(contrast="x", adjacency=np.eye(3)), "there are 40 models"),
        (dict(contrast="x", statistic="mean"), "'tfce' or 'mass' or 'max'"),
        (dict(contrast="x", statistic="mass", threshold=-2.0), "threshold must be positive"),
        (dict(contrast="x", by="t"), "by must be 's'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _many().clusters(**dict(adjacency=LINE, n=9) | arguments)
