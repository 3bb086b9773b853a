"""Counts: binomial, beta-binomial, Poisson and negative binomial densities.

Kernels of Poisson and the negative binomial are minus half of the unit deviance, written without
cancellation: means of a million keep their digits.
"""

from __future__ import annotations

from ...support.later import custom_jvp, jnp
from .density import Density
from .links import INVERSE, LINK, LOGS, POSITIVE
from .special import lgamma, lgamma_ratio, softplus

# log-probability below which a side that did not occur is left out: 0 * -inf has no value
UNLIKELY = -700.0


def _log_choose(row):
    return lgamma(row.m + 1) - lgamma(row.y + 1) - lgamma(row.m - row.y + 1)


def _proportion(row):
    return (row.y + 0.5) / (row.m + 1.0)


def _binomial_start(link):
    return lambda row: LINK[link](_proportion(row))


def binomial(family) -> Density:
    """Successes y out of m trials of probability mu."""

    def kernel(row, eta, phi):
        success, failure = LOGS[family.link](eta)
        misses = row.m - row.y
        # A side that does not occur stays where it is finite, for the derivatives by y.
        success = jnp.where((row.y > 0) | (success > UNLIKELY), success, 0.0)
        failure = jnp.where((misses > 0) | (failure > UNLIKELY), failure, 0.0)
        return row.w * (row.y * success + misses * failure)

    return Density(
        kernel,
        start=_binomial_start(family.link),
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=lambda mu, phi, w: mu * (1.0 - mu) / w,
        constant=lambda row, phi: row.w * _log_choose(row),
    )


def bernoulli(family) -> Density:
    """One trial a row: half the work of a binomial."""
    if family.link == "logit":

        def kernel(row, eta, phi):
            # The first summand is 0; it gives the derivative by y of y eta - softplus(eta).
            failure = softplus(jnp.where(row.y > 0, -eta, eta))
            return row.w * ((row.y - (row.y > 0)) * eta - failure)

    elif family.link in ("probit", "cauchit"):  # symmetric: one side a row

        def kernel(row, eta, phi):
            side = jnp.where(row.y > 0, eta, -eta)
            return row.w * LOGS[family.link](side)[0]

    else:
        return binomial(family)
    return binomial(family)._replace(kernel=kernel, constant=lambda row, phi: jnp.zeros_like(row.y))


def betabinomial(family) -> Density:
    """A binomial whose probability is Beta(mu precision, (1 - mu) precision)."""

    def kernel(row, eta, phi):
        success, failure = LOGS[family.link](eta)
        a, b = phi[0] * jnp.exp(success), phi[0] * jnp.exp(failure)
        return row.w * (lgamma_ratio(a, row.y) + lgamma_ratio(b, row.m - row.y))

    def variance(mu, phi, w):
        return mu * (1.0 - mu) / w * (phi[0] + w) / (phi[0] + 1.0)

    return Density(
        kernel,
        start=_binomial_start(family.link),
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=variance,
        constant=lambda row, phi: (
            row.w * (_log_choose(row) - lgamma_ratio(phi[0] + 0.0 * row.y, row.m))
        ),
    )


def _above(y, log_mu, mu):
    """Y log(mu / y) and mu - y without cancellation where mu is near y; y log mu and mu where y =
    0.

    Where y = 0 the constant has no y log y either: both parts have finite derivatives by y.
    """
    some = y > 0
    r = jnp.where(some, log_mu - jnp.log(jnp.where(some, y, 1.0)), 0.0)
    return jnp.where(some, y * r, y * log_mu), jnp.where(some, y * jnp.expm1(r), mu)


def _excess(link, y, eta):
    if link == "log":
        return y * _log_ratio(y, eta), _surplus(y, eta)
    return _above(y, *POSITIVE[link](eta))


def _log_ratio(y, eta):
    """log(mu / y) of eta = log mu; log mu where y = 0."""
    return eta - jnp.log(jnp.where(y > 0, y, 1.0))


@custom_jvp
def _surplus(y, eta):
    """The second part of `_above` for eta = log mu; scores and weights take the exponential alone
    from its rule.
    """
    return jnp.where(y > 0, y * jnp.expm1(_log_ratio(y, eta)), jnp.exp(eta))


@_surplus.defjvp
def _(primals, tangents):
    y, eta = primals
    return _surplus(y, eta), jnp.exp(eta) * tangents[1] - jnp.where(y > 0, tangents[0], 0.0)


def _y_log_y(y):
    some = jnp.where(y > 0, y, 1.0)
    return jnp.where(y > 0, y * jnp.log(some) - y, 0.0)


def _count_start(link):
    """Counts of 0 start at a part of the mean, so that their logarithm means something."""
    return lambda row: LINK[link](row.y + 0.5 * _mean_of(row) + 0.05)


def _mean_of(row):
    """Mean of the rows of positive weight."""
    used = row.w > 0
    return jnp.sum(jnp.where(used, row.y, 0.0)) / jnp.maximum(jnp.sum(used), 1)


def poisson(family) -> Density:
    """Counts of mean and variance mu."""

    def kernel(row, eta, phi):
        part, excess = _excess(family.link, row.y, eta)
        return row.w * (part - excess)

    return Density(
        kernel,
        start=_count_start(family.link),
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=lambda mu, phi, w: mu / w,
        constant=lambda row, phi: row.w * (_y_log_y(row.y) - lgamma(row.y + 1)),
    )


def negative_binomial(family) -> Density:
    """Gamma mixtures of Poisson counts, of variance mu + mu^2 / size or mu (1 + alpha)."""
    kernel, constant, variance = (
        _quadratic(family) if family.variance == "quadratic" else _linear(family)
    )
    return Density(
        kernel,
        start=_count_start(family.link),
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=variance,
        constant=constant,
    )


def _quadratic(family):
    def kernel(row, eta, phi):
        y, size = row.y, phi[0]
        part, excess = _excess(family.link, y, eta)
        return row.w * (part - (y + size) * jnp.log1p(excess / jnp.where(y > 0, y + size, size)))

    def constant(row, phi):
        y, size = row.y, phi[0]
        some = jnp.where(y > 0, y, 1.0)
        rest = jnp.where(
            y > 0, y * jnp.log(some / (y + size)) - size * jnp.log1p(y / size), -y * jnp.log(size)
        )
        return row.w * (lgamma_ratio(size + 0.0 * y, y) - lgamma(y + 1) + rest)

    return kernel, constant, lambda mu, phi, w: (mu + mu * mu / phi[0]) / w


def _linear(family):
    def kernel(row, eta, phi):
        size = POSITIVE[family.link](eta)[1] / phi[0]
        return row.w * (lgamma_ratio(size, row.y) - size * jnp.log1p(phi[0]))

    def constant(row, phi):
        return row.w * (row.y * (jnp.log(phi[0]) - jnp.log1p(phi[0])) - lgamma(row.y + 1))

    return kernel, constant, lambda mu, phi, w: mu * (1.0 + phi[0]) / w
