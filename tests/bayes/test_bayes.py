"""The posterior as a function, and draws with names."""

import warnings

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from helpers.fits import fitted
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace
from interlace_jax.bayes.arviz import to_arviz
from interlace_jax.bayes.log_density import log_density

CODES = np.arange(12) % 4
Y = np.random.default_rng(0).standard_normal(12) + CODES


def log_prior(theta, sigma, beta):
    normal = jax.scipy.stats.norm.logpdf
    return normal(theta[0]) + normal(beta[0], 0.0, 10.0) + jax.scipy.stats.expon.logpdf(sigma)


@pytest.fixture(scope="module")
def density():
    with jax.enable_x64(True):
        return log_density(interlace.moments(Y, np.ones((12, 1)), {"g": CODES}), log_prior)


def test_it_is_the_joint_density_and_the_jacobian(density, x64):
    at = {"theta": jnp.array([0.8]), "log_sigma": jnp.log(1.3), "beta": jnp.array([1.5])}
    V = 1.69 * (np.eye(12) + 0.64 * (CODES[:, None] == CODES))
    expected = stats.multivariate_normal.logpdf(Y, np.full(12, 1.5), V)
    expected += stats.norm.logpdf(0.8) + stats.norm.logpdf(1.5, 0, 10) - 1.3 + np.log(1.3)
    assert_allclose(density(at), expected, rtol=1e-12)


def test_blackjax_samples_from_it(density, x64):
    """Means of 600 draws against those of quadrature over all three parameters."""
    start = {"theta": jnp.array([0.8]), "log_sigma": jnp.array(0.0), "beta": jnp.array([1.5])}
    kernel = blackjax.nuts(density, 0.3, jnp.ones(3))

    @quick_jit
    def chain(state, keys):
        return jax.lax.scan(lambda s, key: (kernel.step(key, s)[0],) * 2, state, keys)[1]

    found = chain(kernel.init(start), jax.random.split(jax.random.key(0), 700)).position
    grid = np.meshgrid(np.linspace(-4, 4, 41), np.linspace(-1.2, 1.5, 28), np.linspace(-4, 7, 34))
    theta, log_sigma, beta = map(np.ravel, grid)
    points = {"theta": theta[:, None], "log_sigma": log_sigma, "beta": beta[:, None]}
    weight = np.exp(quick_jit(jax.vmap(density))(points))
    weight /= weight.sum()
    kept = slice(100, None)
    for ours, values in (
        (np.abs(found["theta"][kept, 0]), np.abs(theta)),
        (found["log_sigma"][kept], log_sigma),
        (found["beta"][kept, 0], beta),
    ):
        mean = weight @ values
        sd = np.sqrt(weight @ (values - mean) ** 2)
        # Some 150 of 600 draws are worth an independent one: four standard errors.
        assert abs(float(np.mean(ours)) - mean) < 4 * sd / 150**0.5


def test_draws_have_the_names_of_factors_and_levels():
    rng = np.random.default_rng(0)
    samples, effects = {"sigma": rng.standard_normal(20)}, {"g": rng.standard_normal((20, 3, 2))}
    found = to_arviz(
        samples,
        effects,
        levels={"g": ["a", "b", "c"]},
        columns={"g": ["(Intercept)", "x"]},
        observed=Y,
        log_likelihood={"by_row": rng.standard_normal((20, 12))},
        chains=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
        data = arviz.from_dict(**found)
    b = data.posterior["b_g"]
    assert b.dims == ("chain", "draw", "g", "g_effect")
    assert float(b.sel(chain=1, draw=3, g="c", g_effect="x")) == effects["g"][13, 2, 1]
    assert data.log_likelihood["by_row"].shape == (2, 10, 12)
    with pytest.raises(ValueError, match="20 draws are no whole number for each of 3 chains"):
        to_arviz(samples, chains=3)


def test_replicates_of_the_bootstrap_are_draws():
    boot = fitted("sleepstudy_slope_REML").bootstrap(20, seed=0)
    posterior = to_arviz(boot)["posterior"]
    assert list(posterior) == list(boot.estimates)
    assert posterior["sigma"].shape == (1, 20)
