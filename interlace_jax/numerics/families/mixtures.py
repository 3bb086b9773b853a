"""Densities made of another: counts without their zeros, and mixtures with zeros."""

from __future__ import annotations

from ...support.later import jnp
from .density import Density, log_density
from .special import sigmoid, softplus


def _once(row):
    return row._replace(w=jnp.ones_like(row.w))


def truncated(family, base: Density) -> Density:
    """The base family of counts, given that it is not 0."""
    log_zero = _log_zero(family.base)

    def kernel(row, eta, phi):
        some = -jnp.expm1(log_zero(base.location(eta, phi), phi))
        return row.w * (base.kernel(_once(row), eta, phi) - jnp.log(some))

    def mean(mu, phi):
        return mu / -jnp.expm1(log_zero(mu, phi))

    def variance(mu, phi, w):
        some = -jnp.expm1(log_zero(mu, phi))
        square = base.variance(mu, phi, jnp.ones_like(mu)) + mu * mu
        return (square / some - (mu / some) ** 2) / w

    return base._replace(kernel=kernel, mean=mean, variance=variance)


def _log_zero(family):
    """Log-probability of 0 as a function of the mean and the parameters."""
    if family.name == "poisson":
        return lambda mu, phi: -mu
    if family.name == "nbinom2":
        return lambda mu, phi: -phi[0] * jnp.log1p(mu / phi[0])
    return lambda mu, phi: -mu / phi[0] * jnp.log1p(phi[0])


def zero_inflated(base: Density, is_hurdle: bool) -> Density:
    """0 with probability 1 / (1 + e^-phi[-1]), else the base; in a hurdle model the base is
    never 0.
    """

    def kernel(row, eta, phi):
        *own, logit = phi
        log_zero, log_rest = -softplus(-logit), -softplus(logit)
        if is_hurdle:
            counted = _once(row)._replace(y=jnp.where(row.y > 0, row.y, 1.0))
            rest = log_rest + log_density(base, counted, eta, own)
            return row.w * jnp.where(row.y > 0, rest, log_zero + 0.0 * row.y)
        rest = log_rest + log_density(base, _once(row), eta, own)
        return row.w * jnp.where(row.y > 0, rest, jnp.logaddexp(log_zero + 0.0 * row.y, rest))

    def mean(mu, phi):
        return sigmoid(-phi[-1]) * base.mean(mu, phi[:-1])

    def variance(mu, phi, w):
        own, zero, centre = phi[:-1], sigmoid(phi[-1]), base.mean(mu, phi[:-1])
        return (1.0 - zero) * (base.variance(mu, own, w) + zero * centre * centre)

    return Density(kernel, base.start, base.location, variance, mean=mean)
