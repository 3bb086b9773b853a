"""The posterior of a mixed model in NumPyro: NUTS sees six parameters, the random effects are
integrated out exactly and drawn afterwards. INTERLACE_EXAMPLE_SIZE=small makes it quick.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import interlace_jax as interlace
from interlace_jax.numpyro import MixedModel, theta_of

jax.config.update("jax_enable_x64", True)
small = os.environ.get("INTERLACE_EXAMPLE_SIZE") == "small"
warmup, draws = (150, 200) if small else (500, 4000)
sleep = interlace.load_dataset("sleepstudy")
fit = interlace.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
codes, days = np.unique(sleep["Subject"], return_inverse=True)[1], sleep["Days"].to_numpy(float)
y, X = jnp.asarray(sleep["Reaction"].to_numpy()), np.column_stack([np.ones(len(days)), days])
groups = {"Subject": (codes, X)}
m = jax.jit(lambda y: interlace.moments(y, X, groups))(y)  # once: the mean is X @ beta


def model():
    scale = jnp.array([100.0, 20.0])
    beta = numpyro.sample("beta", dist.Normal(jnp.array([250.0, 10.0]), scale).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(3.0, 1.0))
    sd = numpyro.sample("sd", dist.HalfNormal(jnp.array([2.0, 0.5])).to_event(1))
    theta = theta_of(sd, numpyro.sample("corr", dist.LKJCholesky(2, 2.0)))  # relative to sigma
    numpyro.deterministic("theta", theta)
    found = interlace.log_likelihood(theta, m, reml=False, sigma=sigma, beta=beta)
    numpyro.factor("y", found)


mcmc = MCMC(NUTS(model), num_warmup=warmup, num_samples=draws, progress_bar=False)
mcmc.run(jax.random.key(0))
sample = mcmc.get_samples()


def effects(key, beta, theta, sigma):
    return MixedModel(X @ beta, groups, theta, sigma).draw_effects(key, y)["Subject"]


keys = jax.random.split(jax.random.key(1), draws)
drawn = jax.jit(jax.vmap(effects))(keys, sample["beta"], sample["theta"], sample["sigma"])
for j, name in enumerate(fit.fe_params.index):
    beta, reml = sample["beta"][:, j], fit.fe_params[name]
    print(f"{name:10} {beta.mean():8.2f} +- {beta.std():5.2f}, by REML {reml:8.2f}")
blups, errors = (t["Subject"].to_numpy() for t in (fit.random_effects, fit.random_effects_se))
gap = np.abs(np.asarray(drawn).mean(0) - blups) / errors
print(f"posterior means of the effects differ from BLUPs by {gap.mean():.2f} standard errors")
print(f"\n{'':30} {'ours':>12}  | {'reference':>12}")
# lme4 1.1.31: -2 log L at its REML theta, beta and sigma at their optimum.
theta = jnp.array([0.966732951858725, 0.015169054271138892, 0.23090959475936343])
ours = interlace.deviance(theta, m, reml=False)
print(f"{'ML deviance at the REML theta':30} {ours:12.6f}  | {1751.985853:12.6f}")
