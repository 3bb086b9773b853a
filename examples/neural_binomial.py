"""A network learns a curved effect on yes/no answers, through binomial random effects of people.

`compile(..., family=).deviance(theta, beta, offset=)` takes the network's output as an offset: the
random effects are integrated out inside, and derivatives are exact.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from scipy.special import expit

import interlace_jax as interlace

jax.config.update("jax_enable_x64", True)
small = os.environ.get("INTERLACE_EXAMPLE_SIZE") == "small"
steps, people = (150, 40) if small else (500, 150)
rng = np.random.default_rng(1)
g, x = np.repeat(np.arange(people), 12), rng.uniform(-2, 2, 12 * people)
chance = expit(1.5 * np.sin(2 * x) + rng.standard_normal(people)[g])
data = pd.DataFrame({"y": (rng.random(len(g)) < chance) * 1.0, "g": g})
model = interlace.compile("y ~ 1 + (1 | g)", data, family="bernoulli")


def curve(net):
    """Six hidden units; the intercept is the model's."""
    hidden = jnp.tanh(x[:, None] * net["w"][None] + net["c"][None])
    return hidden @ net["out"]


def loss(q):
    theta = jnp.exp(q["log_sd"])[None]
    return model.deviance(theta, q["beta"][None], offset=curve(q["net"])) / len(g)


keys = jax.random.split(jax.random.key(0), 3)
net = {name: jax.random.normal(k, (6,)) for name, k in zip(("w", "c", "out"), keys, strict=True)}
q = dict(net=net, log_sd=jnp.zeros(()), beta=jnp.zeros(()))
adam = optax.adam(optax.cosine_decay_schedule(0.1, steps))
state, slope = adam.init(q), jax.jit(jax.grad(loss))
for _ in range(steps):
    updates, state = adam.update(slope(q), state)
    q = optax.apply_updates(q, updates)
near = np.corrcoef(curve(q["net"]), np.sin(2 * x))[0, 1]
print(f"trained: correlation with the true curve {near:.3f}, SD {jnp.exp(q['log_sd']):.3f} (1.0)")

# The trained curve as the offset of a formula's fit, whose optimum ends the training.
fit = interlace.fit("y ~ 1 + (1 | g)", data, family="bernoulli", offset=np.array(curve(q["net"])))
at = jnp.asarray(fit.theta), jnp.asarray(fit.estimate.beta)
ours = model.deviance(*at, offset=curve(q["net"]))
print(f"\n{'':40} {'ours':>12}  | {'reference':>12}")
print(f"{'deviance of the curve, offset | fit':40} {ours:12.6f}  | {fit.deviance:12.6f}")
