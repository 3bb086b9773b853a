"""Priors of variances: the published formulas, and what was put in is found again."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, optimize, special, stats

from interlace_jax.maps import priors
from interlace_jax.maps.priors import Prior


def _variances(d0, df, n=4000, seed=0):
    rng = np.random.default_rng(seed)
    tau = d0 / rng.chisquare(d0, n)
    return 2.0 * tau * rng.chisquare(df, n) / df


@pytest.mark.parametrize("x", [1e-4, 0.3, 2.0, 500.0])
def test_trigamma_is_inverted(x):
    assert_allclose(special.polygamma(1, priors.trigamma_inverse(x)), x, rtol=1e-9)


def test_the_prior_that_was_put_in_is_found_again():
    df = np.random.default_rng(1).choice([4.0, 9.0, 20.0], 4000)
    variances = _variances(6.0, df)
    for prior in (
        priors.prior_by_moments(variances, df),
        priors.prior_by_likelihood(variances, df),
    ):
        assert_allclose(prior, [6.0, 2.0], rtol=0.12)  # standard errors: 0.25 of d0, 0.02 of v0


def test_the_likelihood_is_that_of_f_ratios_and_has_its_maximum_there():
    df = np.tile([3.0, 8.0], 30)
    variances = _variances(5.0, df, 60)
    prior = priors.prior_by_likelihood(variances, df)

    def brute(x):
        d0, v0 = np.exp(x)
        return -np.sum(stats.f.logpdf(variances / v0, df, d0) - np.log(v0))

    best = optimize.minimize(
        brute, np.log([4.0, 1.5]), method="Nelder-Mead", options=dict(xatol=1e-8, fatol=1e-10)
    )
    assert_allclose(np.log(prior), best.x, atol=1e-3)
    other = Prior(9.0, 1.3)
    ours = priors.log_likelihood(prior, variances, df) - priors.log_likelihood(other, variances, df)
    assert_allclose(ours, brute(np.log(other)) - brute(np.log(prior)), rtol=1e-8)


def test_a_prior_that_follows_the_mean_is_found_and_is_the_most_likely_one():
    rng = np.random.default_rng(4)
    df, x = rng.choice([4.0, 9.0, 20.0], 4000), rng.normal(size=4000)
    variances = _variances(6.0, df) * np.exp(0.8 * x)
    B = priors.spline_basis(x, x)
    prior = priors.prior_by_likelihood(variances, df, B)
    assert_allclose(prior.df, 6.0, rtol=0.12)  # standard error 0.25
    # of log v0: 0.05 in the middle, and more where there are few models
    inside = np.abs(x) < 2.0
    assert_allclose(np.log(prior.variance)[inside], (np.log(2.0) + 0.8 * x)[inside], atol=0.2)
    few, known = slice(0, 60), (variances[:60], df[:60])
    small = priors.prior_by_likelihood(*known, B[few])

    def brute(y):
        v0 = np.exp(B[few] @ y[1:])
        return -np.sum(stats.f.logpdf(known[0] / v0, known[1], np.exp(y[0])) - np.log(v0))

    gamma = np.linalg.lstsq(B[few], np.log(small.variance))[0]
    at = np.append(np.log(small.df), gamma)
    slopes = optimize.approx_fprime(at, brute, 1e-6)
    assert np.abs(slopes).max() < 1e-3  # of a sum of 60; differences are good to 1e-5
    assert optimize.minimize(brute, at, method="Nelder-Mead").fun > brute(at) - 1e-6


def test_variances_of_very_different_sizes_have_the_curve_of_a_gamma_regression():
    rng, df = np.random.default_rng(3), np.full(400, 5.0)
    variances = rng.chisquare(5.0, 400)
    variances[:30] *= 1e4
    B = priors.spline_basis(np.arange(400.0), np.arange(400.0))
    fitted = np.exp(B @ priors._pooled(variances, df, B))
    assert_allclose(B.T @ (variances / fitted - 1.0), 0.0, atol=1e-9)  # the score equations


def test_splines_are_natural_and_level_outside():
    x = np.linspace(0.0, 3.0, 40)
    B = priors.spline_basis(np.array([-1.0, 0.0, 1.0, 3.0, 9.0]), x)
    assert_allclose(B[[0, 1]], [[1, 0, 0, 0]] * 2, atol=1e-12)
    assert_allclose(B[2], [0, 1, 0, 0], atol=1e-12)
    assert_allclose(B[[3, 4]], [[0, 0, 0, 1]] * 2, atol=1e-12)
    inner = np.linspace(0.0, 3.0, 7)
    B = priors.spline_basis(inner, x)
    assert_allclose(B @ [0, 1, 2, 3], inner, atol=1e-12)  # a line is one of them
    assert_allclose(priors.spline_basis(x, np.ones(9)), np.ones((40, 1)))
    assert priors.spline_basis(x, x[:4]).shape == (40, 2)


def test_variances_that_are_all_one_have_an_infinite_prior():
    rng = np.random.default_rng(0)
    df = np.full(300, 400.0)
    variances = 3.0 * np.exp(rng.normal(scale=0.03, size=300))  # less spread than chi-square has
    for prior in (
        priors.prior_by_moments(variances, df),
        priors.prior_by_likelihood(variances, df),
    ):
        assert np.isinf(prior.df)
        assert_allclose(prior.variance, variances.mean())
    posterior, total = priors.squeezed(
        np.array([1.0, np.nan]), np.array([5.0, np.nan]), Prior(np.inf, 3.0)
    )
    assert (
        posterior[0] == 3.0 and np.isinf(total[0]) and np.isnan(posterior[1]) and np.isnan(total[1])
    )


def test_four_variances_are_squeezed_as_published():
    # Smyth (2004), eq. 3: (d0 s0^2 + d s^2) / (d0 + d).
    posterior, total = priors.squeezed(
        np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 4, 4]), Prior(4.0, 2.0)
    )
    assert_allclose(posterior, [10 / 6, 12 / 6, 20 / 8, 24 / 8])
    assert_allclose(total, [6, 6, 8, 8])


@pytest.mark.parametrize("d0", [6.0, np.inf])
def test_winsorised_moments_are_those_of_the_density(d0):
    law = stats.f(4.0, d0) if np.isfinite(d0) else stats.chi2(4.0, scale=0.25)
    low, high = np.log(law.ppf(priors.WINSORISED))

    def expected(g):
        inside = integrate.quad(lambda z: g(z) * law.pdf(np.exp(z)) * np.exp(z), low, high)[0]
        return priors.WINSORISED[0] * g(low) + inside + (1 - priors.WINSORISED[1]) * g(high)

    mean = expected(lambda z: z)
    spread = expected(lambda z: (z - mean) ** 2)
    assert_allclose(priors.winsorised_moments(4.0, d0), [mean, spread], rtol=1e-6)


def test_a_few_wild_variances_do_not_move_a_robust_prior():
    df = np.random.default_rng(1).choice([4.0, 9.0, 20.0], 4000)
    variances = _variances(6.0, df)
    clean = priors.robust_prior(variances, df)
    assert_allclose(clean.prior, [6.0, 2.0], rtol=0.2)  # twice the error of the likelihood's
    assert np.mean(clean.df < 0.5 * clean.prior.df) < 0.01
    wild = variances.copy()
    wild[:80] *= 300.0
    found = priors.robust_prior(wild, df)
    assert_allclose(found.prior, [6.0, 2.0], rtol=0.25)
    assert priors.prior_by_likelihood(wild, df).df < 3.5
    assert np.median(found.df[:80]) < 0.2 * found.prior.df
    assert_allclose(np.median(found.df[80:]), found.prior.df, rtol=0.1)
    # the more extreme a variance is, the less it is shrunk
    share = stats.f.sf(wild / found.prior.variance, df, found.prior.df)
    assert (np.diff(found.df[np.argsort(share)]) >= -1e-9).all()
    curve = priors.spline_basis(np.arange(4000.0), np.arange(4000.0))
    followed = priors.robust_prior(wild, df, curve, curve[:3])
    assert followed.prior.variance.shape == (3,) and followed.df.shape == (4000,)


def test_a_robust_prior_of_equal_variances_is_infinite_but_for_the_wild_one():
    df = np.full(300, 400.0)
    variances = 3.0 * np.random.default_rng(0).chisquare(400.0, 300) / 400.0
    variances[7] = 30.0
    found = priors.robust_prior(variances, df)
    assert np.isinf(found.prior.df) and (np.delete(found.df, 7) > 1e4).all()
    assert_allclose(found.prior.variance, 3.0, rtol=0.02)
    assert found.df[7] < 2.0
    posterior, total = priors.squeezed(variances, df, found.prior._replace(df=found.df))
    assert posterior[7] > 25.0 and np.isfinite(total[7])
    assert_allclose(posterior[np.isinf(found.df)], found.prior.variance)
