"""Sign flips by enumeration, and their statistic as a one-sample t."""

import itertools

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from interlace_jax.maps.flips import flip_statistics, normal_scores, signs


def test_few_subjects_have_all_their_flips():
    found, is_all = signs(6, 1000, 1)
    assert is_all and found.shape == (64, 6) and (found[0] == 1).all()
    assert {tuple(row) for row in found} == set(itertools.product([1.0, -1.0], repeat=6))


def test_many_subjects_have_as_many_as_asked_for_and_the_same_from_the_same_seed():
    found, is_all = signs(20, 99, 1)
    assert (
        not is_all
        and found.shape == (100, 20)
        and (found[0] == 1).all()
        and set(np.unique(found)) == {-1.0, 1.0}
    )
    assert_array_equal(found, signs(20, 99, 1)[0])
    assert not np.array_equal(found, signs(20, 99, 2)[0])


def test_the_statistic_is_the_one_sample_t_of_the_flipped_scores():
    rng = np.random.default_rng(0)
    u, flips = rng.normal(size=(9, 4)) * [1.0, 1e-12, 1e12, 5.0], signs(9, 30, 1)[0]
    found = np.vstack(list(flip_statistics(u, flips)))
    for flip, t in zip(flips, found, strict=True):
        assert_allclose(t, stats.ttest_1samp(flip[:, None] * u, 0).statistic, rtol=1e-9)


def test_models_with_fewer_subjects_are_put_on_one_scale():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(9, 2))
    u[:3, 1] = 0.0
    found = np.vstack(list(flip_statistics(u, signs(9, 10, 1)[0])))
    for model, df in ((0, 8), (1, 5)):
        t = stats.ttest_1samp(u[u[:, model] != 0, model], 0)
        assert_allclose(
            found[0, model], np.sign(t.statistic) * stats.norm.isf(t.pvalue / 2), rtol=1e-9
        )
        assert df == (u[:, model] != 0).sum() - 1


def test_normal_scores_keep_the_tails():
    t = np.array([-3.0, 0.0, 2.5, 40.0])
    assert_allclose(
        stats.norm.sf(np.abs(normal_scores(t, np.full(4, 7.0)))),
        stats.t.sf(np.abs(t), 7),
        rtol=1e-9,
    )
