"""Layers with a family, against Laplace's approximation written out densely, and a formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from helpers.grouped_rows import classes_in_schools, dense_effects, random_raw
from numpy.testing import assert_allclose
from scipy.special import gammaln

import interlace_jax as interlace
from interlace_jax.layers import laplace
from interlace_jax.layers.factors import Factors

pytestmark = pytest.mark.usefixtures("x64")
FAMILIES = {"bernoulli": interlace.Bernoulli(), "poisson": interlace.Poisson()}


def rows(name):
    """Factors, raw, predictor, y, groups and features of a nested and crossed design."""
    factors, eta, groups, features = classes_in_schools()
    rng = np.random.default_rng(5)
    mean = 1 / (1 + np.exp(-eta)) if name == "bernoulli" else np.exp(0.5 * eta)
    y = rng.binomial(1, mean) if name == "bernoulli" else rng.poisson(mean)
    return factors, random_raw(factors), 0.7 * eta, y.astype(float), groups, features


def dense(name, factors, raw, eta, y, groups, features):
    """-log L, and the modes (q,) with their covariance (q, q), by Newton's method."""
    Z, G = dense_effects(factors, raw, groups, features)
    precision, b = np.linalg.inv(G), np.zeros(Z.shape[1])
    for _ in range(50):
        at = eta + Z @ b
        if name == "bernoulli":
            mean = 1 / (1 + np.exp(-at))
            W, value = mean * (1 - mean), y * at - np.logaddexp(0, at)
        else:
            mean = W = np.exp(at)
            value = y * at - mean - gammaln(y + 1)
        H = Z.T @ (W[:, None] * Z) + precision
        b = b + np.linalg.solve(H, Z.T @ (y - mean) - precision @ b)
    logdet = np.linalg.slogdet(H)[1] + np.linalg.slogdet(G)[1]
    return -value.sum() + 0.5 * b @ precision @ b + 0.5 * logdet, b, np.linalg.inv(H)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_laplaces_approximation_with_its_gradient(name):
    factors, raw, eta, *rest = rows(name)

    def loss(raw, eta):
        read = laplace.read_answers(factors, eta, *rest)
        return laplace.nll(raw, factors, FAMILIES[name], read)

    value, slopes = quick_jit(jax.value_and_grad(loss, argnums=(0, 1)))(raw, jnp.asarray(eta))
    assert_allclose(value, dense(name, factors, raw, eta, *rest)[0], rtol=1e-10)
    rng = np.random.default_rng(0)
    for j, (slope, at) in enumerate(zip(slopes, (raw, eta), strict=True)):
        along, ends = rng.standard_normal(at.shape), []
        for s in (1e-4, -1e-4):
            moved = [raw, eta]
            moved[j] = moved[j] + s * along
            ends.append(dense(name, factors, *moved, *rest)[0])
        assert_allclose(np.vdot(slope, along), (ends[0] - ends[1]) / 2e-4, rtol=1e-5)


def test_modes_and_covariances_are_those_of_newtons_method():
    factors, raw, eta, *rest = rows("bernoulli")
    read = laplace.read_answers(factors, eta, *rest)
    state = laplace.condition(raw, factors, FAMILIES["bernoulli"], read)
    _, b, C = dense("bernoulli", factors, raw, eta, *rest)
    at = 0
    for name, m, k in zip(factors.names, factors.levels, factors.columns, strict=True):
        own = slice(at, at + m * k)
        assert_allclose(state.modes[name].ravel(), b[own], rtol=1e-7, atol=1e-9)
        blocks = C[own, own].reshape(m, k, m, k)[np.arange(m), :, np.arange(m)]
        assert_allclose(state.covariances[name], blocks, rtol=1e-7, atol=1e-9)
        at += m * k


def test_padding_and_unseen_ids_change_nothing():
    factors, family = Factors.of({"g": 4}), FAMILIES["bernoulli"]
    eta, y, g = np.zeros(8), np.arange(8) % 2, np.arange(8) % 4
    whole = laplace.nll(
        np.zeros(1), factors, family, laplace.read_answers(factors, eta, y, {"g": g})
    )
    more = np.append(eta, [np.nan, 0.3]), np.append(y, [1, 1]), {"g": np.append(g, [2, 9])}
    read = laplace.read_answers(factors, *more, None, np.append(np.ones(8), [0.0, 1.0]))
    assert_allclose(laplace.nll(np.zeros(1), factors, family, read), whole, rtol=1e-12)


def test_it_is_the_likelihood_of_a_formula():
    frame = interlace.load_dataset("cbpp").loc[lambda d: d.index.repeat(3)].reset_index(drop=True)
    frame["ill"] = (np.arange(len(frame)) % 5 < 2).astype(float)
    model = interlace.compile("ill ~ 1 + (1 | herd)", frame, family=interlace.Bernoulli())
    codes = np.unique(frame["herd"], return_inverse=True)[1]
    factors = Factors.of({"herd": codes.max() + 1})
    read = laplace.read_answers(factors, np.full(len(frame), -0.3), frame["ill"], {"herd": codes})
    found = laplace.nll(np.log([0.8]), factors, FAMILIES["bernoulli"], read)
    assert_allclose(found, -model.loglik(np.array([0.8]), np.array([-0.3])), rtol=1e-9)


def test_families_with_numbers_of_their_own_are_refused():
    with pytest.raises(ValueError, match="Bernoulli and Poisson with any link so far, not 'gamma'"):
        laplace.check_family(interlace.Gamma())
    with pytest.raises(TypeError, match="family is a distribution such as"):
        laplace.check_family("bernoulli")
