"""Random slopes as a layer of an Equinox model that learns how time is warped, saved and loaded."""

import tempfile

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import interlace_jax as interlace
from interlace_jax.eqx import RandomEffects, decayed

jax.config.update("jax_enable_x64", True)
sleep = interlace.load_dataset("sleepstudy")
layer, encode = RandomEffects.from_formula("(1 + Days | Subject)", sleep)
groups, features = encode(sleep)
y, days = jnp.asarray(sleep["Reaction"].to_numpy()) / 100, jnp.asarray(features["Subject"])


class Model(eqx.Module):
    log_power: jax.Array
    line: eqx.nn.Linear
    subjects: RandomEffects

    def rows(self):  # residuals, codes, and the warped days that have slopes
        x = days ** jnp.exp(self.log_power)
        return y - jax.vmap(self.line)(x)[:, 0], groups, {"Subject": x}

    def loss(self):
        return self.subjects.nll(*self.rows()) / len(y)


adam = optax.adamw(optax.cosine_decay_schedule(0.03, 1500), weight_decay=0.0, mask=decayed)


@eqx.filter_jit
def step(model, state):
    arrays, gradient = eqx.filter(model, eqx.is_inexact_array), eqx.filter_grad(Model.loss)(model)
    change, state = adam.update(gradient, state, arrays)
    return eqx.apply_updates(model, change), state


model = start = Model(jnp.zeros(()), eqx.nn.Linear(1, 1, key=jax.random.key(0)), layer)
state = adam.init(eqx.filter(model, eqx.is_inexact_array))
for _ in range(1500):
    model, state = step(model, state)
with tempfile.TemporaryDirectory() as folder:
    eqx.tree_serialise_leaves(f"{folder}/model.eqx", model)
    model = eqx.tree_deserialise_leaves(f"{folder}/model.eqx", start)
effects = model.subjects.condition(*model.rows()).modes["Subject"]
power = float(jnp.exp(model.log_power))
warped = sleep.assign(Reaction=y, x=sleep["Days"] ** power)
fit = interlace.fit("Reaction ~ x + (1 + x | Subject)", warped, method="ML")
print(f"power of days {power:.3f}\n{'':32} {'ours':>12}  | {'reference':>12}")
print(f"{'ML deviance, layer | formula':32} {360 * model.loss():12.6f}  | {fit.deviance:12.6f}")
reference = fit.random_effects["Subject"].iloc[0, 0]
print(f"{'first subject, level':32} {effects[0, 0]:12.4f}  | {reference:12.4f}")
