"""A neural network for the mean, random slopes for thousands of groups, and the exact likelihood as
the loss.

Against the same network that ignores the groups, and one with an entity embedding of the group
among its inputs. INTERLACE_EXAMPLE_SIZE=small makes it quick.
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import interlace_jax as interlace

jax.config.update("jax_enable_x64", True)
small = os.environ.get("INTERLACE_EXAMPLE_SIZE") == "small"
groups, rows, steps = (200, 8, 100) if small else (3000, 8, 400)
rng = np.random.default_rng(1)

# Groups differ in level and in the effect of the first input, and also in where their inputs lie.
g = np.repeat(np.arange(groups), rows)
x = 0.7 * rng.standard_normal((groups, 3))[g] + 0.7 * rng.standard_normal((len(g), 3))
b = rng.multivariate_normal([0, 0], [[1.0, 0.3], [0.3, 0.4]], groups)
curve = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + np.exp(-(x[:, 1] ** 2))
y = curve + b[g, 0] + b[g, 1] * x[:, 0] + 0.5 * rng.standard_normal(len(g))
held = np.arange(len(g)) % rows >= rows - 2  # two rows of every group
x, y, train = jnp.asarray(x), jnp.asarray(y), ~held
Z = jnp.stack([jnp.ones(len(g)), x[:, 0]], 1)


def network(key, inputs):
    """Weights of two hidden layers; their last values are the columns of X, so that the
    likelihood fits the output.
    """
    sizes = [inputs, 24, 8]
    keys = jax.random.split(key, 2)
    return [
        (jax.random.normal(k, (a, c)) * a**-0.5, jnp.zeros(c))
        for k, a, c in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def features(layers, x):
    for W, c in layers:
        x = jnp.tanh(x @ W + c[None])
    return jnp.concatenate([jnp.ones((len(x), 1)), x], 1)


def moments(p):
    return interlace.moments(y[train], features(p["net"], x[train]), [(g[train], Z[train])])


def output(p, rows):
    at = jnp.concatenate([x, p["embedding"][g]], 1) if "embedding" in p else x
    return features(p["net"], at[rows]) @ p["out"]


def train_by(loss, p, test):
    """Full-batch Adam; the best held-out RMSE on the way, and the last parameters."""
    adam = optax.adam(optax.cosine_decay_schedule(0.02, steps))

    @jax.jit
    def step(p, state):
        updates, state = adam.update(jax.grad(loss)(p), state)
        return optax.apply_updates(p, updates), state

    error = jax.jit(lambda p: jnp.sqrt(jnp.mean((y[held] - test(p)) ** 2)))
    state, best, start = adam.init(p), np.inf, time.perf_counter()
    for i in range(steps):
        p, state = step(p, state)
        best = min(best, float(error(p))) if i % 10 == 9 else best
    return p, float(error(p)), best, time.perf_counter() - start


def predicted(p):
    m = moments(p)
    fitted = interlace.estimate(m)  # theta, beta and BLUPs for these features
    return interlace.predict(fitted, m, features(p["net"], x[held]), [(g[held], Z[held])])


key = jax.random.key(0)
mixed = dict(net=network(key, 3), theta=jnp.array([1.0, 0.0, 1.0]))
plain = dict(net=network(key, 3), out=jnp.zeros(9))
entity = dict(
    net=network(key, 7), out=jnp.zeros(9), embedding=0.1 * jax.random.normal(key, (groups, 4))
)


def likelihood(p):
    return interlace.deviance(p["theta"], moments(p)) / len(g)


def squares(p):
    return jnp.mean((y[train] - output(p, train)) ** 2)


results = {
    "network + random effects": train_by(likelihood, mixed, predicted),
    "network, groups ignored": train_by(squares, plain, lambda p: output(p, held)),
    "network + entity embedding": train_by(squares, entity, lambda p: output(p, held)),
}
print(
    f"{len(g)} rows in {groups} groups, two of each held out; the noise alone has an RMSE of 0.5\n"
)
print(f"{'held-out RMSE':28} {'last':>8} {'best on the way':>16} {'seconds':>8}")
for name, (_, last, best, seconds) in results.items():
    print(f"{name:28} {last:8.3f} {best:16.3f} {seconds:8.1f}")

# The trained features in a frame, the same model from a formula.
p = results["network + random effects"][0]
H = np.asarray(features(p["net"], x[train]))[:, 1:]
frame = pd.DataFrame(H, columns=[f"h{j}" for j in range(H.shape[1])]).assign(
    y=np.asarray(y[train]), x=np.asarray(x[train, 0]), g=g[train]
)
formula = interlace.fit(f"y ~ {' + '.join(frame.columns[: H.shape[1]])} + (1 + x | g)", frame)
ours = jax.jit(interlace.estimate)(moments(p))
print(f"\n{'':34} {'ours':>14}  | {'reference':>14}")
print(f"{'REML criterion, arrays | formula':34} {ours.deviance:14.6f}  | {formula.deviance:14.6f}")
print(f"{'residual SD':34} {ours.sigma:14.6f}  | {formula.sigma:14.6f}")
