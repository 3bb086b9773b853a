"""Batches of whole groups: their parts add up, and draws of crossed effects leave no bias."""

import jax
import numpy as np
import pytest
from helpers.arrays import quick_jit
from helpers.grouped_rows import classes_in_schools, random_raw
from numpy.testing import assert_allclose

from interlace_jax.layers import effects
from interlace_jax.layers.batches import batch_nll, batches_of_groups
from interlace_jax.layers.effects import Parameters, read_rows
from interlace_jax.layers.factors import Factors

pytestmark = pytest.mark.usefixtures("x64")


def read(factors, batch, r, features=None):
    features = {name: x[batch.rows] for name, x in (features or {}).items()}
    return read_rows(
        factors.with_levels(batch.levels), r[batch.rows], batch.groups, features, batch.mask
    )


def test_the_batches_of_a_pass_add_up_to_the_whole():
    _, r, groups, features = classes_in_schools()
    factors = Factors.of({"school": 3, "class": 7}, {"class": 1}, {"class": "school"})
    del groups["item"]
    parameters = Parameters(random_raw(factors), np.log(0.7))
    whole = effects.nll(parameters, factors, read_rows(factors, r, groups, features))
    batches = list(batches_of_groups(groups, "school", 2, inner=("class",)))
    loss = quick_jit(
        lambda rows: effects.nll(parameters, factors.with_levels(batches[0].levels), rows)
    )
    parts = [loss(read(factors, batch, r, features)) for batch in batches]
    assert_allclose(sum(parts), whole, rtol=1e-12)
    assert [batch.scale for batch in batches] == [1.5, 3.0]
    assert {batch.rows.shape for batch in batches} == {(20,)}
    assert batches[0].levels == {"school": 2, "class": 4}


def test_draws_of_the_crossed_effects_estimate_the_exact_gradient():
    rng = np.random.default_rng(0)
    factors = Factors.of({"user": 6, "item": 3})
    groups = {"user": np.arange(18) // 3, "item": rng.integers(0, 3, 18)}
    r = rng.standard_normal(18)
    parameters, rows = Parameters(random_raw(factors), np.log(0.7)), read_rows(factors, r, groups)
    exact = jax.grad(effects.nll)(parameters, factors, rows)
    batches = [read(factors, batch, r) for batch in batches_of_groups(groups, "user", 2)]
    small = factors.with_levels({"user": 2})

    def estimate(key):
        """The gradient of one pass with one draw: each of three batches has a third of the prior of
        the items.
        """
        given = {"item": effects.draw(key, parameters, factors, rows)["item"]}
        each = [jax.grad(batch_nll)(parameters, small, batch, given, 3.0) for batch in batches]
        return sum(np.array([1 / 3]) * _flat(found) for found in each)

    found = np.asarray(quick_jit(jax.vmap(estimate))(jax.random.split(jax.random.key(1), 400)))
    error = found.std(0) / 400**0.5
    assert np.all(np.abs(found.mean(0) - _flat(exact)) < 4 * error)
    assert np.all(error < 0.5)


def _flat(parameters):
    return jax.numpy.concatenate([parameters.raw, parameters.log_sigma[None]])


def test_one_factor_must_be_left():
    factors = Factors.of({"g": 2})
    with pytest.raises(ValueError, match="given has effects of every factor"):
        rows = read_rows(factors, np.zeros(2), {"g": np.arange(2)})
        batch_nll(effects.start(factors), factors, rows, {"g": np.zeros((2, 1))})


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="there are no codes of 'users'; groups has 'user'"):
        next(batches_of_groups({"user": np.arange(3)}, "users", 1))
    with pytest.raises(ValueError, match="levels has 'users', but this layer has 'user'"):
        Factors.of({"user": 3}).with_levels({"users": 2})
