"""Moderated statistics: the published formulas, the prior that was put in, and the right rates
under the null.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers import many_maps
from numpy.testing import assert_allclose
from scipy import optimize, special, stats

import interlace_jax as interlace
from interlace_jax.maps import moderation
from interlace_jax.maps.moderation import Prior


def _variances(d0, df, n=4000, seed=0):
    rng = np.random.default_rng(seed)
    tau = d0 / rng.chisquare(d0, n)
    return 2.0 * tau * rng.chisquare(df, n) / df


@pytest.mark.parametrize("x", [1e-4, 0.3, 2.0, 500.0])
def test_trigamma_is_inverted(x):
    assert_allclose(special.polygamma(1, moderation.trigamma_inverse(x)), x, rtol=1e-9)


def test_the_prior_that_was_put_in_is_found_again():
    df = np.random.default_rng(1).choice([4.0, 9.0, 20.0], 4000)
    variances = _variances(6.0, df)
    for prior in (
        moderation.prior_by_moments(variances, df),
        moderation.prior_by_likelihood(variances, df),
    ):
        assert_allclose(prior, [6.0, 2.0], rtol=0.12)  # standard errors: 0.25 of d0, 0.02 of v0


def test_the_likelihood_is_that_of_f_ratios_and_has_its_maximum_there():
    df = np.tile([3.0, 8.0], 30)
    variances = _variances(5.0, df, 60)
    prior = moderation.prior_by_likelihood(variances, df)

    def brute(x):
        d0, v0 = np.exp(x)
        return -np.sum(stats.f.logpdf(variances / v0, df, d0) - np.log(v0))

    best = optimize.minimize(
        brute, np.log([4.0, 1.5]), method="Nelder-Mead", options=dict(xatol=1e-8, fatol=1e-10)
    )
    assert_allclose(np.log(prior), best.x, atol=1e-3)
    other = Prior(9.0, 1.3)
    ours = moderation.log_likelihood(prior, variances, df) - moderation.log_likelihood(
        other, variances, df
    )
    assert_allclose(ours, brute(np.log(other)) - brute(np.log(prior)), rtol=1e-8)


def test_a_prior_that_follows_the_mean_is_found_and_is_the_most_likely_one():
    rng = np.random.default_rng(4)
    df, x = rng.choice([4.0, 9.0, 20.0], 4000), rng.normal(size=4000)
    variances = _variances(6.0, df) * np.exp(0.8 * x)
    B = moderation.spline_basis(x, x)
    prior = moderation.prior_by_likelihood(variances, df, B)
    assert_allclose(prior.df, 6.0, rtol=0.12)  # standard error 0.25
    # of log v0: 0.05 in the middle, and more where there are few models
    inside = np.abs(x) < 2.0
    assert_allclose(np.log(prior.variance)[inside], (np.log(2.0) + 0.8 * x)[inside], atol=0.2)
    few, known = slice(0, 60), (variances[:60], df[:60])
    small = moderation.prior_by_likelihood(*known, B[few])

    def brute(y):
        v0 = np.exp(B[few] @ y[1:])
        return -np.sum(stats.f.logpdf(known[0] / v0, known[1], np.exp(y[0])) - np.log(v0))

    gamma = np.linalg.lstsq(B[few], np.log(small.variance))[0]
    at = np.append(np.log(small.df), gamma)
    slopes = optimize.approx_fprime(at, brute, 1e-6)
    assert np.abs(slopes).max() < 1e-3  # of a sum of 60; differences are good to 1e-5
    assert optimize.minimize(brute, at, method="Nelder-Mead").fun > brute(at) - 1e-6


def test_splines_are_natural_and_level_outside():
    x = np.linspace(0.0, 3.0, 40)
    B = moderation.spline_basis(np.array([-1.0, 0.0, 1.0, 3.0, 9.0]), x)
    assert_allclose(B[[0, 1]], [[1, 0, 0, 0]] * 2, atol=1e-12)
    assert_allclose(B[2], [0, 1, 0, 0], atol=1e-12)
    assert_allclose(B[[3, 4]], [[0, 0, 0, 1]] * 2, atol=1e-12)
    inner = np.linspace(0.0, 3.0, 7)
    B = moderation.spline_basis(inner, x)
    assert_allclose(B @ [0, 1, 2, 3], inner, atol=1e-12)  # a line is one of them
    assert_allclose(moderation.spline_basis(x, np.ones(9)), np.ones((40, 1)))
    assert moderation.spline_basis(x, x[:4]).shape == (40, 2)


def test_variances_that_are_all_one_have_an_infinite_prior():
    rng = np.random.default_rng(0)
    df = np.full(300, 400.0)
    variances = 3.0 * np.exp(rng.normal(scale=0.03, size=300))  # less spread than chi-square has
    for prior in (
        moderation.prior_by_moments(variances, df),
        moderation.prior_by_likelihood(variances, df),
    ):
        assert np.isinf(prior.df)
        assert_allclose(prior.variance, variances.mean())
    posterior, total = moderation.squeezed(
        np.array([1.0, np.nan]), np.array([5.0, np.nan]), Prior(np.inf, 3.0)
    )
    assert (
        posterior[0] == 3.0 and np.isinf(total[0]) and np.isnan(posterior[1]) and np.isnan(total[1])
    )


def test_four_variances_are_squeezed_as_published():
    # Smyth (2004), eq. 3: (d0 s0^2 + d s^2) / (d0 + d).
    posterior, total = moderation.squeezed(
        np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 4, 4]), Prior(4.0, 2.0)
    )
    assert_allclose(posterior, [10 / 6, 12 / 6, 20 / 8, 24 / 8])
    assert_allclose(total, [6, 6, 8, 8])


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


def test_too_few_models_teach_nothing():
    data, many = _null()
    two = interlace.fit_many("~ a + x + (1 | s)", data, responses=many.work.Y.read(0, 2))
    with pytest.raises(ValueError, match="moderation learns from many models"):
        two.moderate("x")
