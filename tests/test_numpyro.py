"""The distribution: its density, its draws and those of the effects against the dense normal."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose
from numpyro.infer.util import log_density
from scipy import stats

import interlace_jax as interlace
from interlace_jax.numpyro import MixedModel, theta_of

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
CODES, ITEM = np.arange(12) % 4, np.arange(12) // 4
Z = np.column_stack([np.ones(12), RNG.standard_normal(12)])
GROUPS = {"g": (CODES, Z), "item": ITEM}
THETA, SIGMA, LOC = np.array([0.9, 0.3, 0.5, 0.7]), 1.3, RNG.standard_normal(12)
Y = LOC + RNG.standard_normal(12)


def dense():
    """All effects' columns (n, q), and their covariance relative to sigma^2."""
    L = np.array([[0.9, 0.0], [0.3, 0.5]])
    columns = np.zeros((12, 4, 2))
    columns[np.arange(12), CODES] = Z
    G = np.zeros((11, 11))
    G[:8, :8], G[8:, 8:] = np.kron(np.eye(4), L @ L.T), 0.49 * np.eye(3)
    return np.hstack([columns.reshape(12, 8), np.eye(3)[ITEM]]), G


@pytest.fixture(scope="module")
def covariance():
    columns, G = dense()
    return SIGMA**2 * (np.eye(12) + columns @ G @ columns.T)


@pytest.fixture
def mixed():
    return MixedModel(LOC, GROUPS, THETA, SIGMA, validate_args=True)


def test_the_density_is_that_of_the_dense_normal(mixed, covariance):
    many = np.stack([Y, 2 * Y])
    expected = stats.multivariate_normal.logpdf(many, LOC, covariance)
    assert_allclose(quick_jit(mixed.log_prob)(many), expected, rtol=1e-11)


def test_codes_may_be_leaves_of_the_distribution(mixed):
    found = quick_jit(lambda mixed, y: mixed.log_prob(y))(mixed, Y)
    assert_allclose(found, quick_jit(mixed.log_prob)(Y), rtol=1e-12)


def test_draws_have_its_mean_and_covariance(mixed, covariance):
    drawn = np.asarray(quick_jit(mixed.sample, static_argnums=1)(jax.random.key(0), (4000,)))
    sd = np.sqrt(np.diag(covariance))
    # Five standard errors of 4,000 draws: there are 12 means and 78 covariances.
    assert np.all(np.abs(drawn.mean(0) - LOC) < 5 * sd / 4000**0.5)
    error = np.sqrt((covariance**2 + np.outer(sd, sd) ** 2) / 4000)
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 5 * error)


def test_effects_are_drawn_from_their_conditional_distribution(mixed, covariance):
    draw = quick_jit(jax.vmap(lambda key: mixed.draw_effects(key, jnp.asarray(Y))))
    b = draw(jax.random.split(jax.random.key(1), 4000))
    flat = np.concatenate([np.asarray(b[name]).reshape(4000, -1) for name in ("g", "item")], 1)
    columns, G = dense()
    gain = SIGMA**2 * G @ columns.T @ np.linalg.inv(covariance)
    C = SIGMA**2 * G - gain @ columns @ G * SIGMA**2
    sd = np.sqrt(np.diag(C))
    assert np.all(np.abs(flat.mean(0) - gain @ (Y - LOC)) < 5 * sd / 4000**0.5)
    error = np.sqrt((C**2 + np.outer(sd, sd) ** 2) / 4000)
    assert np.all(np.abs(np.cov(flat.T) - C) < 5 * error)


def test_a_model_has_the_density_and_gradient_of_moments_made_once():
    X = np.column_stack([np.ones(12), LOC])
    m = interlace.moments(Y, X, GROUPS)

    def parameters():
        beta = numpyro.sample("beta", dist.Normal(jnp.zeros(2), 10.0).to_event(1))
        sd = numpyro.sample("sd", dist.HalfNormal(jnp.ones(2)).to_event(1))
        corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        return beta, jnp.append(theta_of(sd, corr), 0.7), sigma

    def by_rows(y):
        beta, theta, sigma = parameters()
        numpyro.sample("y", MixedModel(X @ beta, GROUPS, theta, sigma), obs=y)

    def once(y):
        beta, theta, sigma = parameters()
        found = interlace.log_likelihood(theta, m, reml=False, sigma=sigma, beta=beta)
        numpyro.factor("y", found)

    corr = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    at = dict(beta=jnp.ones(2), sd=jnp.array([0.8, 0.4]), corr=corr, sigma=jnp.array(1.2))
    found, expected = (
        quick_jit(jax.value_and_grad(lambda at, model=model: log_density(model, (Y,), {}, at)[0]))(
            at
        )
        for model in (by_rows, once)
    )
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-9), found, expected)


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ValueError, match=r"loc has shape \(2, 12\)"):
        MixedModel(np.stack([LOC, LOC]), GROUPS, THETA, SIGMA)
    with pytest.raises(ValueError, match="levels that covary"):
        MixedModel(LOC, {"g": (CODES, None, interlace.Known(np.eye(4)))}, [1.0], SIGMA)
