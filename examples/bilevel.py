"""Learning a transformation of a predictor through the fit: held-out loss of a mixed model,
implicit gradients, optax.

The response saturates with the dose, by exposure x^h / (x^h + c^h); every subject has an own level
and an own effect of it. Given c and h the model is a linear mixed one; they are learned so that it
predicts rows well that it was not fitted to, and judged by a third set of rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import interlace_jax as interlace

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(4)
subjects, rows = 60, 12
subject = np.repeat(np.arange(subjects), rows)
dose = rng.uniform(0.1, 10.0, len(subject))
truth = jnp.array([jnp.log(2.0), jnp.log(1.7)])


def exposure(phi, dose):
    """phi: log c, log h."""
    c, h = jnp.exp(phi)
    return dose**h / (dose**h + c**h)


b = rng.standard_normal((subjects, 2)) * [1.0, 2.0]
mean = 1.0 + b[subject, 0] + (6.0 + b[subject, 1]) * np.asarray(exposure(truth, dose))
y = jnp.asarray(mean + 0.5 * rng.standard_normal(len(subject)))
fitted, held, test = (np.isin(np.arange(len(subject)) % 4, part) for part in ((0, 1), 2, 3))


def design(x, rows):
    X = jnp.stack([jnp.ones_like(x), x], 1)[rows]
    return X, [(subject[rows], X)]


@jax.jit
def errors(x):
    """Mean squared errors for the held and the test rows of predictions by a model fitted to the
    others; x (n,).
    """
    m = interlace.moments(y[fitted], *design(x, fitted))
    estimate = interlace.estimate(m)
    square = (y - interlace.predict(estimate, m, *design(x, slice(None)))) ** 2
    return jnp.mean(square[held]), jnp.mean(square[test])


@jax.jit
def value_and_grad(phi):
    return jax.value_and_grad(lambda phi: errors(exposure(phi, dose))[0])(phi)


start = jnp.array([jnp.log(6.0), 0.0])
phi, adam = start, optax.adam(0.1)
state = adam.init(phi)
for step in range(120):
    value, gradient = value_and_grad(phi)
    if step % 30 == 0:
        c, h = jnp.exp(phi)
        print(f"step {step:3}: held-out RMSE {jnp.sqrt(value):.4f}, c = {c:.2f}, h = {h:.2f}")
    updates, state = adam.update(gradient, state)
    phi = optax.apply_updates(phi, updates)
print(
    f"learned c = {jnp.exp(phi[0]):.2f}, h = {jnp.exp(phi[1]):.2f}; simulated with 2.00 and 1.70, "
    "noise of SD 0.5\n"
)
for name, x in {
    "the dose as it is": jnp.asarray(dose),
    "log dose": jnp.log(dose),
    "learned exposure": exposure(phi, dose),
    "true exposure": exposure(truth, dose),
}.items():
    print(f"RMSE on test rows, {name:18} {jnp.sqrt(errors(x)[1]):.4f}")

# The same from fits of a formula: the loss at the end, and its derivatives at the start by
# differences of refits.
frame = pd.DataFrame({"y": np.asarray(y), "subject": subject})


def by_formula(phi):
    data = frame.assign(x=np.asarray(exposure(jnp.asarray(phi), dose)))
    fit = interlace.fit("y ~ x + (1 + x | subject)", data[fitted])
    return np.mean((data["y"][held] - fit.predict(data[held])) ** 2)


def difference(step):
    at = [by_formula(np.asarray(start) + k * step) for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * np.abs(step).max())


implicit = value_and_grad(start)[1]
print(f"\n{'':44} {'ours':>12}  | {'reference':>12}")
print(
    f"{'held-out loss at the end':44} {errors(exposure(phi, dose))[0]:12.8f}  | "
    f"{by_formula(phi):12.8f}"
)
for name, ours, step in zip(("log c", "log h"), implicit, np.eye(2) * 0.01, strict=True):
    print(f"{f'derivative by {name} at the start':44} {ours:12.8f}  | {difference(step):12.8f}")
