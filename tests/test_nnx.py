"""The layer of a Flax network: its numbers are those of the functions below it, its parameters live
as others do.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from helpers.grouped_rows import dense_conditional, dense_nll
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax import Poisson
from interlace_jax.layers import laplace
from interlace_jax.nnx import Covariance, GeneralizedRandomEffects, RandomEffects, decayed

CODES = np.arange(24) % 6
X = np.random.default_rng(0).standard_normal(24)
Y = (
    2 * X
    + np.random.default_rng(1).standard_normal(6)[CODES]
    + 0.3 * np.random.default_rng(2).standard_normal(24)
)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.out = nnx.Linear(1, 1, rngs=rngs)
        self.effects = RandomEffects({"g": 8})

    def residual(self):
        return jnp.asarray(Y, jnp.float32) - self.out(jnp.asarray(X[:, None], jnp.float32))[:, 0]

    def loss(self):
        return self.effects.nll(self.residual(), {"g": CODES}) / len(Y)


def trained(decay, steps=5):
    """A model after some steps of AdamW, and how often the step was traced."""
    model, traces = Model(nnx.Rngs(0)), []
    optimizer = nnx.Optimizer(
        model, optax.adamw(0.1, weight_decay=decay, mask=decayed), wrt=nnx.Param
    )

    @nnx.jit
    def step(model, optimizer):
        traces.append(None)
        loss, grad = nnx.value_and_grad(Model.loss)(model)
        optimizer.update(model, grad)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(steps)]
    return model, losses, len(traces)


@pytest.fixture(scope="module")
def model():
    return trained(0.0)[0]


def test_training_lowers_the_loss_in_one_program():
    _, losses, traces = trained(0.0)
    assert losses == sorted(losses, reverse=True)
    assert traces == 1


def test_weight_decay_leaves_the_covariance_alone():
    with_decay, without = (trained(decay, 1)[0] for decay in (1.0, 0.0))
    assert_array_equal(with_decay.effects.raw[...], without.effects.raw[...])
    assert_array_equal(with_decay.effects.log_sigma[...], without.effects.log_sigma[...])
    assert not np.array_equal(with_decay.out.kernel[...], without.out.kernel[...])
    assert {
        type(v)
        for v in jax.tree.leaves(nnx.state(without.effects, nnx.Param), is_leaf=_is_variable)
    } == {Covariance}


def _is_variable(leaf):
    return isinstance(leaf, nnx.Variable)


def test_the_numbers_are_those_of_the_dense_distribution(model):
    layer, r = model.effects, np.asarray(model.residual(), float)
    dense = (
        layer.factors,
        np.asarray(layer.raw[...], float),
        float(layer.sigma),
        r,
        {"g": CODES},
        None,
    )
    assert_allclose(layer.nll(r, {"g": CODES}), dense_nll(*dense), rtol=1e-5)
    layer.condition(r, {"g": CODES})
    mean, variance = layer({"g": np.array([0, 5, 7, -1])})
    b, C = dense_conditional(*dense)
    prior = float(layer.priors()["g"][0, 0])
    assert_allclose(mean, [b[0], b[5], 0.0, 0.0], rtol=1e-4, atol=1e-6)
    assert_allclose(variance, [C[0, 0], C[5, 5], prior, prior], rtol=1e-4)
    assert_allclose(prior, float(layer.theta[0] * layer.sigma) ** 2, rtol=1e-5)
    assert layer.draw(jax.random.key(0), r, {"g": CODES})["g"].shape == (8, 1)


def test_it_starts_from_the_size_of_the_residuals():
    layer = RandomEffects({"g": 6})
    layer.start(np.array([3.0, -3.0, np.nan]), np.array([1.0, 1.0, 0.0]))
    assert_allclose(layer.sigma, 3.0, rtol=1e-6)


def test_a_checkpoint_of_orbax_brings_parameters_and_blups_back(model, tmp_path):
    model.effects.condition(model.residual(), {"g": CODES})
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "model", nnx.to_pure_dict(nnx.state(model)))
        keeper.wait_until_finished()
        fresh = Model(nnx.Rngs(1))
        state = nnx.state(fresh)
        nnx.replace_by_pure_dict(state, keeper.restore(tmp_path / "model", nnx.to_pure_dict(state)))
    nnx.update(fresh, state)
    rows = {"g": np.array([0, 3, -1])}
    for ours, theirs in zip(fresh.effects(rows), model.effects(rows), strict=True):
        assert_array_equal(ours, theirs)
    assert float(fresh.loss()) == float(model.loss())


def test_a_layer_with_a_family_has_the_numbers_of_the_functions_below_it():
    layer, family = GeneralizedRandomEffects({"g": 8}, family=Poisson()), Poisson()
    y, g = np.floor(np.abs(Y)), {"g": CODES}
    rows = laplace.read_answers(layer.factors, X, y, g)
    expected = laplace.nll(layer.raw[...], layer.factors, family, rows)
    assert_allclose(nnx.jit(lambda layer: layer.nll(X, y, g))(layer), expected, rtol=1e-6)
    layer.condition(X, y, g)
    mean, variance = layer({"g": np.array([0, -1])})
    state = layer.state.get_value()
    assert_allclose(mean, [state.modes["g"][0, 0], 0.0], rtol=1e-6)
    assert_allclose(variance, [state.covariances["g"][0, 0, 0], 1.0], rtol=1e-6)


def test_several_responses_in_a_batch(model):
    r = jnp.stack([model.residual(), 2 * model.residual()])
    found = nnx.vmap(lambda layer, r: layer.nll(r, {"g": CODES}), in_axes=(None, 0))(
        model.effects, r
    )
    assert_allclose(found, [model.effects.nll(row, {"g": CODES}) for row in r], rtol=1e-6)
