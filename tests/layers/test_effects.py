"""The functions that both layers are made of, against the dense normal distribution of the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from helpers.grouped_rows import classes_in_schools, dense_conditional, dense_nll, random_raw
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.layers import effects
from interlace_jax.layers.effects import Parameters, read_rows
from interlace_jax.layers.factors import Factors

pytestmark = pytest.mark.usefixtures("x64")
SIGMA = 0.7
gradient = quick_jit(jax.value_and_grad(effects.nll), static_argnums=1)


@pytest.fixture(scope="module")
def case():
    """Factors, parameters and rows of a nested and crossed design; raw, residual, groups and
    features as NumPy.
    """
    factors, *rows = classes_in_schools()
    raw = random_raw(factors)
    with jax.enable_x64(True):
        read = read_rows(factors, *rows)
    return factors, Parameters(raw, np.log(SIGMA)), read, (raw, SIGMA, *rows)


def test_it_is_the_density_of_the_rows(case):
    factors, parameters, rows, dense = case
    assert_allclose(effects.nll(parameters, factors, rows), dense_nll(factors, *dense), rtol=1e-12)


def test_its_gradient_is_that_of_differences(case):
    factors, parameters, rows, (raw, sigma, *arrays) = case
    found = gradient(parameters, factors, rows)[1]
    for j in range(factors.size):
        step = 1e-5 * (np.arange(factors.size) == j)
        ends = [dense_nll(factors, raw + s * step, sigma, *arrays) for s in (1, -1)]
        # Differences of values of size 50 by steps of 1e-5 are good to about 1e-9.
        assert_allclose(found.raw[j], (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-7)
    ends = [dense_nll(factors, raw, sigma * np.exp(s * 1e-5), *arrays) for s in (1, -1)]
    assert_allclose(found.log_sigma, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_modes_and_their_covariances_are_those_of_the_conditional_distribution(case):
    factors, parameters, rows, dense = case
    state = effects.condition(parameters, factors, rows)
    mean, cov = dense_conditional(factors, *dense)
    at = 0
    for name, m, k in zip(factors.names, factors.levels, factors.columns, strict=True):
        own = slice(at, at + m * k)
        blocks = cov[own, own].reshape(m, k, m, k)[np.arange(m), :, np.arange(m)]
        assert_allclose(state.modes[name].ravel(), mean[own], rtol=1e-9, atol=1e-12)
        assert_allclose(state.covariances[name], blocks, rtol=1e-9, atol=1e-12)
        at += m * k


def test_padding_unseen_ids_and_the_order_of_codes_change_nothing(case):
    factors, parameters, rows, _ = case
    value, slope = gradient(parameters, factors, rows)
    nan, unknown = np.full(3, np.nan), np.array([-1, 99, 2])
    padded = read_rows(
        factors,
        np.r_[rows.residual, nan],
        {name: np.r_[codes, unknown] for name, codes in rows.groups.items()},
        {"class": np.r_[rows.features["class"], nan[:, None]]},
        np.r_[np.ones(30), np.zeros(3)],
    )
    again = gradient(parameters, factors, padded)
    assert_allclose(again[0], value, rtol=1e-13)
    assert_allclose(again[1].raw, slope.raw, rtol=1e-11)
    unseen = padded._replace(
        residual=jnp.nan_to_num(padded.residual),
        features=jax.tree.map(jnp.nan_to_num, padded.features),
        groups={**padded.groups, "item": np.r_[rows.groups["item"], -1, -1, -1]},
        mask=np.ones(33),
    )
    assert_allclose(effects.nll(parameters, factors, unseen), value, rtol=1e-13)
    turned = rows._replace(groups={**rows.groups, "item": 3 - rows.groups["item"]})
    assert_allclose(effects.nll(parameters, factors, turned), value, rtol=1e-13)


def test_a_prediction_is_the_conditional_mean_and_the_prior_of_what_is_unseen(case):
    _, _, rows, _ = case
    factors = Factors.of({"class": 7}, {"class": 1})
    parameters, codes = Parameters(random_raw(factors), np.log(SIGMA)), rows.groups["class"]
    mine = {"class": codes}, rows.features
    state = effects.condition(parameters, factors, read_rows(factors, rows.residual, *mine))
    mean, cov = dense_conditional(factors, parameters.raw, SIGMA, rows.residual, *mine)
    new = {"class": np.array([0, 6, -1, 7])}, {"class": np.array([0.5, 0.5, -2.0, 0.5])}
    found, variance = effects.predict(parameters, factors, state, *new)
    z = np.array([1.0, 0.5])
    prior = effects.priors(parameters, factors)["class"]
    far = np.array([1.0, -2.0])
    assert_allclose(found, [z @ mean[:2], 0, 0, 0], rtol=1e-9, atol=1e-12)
    assert_allclose(
        variance, [z @ cov[:2, :2] @ z, z @ prior @ z, far @ prior @ far, z @ prior @ z], rtol=1e-9
    )
    before = effects.predict(parameters, factors, effects.prior_state(parameters, factors), *new)[1]
    assert_allclose(before[0], z @ prior @ z, rtol=1e-12)


def test_draws_have_the_conditional_mean_and_covariance(case):
    _, _, rows, _ = case
    factors = Factors.of({"class": 6, "item": 4})
    groups = {name: rows.groups[name] for name in factors.names}
    parameters = Parameters(random_raw(factors), np.log(SIGMA))
    mine = read_rows(factors, rows.residual, groups)
    draw = quick_jit(jax.vmap(lambda key: effects.draw(key, parameters, factors, mine)))
    drawn = draw(jax.random.split(jax.random.key(0), 2000))
    flat = np.concatenate([np.asarray(drawn[name]).reshape(2000, -1) for name in factors.names], 1)
    mean, cov = dense_conditional(factors, parameters.raw, SIGMA, rows.residual, groups, None)
    sd = np.sqrt(np.diag(cov))
    # Four standard errors of 10 means, and of 55 covariances, of 2,000 draws.
    assert np.all(np.abs(flat.mean(0) - mean) < 4 * sd / 2000**0.5)
    error = np.sqrt((cov**2 + np.outer(sd, sd) ** 2) / 2000)
    assert np.all(np.abs(np.cov(flat.T) - cov) < 4 * error)


def test_responses_in_a_batch_are_a_loop(case):
    factors, parameters, rows, _ = case
    many = np.stack([rows.residual, 2 * rows.residual])
    at = jax.vmap(lambda r: effects.nll(parameters, factors, rows._replace(residual=r)))(many)
    assert_allclose(
        at, [effects.nll(parameters, factors, rows._replace(residual=r)) for r in many], rtol=1e-12
    )


def test_one_program_serves_all_codes_of_a_length(case):
    factors, parameters, rows, _ = case
    traces = []

    @quick_jit
    def loss(parameters, rows):
        traces.append(None)
        return effects.nll(parameters, factors, rows)

    for shift in range(3):
        loss(parameters, rows._replace(groups={n: (c + shift) % 3 for n, c in rows.groups.items()}))
    assert len(traces) == 1


def test_features_may_come_from_a_network(case):
    factors, parameters, rows, dense = case
    loss = jax.grad(
        lambda x: effects.nll(parameters, factors, rows._replace(features={"class": x}))
    )
    slope = quick_jit(loss)(rows.features["class"])
    ends = []
    for s in (1, -1):
        moved = np.array(rows.features["class"])
        moved[4] += s * 1e-5
        ends.append(dense_nll(factors, *dense[:4], {"class": moved}))
    assert_allclose(slope[4, 0], (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)


def test_single_precision_is_good_to_five_digits(case):
    factors, parameters, rows, dense = case
    with jax.enable_x64(False):
        rows = read_rows(factors, *dense[2:])
        found = effects.nll(parameters, factors, rows)
        assert found.dtype == jnp.float32
        assert_allclose(found, dense_nll(factors, *dense), rtol=1e-5)


def test_many_lengths_of_batches_are_warned_of_once():
    factors = Factors.of({"length": 2})
    loss = jax.jit(
        lambda r, codes: effects.nll(
            effects.start(factors), factors, read_rows(factors, r, {"length": codes})
        )
    )
    with pytest.warns(UserWarning, match="9 different numbers of rows: pad batches"):
        for n in range(1, 10):
            jax.eval_shape(loss, np.zeros(n), np.zeros(n, int))
    jax.eval_shape(loss, np.zeros(10), np.zeros(10, int))


def test_a_batch_of_padding_alone_is_worth_nothing():
    factors = Factors.of({"g": 2})
    rows = read_rows(factors, np.full(3, np.nan), {"g": np.full(3, -1)}, None, np.zeros(3))
    value, slope = gradient(effects.start(factors), factors, rows)
    assert value == 0.0
    assert_array_equal(slope.raw, 0.0)
