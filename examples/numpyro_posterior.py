"""The marginal likelihood as a factor in NumPyro: the posterior of beta, theta and sigma, BLUPs
drawn afterwards.

NUTS sees six parameters, whatever the number of subjects: the random effects are integrated out
exactly. INTERLACE_EXAMPLE_SIZE=small makes it quick.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import interlace_jax as interlace

jax.config.update("jax_enable_x64", True)
small = os.environ.get("INTERLACE_EXAMPLE_SIZE") == "small"
warmup, draws = (150, 200) if small else (500, 4000)

formula = "Reaction ~ Days + (1 + Days | Subject)"
sleep = interlace.load_dataset("sleepstudy")
fit = interlace.fit(formula, sleep)
design = fit.model.design
y, X, groups = jnp.asarray(design.y), jnp.asarray(design.X), design.groups
m = jax.jit(lambda y: interlace.moments(y, X, groups))(y)


def model():
    beta = numpyro.sample(
        "beta", dist.Normal(jnp.array([250.0, 10.0]), jnp.array([100.0, 20.0])).to_event(1)
    )
    sigma = numpyro.sample("sigma", dist.LogNormal(3.0, 1.0))
    # Relative to sigma: the SD of intercepts, their covariance with slopes over it, the slopes' own
    # SD.
    scale = jnp.array([2.0, 0.5, 0.5])
    # the deviance is even in each column
    theta = numpyro.sample("theta", dist.Normal(jnp.zeros(3), scale).to_event(1))
    numpyro.factor(
        "likelihood", -0.5 * interlace.deviance(theta, m, reml=False, sigma=sigma, beta=beta)
    )


start = numpyro.infer.init_to_value(
    values=dict(beta=jnp.asarray(fit.fe_params), sigma=fit.sigma, theta=jnp.asarray(fit.theta))
)
mcmc = MCMC(
    NUTS(model, init_strategy=start), num_warmup=warmup, num_samples=draws, progress_bar=False
)
mcmc.run(jax.random.key(0))
sample = mcmc.get_samples()


def draw_effects(key, beta, sigma, theta):
    """b given y and the parameters: simulate b* and y*, then add to b* what y - y* says (exact,
    Matheron's rule).
    """
    (codes, Z, _), (k1, k2) = groups[0], jax.random.split(key)
    Lambda = jnp.array([[theta[0], 0.0], [theta[1], theta[2]]])
    b = sigma * jax.random.normal(k1, (18, 2)) @ Lambda.T
    simulated = X @ beta + jnp.sum(Z * b[codes], 1) + sigma * jax.random.normal(k2, y.shape)
    rest = interlace.moments(y - simulated, X[:, :0], groups)
    return b + interlace.random_effects(theta, rest)[0]


keys = jax.random.split(jax.random.key(1), draws)
effects = jax.jit(jax.vmap(draw_effects))(keys, sample["beta"], sample["sigma"], sample["theta"])

L = np.zeros((draws, 2, 2))
L[:, 0, 0], L[:, 1, 0], L[:, 1, 1] = np.asarray(sample["theta"]).T
covariance = np.asarray(sample["sigma"])[:, None, None] ** 2 * (L @ L.swapaxes(1, 2))
sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
beta, sigma = np.asarray(sample["beta"]), np.asarray(sample["sigma"])
estimates = [*fit.fe_params, *fit.varcorr["sdcor"].iloc[[0, 1]], fit.sigma]
names = ["Intercept", "Days", "SD of intercepts", "SD of slopes", "residual SD"]
print(f"{'':20} {'REML':>8} {'(SE)':>7} {'posterior mean':>15} {'(SD)':>7}")
errors = [f"{s:7.2f}" for s in fit.fe_bse] + [" " * 7] * 3
for name, one, se, d in zip(names, estimates, errors, [*beta.T, *sd.T, sigma], strict=True):
    print(f"{name:20} {one:8.2f} {se} {d.mean():15.2f} {d.std():7.2f}")
blups, errors = (
    fit.random_effects["Subject"].to_numpy(),
    fit.random_effects_se["Subject"].to_numpy(),
)
gap = np.abs(np.asarray(effects).mean(0) - blups) / errors
print(
    f"\nBLUPs: posterior means differ from REML's by {gap.mean():.2f} standard errors, at most by "
    f"{gap.max():.2f}"
)

# The factor's deviance at lme4's REML theta, with beta and sigma at their optimum (lme4 1.1.31).
theta = jnp.array([0.966732951858725, 0.015169054271138892, 0.23090959475936343])
print(f"\n{'':34} {'ours':>12}  | {'reference':>12}")
print(
    f"{'ML deviance at the REML theta':34} {interlace.deviance(theta, m, reml=False):12.6f}  | "
    f"{1751.985853:12.6f}"
)
