"""The posterior as a function that any sampler takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..functional import log_likelihood
from ..numerics.crossproducts.moments import Moments
from ..support.later import jnp


def log_density(m: Moments, log_prior: Callable) -> Callable[[Mapping[str, Any]], Any]:
    """The log posterior density of a linear mixed model, random effects integrated out exactly.

    m: of `interlace_jax.moments`. log_prior: function of theta, Float[d], sigma, Float[], and beta,
    Float[p], to a log-density. Returns a function of `{"theta": ..., "log_sigma": ..., "beta":
    ...}`, to Float[], with the Jacobian of sigma = exp(log_sigma): what samplers such as BlackJAX's
    take as it is.

    The likelihood is even in each column of Lambda, so that a diagonal entry of theta has a mirror
    image: start at positive ones, and look at SDs, not at theta.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> import pandas as pd
    >>> from interlace_jax.bayes.log_density import log_density
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> codes, subjects = pd.factorize(sleep["Subject"])
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> m = interlace_jax.moments(sleep["Reaction"].to_numpy(), X, {"Subject": (codes, X)})
    >>> density = log_density(m, lambda theta, sigma, beta: -jnp.sum(theta**2))
    >>> theta, beta = jnp.array([1.0, 0.0, 0.2]), jnp.array([251.0, 10.0])
    >>> start = {"theta": theta, "log_sigma": 3.2, "beta": beta}
    >>> jax.grad(density)(start)["beta"].shape
    (2,)
    """

    def density(at):
        sigma = jnp.exp(at["log_sigma"])
        likelihood = log_likelihood(at["theta"], m, reml=False, sigma=sigma, beta=at["beta"])
        return likelihood + log_prior(at["theta"], sigma, at["beta"]) + at["log_sigma"]

    return density
