"""Moderated statistics: the published formulas, the prior that was put in, and the right rates
under the null.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers import many_maps
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace
from interlace_jax.maps import moderation


@cache
def _null() -> tuple[pd.DataFrame, interlace.Many]:
    """Five hundred responses without effects, variances within and between subjects drawn from a
    prior with 6 df.
    """
    rng, m = np.random.default_rng(5), 500
    s = np.repeat(np.arange(10), 4)
    data = pd.DataFrame({"s": s, "a": (s % 2) - 0.5, "x": np.tile([-0.5, 0.5], 20)})
    within, between = (6.0 / rng.chisquare(6.0, m) for _ in range(2))
    Y = rng.normal(size=(10, m))[s] * np.sqrt(between) + rng.normal(size=(40, m)) * np.sqrt(within)
    return data, interlace.fit_many("~ a + x + (1 | s)", data, responses=Y, progress=False)


@pytest.mark.parametrize("contrast", ["a", "x"])
def test_moderated_tests_hold_their_level_within_and_between_subjects(contrast):
    p = _null()[1].moderate(contrast)["p"]
    assert abs(np.mean(p < 0.05) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 500)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_within_subjects_of_a_balanced_design_the_residual_variance_is_shrunk():
    data, many = _null()
    table, sigma2 = many.moderate("x"), many.sigma.to_numpy() ** 2
    interior = ~many.is_singular.to_numpy()
    unscaled = 1.0 / np.sum(data["x"] ** 2)
    assert_allclose(table["se"][interior] ** 2 / unscaled, sigma2[interior], rtol=1e-5)
    prior = table.attrs["prior"]
    own = many.fe_df["x"].to_numpy()
    expected = (prior["df"] * prior["variance"] + own * table["se"] ** 2 / unscaled) / (
        prior["df"] + own
    )
    assert_allclose(table["se_moderated"], np.sqrt(expected * unscaled), rtol=1e-9)
    assert_allclose(table["t"], table["estimate"] / table["se_moderated"])
    assert_allclose(table["p"], 2 * stats.t.sf(table["t"].abs(), table["df"]), rtol=1e-9)
    assert 4 < prior["df"] < 10


def test_the_unscaled_covariance_is_that_of_the_rows_a_model_has():
    many, L = many_maps.many(), np.eye(6)[[1, 3]]
    found = moderation.unscaled_covariances(many, L)
    X = many.work.design.X
    for place, lane in enumerate(many_maps.LANES[:4]):
        used = many_maps.responses()[lane].notna().to_numpy()
        assert_allclose(found[place], L @ np.linalg.inv(X[used].T @ X[used]) @ L.T, rtol=1e-9)
    assert np.isnan(found[5]).all()


def test_a_joint_test_shrinks_one_variance_for_all_rows():
    data, many = _null()
    doubled = data.assign(z=np.tile([-0.5, -0.5, 0.5, 0.5], 10))
    more = interlace.fit_many(
        "~ a + x + z + (1 | s)", doubled, responses=many.work.Y.read(0, 60), progress=False
    )
    table = more.moderate("x, z")
    assert list(table)[1:] == ["hypothesis", "F", "num_df", "den_df", "p", "p_adjusted", "df_prior"]
    interior = ~more.is_singular.to_numpy()
    sigma2, prior = more.sigma.to_numpy() ** 2, table.attrs["prior"]
    post = (prior["df"] * prior["variance"] + 28.0 * sigma2) / (prior["df"] + 28.0)
    plain = more.test("x, z")["F"]
    assert_allclose(table["F"][interior], (plain * sigma2 / post)[interior], rtol=1e-3)
    with pytest.raises(ValueError, match="differ by a factor of .* test them one by one"):
        more.moderate("a, x")


def test_top_has_the_strongest_first():
    many = _null()[1]
    whole = many.moderate("x")
    assert_allclose(many.top("x", 5)["p"], np.sort(whole["p"])[:5])
    assert_allclose(
        many.top("x", 5, sort="estimate")["estimate"].abs(),
        np.sort(whole["estimate"].abs())[::-1][:5],
    )
    with pytest.raises(ValueError, match="'p' or 'estimate' or 't'"):
        many.top("x", sort="B")


def test_variances_that_follow_the_mean_are_shrunk_towards_the_curve():
    data, many = _null()
    means = np.linspace(-3.0, 3.0, 500)
    Y = many.work.Y.read(0, 500) * np.exp(0.5 * means) + 10.0 * means
    more = interlace.fit_many("~ a + x + (1 | s)", data, responses=Y, progress=False)
    table = more.moderate("x", trend=True)
    slope = np.polyfit(means, np.log(table["variance_prior"]), 1)[0]
    assert abs(slope - 1.0) < 0.15  # standard error of the slope 0.03
    assert 4 < table.attrs["prior"]["df"] < 10
    assert abs(np.mean(table["p"] < 0.05) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 500)
    assert more.moderate("x").attrs["prior"]["df"] < 3  # one prior for all is a poor one
    prior, own = table.attrs["prior"]["df"], more.fe_df["x"].to_numpy()
    unscaled = 1.0 / np.sum(data["x"] ** 2)
    expected = (prior * table["variance_prior"] + own * table["se"] ** 2 / unscaled) / (prior + own)
    assert_allclose(table["se_moderated"], np.sqrt(expected * unscaled), rtol=1e-9)
    given = more.moderate("x", trend=moderation.mean_responses(more))
    assert_allclose(given["p"], table["p"])
    assert_allclose(moderation.mean_responses(more), more.work.Y.read(0, 500).mean(0), atol=1e-9)
    assert_allclose(more.top("x", 3, trend=True)["p"], np.sort(table["p"])[:3])
    with pytest.raises(ValueError, match="one number for each of the 500 models"):
        more.moderate("x", trend=[1.0, 2.0])


def test_a_few_wild_models_leave_the_others_as_they_are_in_a_robust_test():
    data, many = _null()
    Y = np.array(many.work.Y.read(0, 500))
    Y[:, :10] *= 30.0
    wild = interlace.fit_many("~ a + x + (1 | s)", data, responses=Y, progress=False)
    table = wild.moderate("x", robust=True)
    prior = table.attrs["prior"]["df"]
    assert prior > 1.5 * wild.moderate("x").attrs["prior"]["df"]
    assert (table["df_prior"][:10] < 0.3 * prior).all()
    assert table["df_prior"][10:].median() > 0.9 * prior
    assert abs(np.mean(table["p"] < 0.05) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 500)
    own = wild.fe_df["x"].to_numpy()
    assert_allclose(table["df"], own + table["df_prior"])
    assert_allclose(wild.top("x", 3, robust=True)["p"], np.sort(table["p"])[:3])


def test_too_few_models_teach_nothing():
    data, many = _null()
    two = interlace.fit_many("~ a + x + (1 | s)", data, responses=many.work.Y.read(0, 2))
    with pytest.raises(ValueError, match="moderation learns from many models"):
        two.moderate("x")
