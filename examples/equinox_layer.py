"""Random effects as a layer of an Equinox model: trained under `eqx.filter_jit`, saved to a
checkpoint and loaded.
"""

import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import interlace_jax as interlace

jax.config.update("jax_enable_x64", True)


class RandomEffects(eqx.Module):
    """Intercepts and slopes by group.

    Level codes decide shapes, so they are static; theta is a parameter.
    """

    theta: jax.Array
    codes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, codes):
        self.theta, self.codes = jnp.array([1.0, 0.0, 1.0]), tuple(int(c) for c in codes)

    def moments(self, y, X, Z):
        return interlace.moments(y, X, [(np.array(self.codes), Z)])

    def loss(self, y, X, Z):
        """The exact REML criterion, with beta and sigma at their optimum."""
        return interlace.deviance(self.theta, self.moments(y, X, Z))

    def effects(self, y, X, Z):
        """BLUPs (levels, 2)."""
        return interlace.random_effects(self.theta, self.moments(y, X, Z))[0]


class Model(eqx.Module):
    """A time course that is warped, then linear, with a level and a slope of every subject's
    own.
    """

    log_power: jax.Array
    subjects: RandomEffects

    def design(self, days):
        x = days ** jnp.exp(self.log_power)
        return jnp.stack([jnp.ones_like(x), x], 1)

    def loss(self, y, days):
        X = self.design(days)
        return self.subjects.loss(y, X, X)


def train(model, y, days, steps=400):
    """Full-batch Adam."""
    adam = optax.adam(optax.cosine_decay_schedule(0.05, steps))
    state = adam.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        loss, gradient = eqx.filter_value_and_grad(lambda model: model.loss(y, days))(model)
        updates, state = adam.update(gradient, state)
        return eqx.apply_updates(model, updates), state, loss

    for _ in range(steps):
        model, state, loss = step(model, state)
    return model, float(loss)


sleep = interlace.load_dataset("sleepstudy")
codes = np.unique(sleep["Subject"], return_inverse=True)[1]
y, days = jnp.asarray(sleep["Reaction"].to_numpy()), jnp.asarray(sleep["Days"].to_numpy(float))
fresh = Model(jnp.array(0.0), RandomEffects(codes))
model, loss = train(fresh, y, days)
print(f"power of days: {jnp.exp(model.log_power):.3f}; REML criterion {loss:.3f}")

with tempfile.TemporaryDirectory() as folder:
    eqx.tree_serialise_leaves(Path(folder) / "model.eqx", model)
    loaded = eqx.tree_deserialise_leaves(Path(folder) / "model.eqx", fresh)
effects = eqx.filter_jit(
    lambda model: model.subjects.effects(y, model.design(days), model.design(days))
)

# The trained layer against a fit of the formula, with the learned power.
warped = sleep.assign(x=sleep["Days"] ** float(jnp.exp(model.log_power)))
fit = interlace.fit("Reaction ~ x + (1 + x | Subject)", warped)
print(f"\n{'':44} {'ours':>14}  | {'reference':>14}")
print(f"{'REML criterion: trained by Adam | by fit':44} {loss:14.6f}  | {fit.deviance:14.6f}")
print(
    f"{'the same after loading':44} {eqx.filter_jit(Model.loss)(loaded, y, days):14.6f}  | "
    f"{fit.deviance:14.6f}"
)
for j, name in enumerate(("intercept", "slope")):
    print(
        f"{f'S308: {name}, loaded layer | trained':44} {effects(loaded)[0, j]:14.6f}  | "
        f"{effects(model)[0, j]:14.6f}"
    )
