"""The layer of an Equinox network: its numbers are those of the functions below it, its leaves live
as others do.
"""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.grouped_rows import dense_conditional, dense_nll
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace
from interlace_jax.eqx import GeneralizedRandomEffects, RandomEffects, decayed
from interlace_jax.layers import laplace

CODES = np.arange(24) % 6
X = np.random.default_rng(0).standard_normal(24).astype(np.float32)
Y = X + np.random.default_rng(1).standard_normal(24).astype(np.float32)


class Model(eqx.Module):
    net: eqx.nn.Linear
    effects: RandomEffects

    def residual(self):
        return Y - jax.vmap(self.net)(X[:, None])[:, 0]

    def loss(self):
        return self.effects.nll(self.residual(), {"g": CODES}) / len(Y)


def fresh(seed=0):
    return Model(eqx.nn.Linear(1, 1, key=jax.random.key(seed)), RandomEffects({"g": 8}))


def trained(decay, steps):
    """A model after some steps of AdamW, and how often the step was traced."""
    model, adam, traces = fresh(), optax.adamw(0.1, weight_decay=decay, mask=decayed), []
    state = adam.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        traces.append(None)
        loss, grad = eqx.filter_value_and_grad(Model.loss)(model)
        updates, state = adam.update(grad, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(steps):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    return model, losses, len(traces)


@pytest.fixture(scope="module")
def model():
    return trained(0.0, 5)


def test_training_lowers_the_loss_in_one_program(model):
    _, losses, traces = model
    assert losses == sorted(losses, reverse=True)
    assert traces == 1


def test_weight_decay_leaves_the_covariance_alone():
    with_decay, without = (trained(decay, 1)[0] for decay in (1.0, 0.0))
    assert_array_equal(with_decay.effects.raw, without.effects.raw)
    assert_array_equal(with_decay.effects.log_sigma, without.effects.log_sigma)
    assert not np.array_equal(with_decay.net.weight, without.net.weight)


def test_the_numbers_are_those_of_the_dense_distribution(model):
    layer, r = model[0].effects, np.asarray(model[0].residual(), float)
    dense = layer.factors, np.asarray(layer.raw, float), float(layer.sigma), r, {"g": CODES}, None
    assert_allclose(layer.nll(r, {"g": CODES}), dense_nll(*dense), rtol=1e-5)
    state = layer.condition(r, {"g": CODES})
    mean, variance = layer(state, {"g": np.array([0, 7, -1])})
    b, C = dense_conditional(*dense)
    prior = float(layer.priors()["g"][0, 0])
    assert_allclose(mean, [b[0], 0.0, 0.0], rtol=1e-4, atol=1e-6)
    assert_allclose(variance, [C[0, 0], prior, prior], rtol=1e-4)
    assert_allclose(layer(None, {"g": np.array([0])})[1], prior, rtol=1e-5)
    assert layer.draw(jax.random.key(0), r, {"g": CODES})["g"].shape == (8, 1)


def test_it_starts_from_the_size_of_the_residuals():
    layer = RandomEffects({"g": 6}).start(np.array([3.0, -3.0, np.nan]), np.array([1.0, 1.0, 0.0]))
    assert_allclose(layer.sigma, 3.0, rtol=1e-6)


def test_a_saved_model_and_its_blups_come_back(model, tmp_path):
    model = model[0]
    state = model.effects.condition(model.residual(), {"g": CODES})
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", (model, state))
    empty = jax.tree.map(jnp.zeros_like, state)
    again, blups = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", (fresh(1), empty))
    assert eqx.tree_equal(again, model) and eqx.tree_equal(blups, state)


def test_several_responses_in_a_batch(model):
    layer, r = model[0].effects, jnp.stack([model[0].residual(), 2 * model[0].residual()])
    found = eqx.filter_vmap(lambda r: layer.nll(r, {"g": CODES}))(r)
    assert_allclose(found, [layer.nll(row, {"g": CODES}) for row in r], rtol=1e-6)


def test_a_formula_makes_the_layer_whose_likelihood_is_that_of_the_fit():
    sleep = interlace.load_dataset("sleepstudy")
    fit = interlace.fit("Reaction ~ Days + (1 + Days | Subject)", sleep, method="ML")
    layer, encode = RandomEffects.from_formula("(1 + Days | Subject)", sleep)
    raw = layer.factors.raw(jnp.asarray(fit.theta, jnp.float32))
    layer = eqx.tree_at(lambda at: (at.raw, at.log_sigma), layer, (raw, jnp.log(fit.sigma)))
    residual = sleep["Reaction"].to_numpy() - fit.predict(include_re=False).to_numpy()
    assert_allclose(layer.nll(residual, *encode(sleep)), fit.deviance / 2, rtol=1e-5)
    state = layer.condition(residual, *encode(sleep))
    assert_allclose(state.modes["Subject"], fit.random_effects["Subject"], rtol=2e-3, atol=1e-2)


def test_a_layer_with_a_family_has_the_numbers_of_the_functions_below_it():
    layer, family = GeneralizedRandomEffects({"g": 8}), interlace.Bernoulli()
    y, g = (Y > 0).astype(float), {"g": CODES}
    rows = laplace.read_answers(layer.factors, X, y, g)
    assert_allclose(
        eqx.filter_jit(layer.nll)(X, y, g, scale=2.0),
        2 * laplace.nll(layer.raw, layer.factors, family, rows),
        rtol=1e-6,
    )
    state = layer.condition(X, y, g)
    mean, variance = layer(state, {"g": np.array([0, -1])})
    assert_allclose(mean, [state.modes["g"][0, 0], 0.0], rtol=1e-6)
    assert_allclose(variance, [state.covariances["g"][0, 0, 0], 1.0], rtol=1e-6)
    assert jax.tree.leaves(decayed(layer)) == [False]


def test_the_package_needs_neither_framework():
    code = (
        "import sys; sys.modules['flax'] = sys.modules['equinox'] = None\n"
        "import importlib, interlace_jax\n"
        "for name in ('nnx', 'eqx'):\n"
        "    try: importlib.import_module(f'interlace_jax.{name}')\n"
        "    except ImportError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "interlace_jax.nnx needs flax" in done.stdout
    assert "interlace_jax.eqx needs equinox" in done.stdout
