"""A Flax network for the mean, random slopes for hundreds of groups, and the exact likelihood as
the loss, in batches of whole groups. INTERLACE_EXAMPLE_SIZE=small makes it quick.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import interlace_jax as interlace
from interlace_jax.nnx import RandomEffects, batches_of_groups, decayed

jax.config.update("jax_enable_x64", True)
groups, passes = (200, 15) if os.environ.get("INTERLACE_EXAMPLE_SIZE") == "small" else (3000, 60)
rng = np.random.default_rng(1)
g = np.repeat(np.arange(groups), 8)
x, noise = rng.standard_normal((len(g), 2)), 0.5 * rng.standard_normal(len(g))
b = rng.multivariate_normal([0, 0], [[1.0, 0.3], [0.3, 0.4]], groups)[g]
y = np.sin(2 * x[:, 0]) + x[:, 0] * x[:, 1] + b[:, 0] + b[:, 1] * x[:, 0] + noise
held = np.arange(len(g)) % 8 >= 6  # two rows of every group
x, y = jnp.asarray(x), jnp.asarray(y)

rngs = nnx.Rngs(0)
network = nnx.Sequential(nnx.Linear(2, 24, rngs=rngs), jnp.tanh, nnx.Linear(24, 1, rngs=rngs))
model = nnx.Dict(network=network, effects=RandomEffects({"g": groups}, slopes={"g": 1}))
optimizer = nnx.Optimizer(model, optax.adamw(0.01, mask=decayed), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, x, y, codes, mask, scale):
    def loss(model):
        residual, slope = y - model.network(x)[:, 0], {"g": x[:, 0]}
        whole = dict(mask=mask, scale=scale, levels={"g": 50})  # an estimate for all groups
        return model.effects.nll(residual, codes, slope, **whole) / len(g)

    optimizer.update(model, nnx.grad(loss)(model))


train = np.flatnonzero(~held)
for seed in range(passes):
    for batch in batches_of_groups({"g": g[train]}, "g", 50, seed=seed):
        at = train[batch.rows]
        step(model, optimizer, x[at], y[at], batch.groups, batch.mask, batch.scale)
seen = {"g": g[train]}, {"g": x[train, 0]}
residual = y[train] - model.network(x[train])[:, 0]
model.effects.condition(residual, *seen)
mean, _ = model.effects({"g": g[held]}, {"g": x[held, 0]})
error = y[held] - model.network(x[held])[:, 0] - mean
print(f"held-out RMSE {jnp.sqrt(jnp.mean(error**2)):.3f}; the noise alone has 0.5")

Z = jnp.stack([jnp.ones(len(train)), x[train, 0]], 1)
m = interlace.moments(residual, Z[:, :0], {"g": (g[train], Z)})
sigma, ours = model.effects.sigma, model.effects.nll(residual, *seen)
reference = -interlace.log_likelihood(model.effects.theta, m, reml=False, sigma=sigma)
print(f"\n{'':30} {'ours':>12}  | {'reference':>12}")
print(f"{'nll of the layer | arrays':30} {ours:12.4f}  | {reference:12.4f}")
