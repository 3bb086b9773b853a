"""Continuous responses: Gaussian, Student, gamma, inverse Gaussian and beta densities."""

from __future__ import annotations

from ...support.later import jnp
from .density import Density
from .links import INVERSE, LINK, LOGS, POSITIVE
from .special import HALF_LOG_2PI, lgamma, lgamma_ratio


def gaussian(family) -> Density:
    """Variance phi[0]^2 / w."""

    def start(row):
        if family.link == "identity":
            return row.y
        # these links need a positive mean
        least = 1e-3 * jnp.max(jnp.abs(jnp.where(row.w > 0, row.y, 0.0)))
        return LINK[family.link](jnp.maximum(row.y, jnp.where(least > 0, least, 1.0)))

    def kernel(row, eta, phi):
        return -0.5 * row.w * ((row.y - INVERSE[family.link](eta)) / phi[0]) ** 2

    return Density(
        kernel,
        start=start,
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=lambda mu, phi, w: phi[0] ** 2 / w,
        constant=lambda row, phi: (
            0.5 * jnp.log(row.w) - jnp.log(phi[0]) - HALF_LOG_2PI + 0.0 * row.y
        ),
    )


def _positive_start(link):
    """Half way to the mean, so that the inverse of a tiny response is not taken for the scale of
    all.
    """

    def start(row):
        used = row.w > 0
        mean = jnp.sum(jnp.where(used, row.y, 0.0)) / jnp.maximum(jnp.sum(used), 1)
        return LINK[link](0.5 * (row.y + mean))

    return start


def gamma(family) -> Density:
    """Variance phi[0] mu^2 / w; shape w / phi[0]."""

    def kernel(row, eta, phi):
        r = POSITIVE[family.link](eta)[0] - jnp.log(row.y)
        return -row.w / phi[0] * (jnp.expm1(-r) + r)

    def constant(row, phi):
        shape = row.w / phi[0]
        return shape * jnp.log(shape) - shape - lgamma(shape) - jnp.log(row.y)

    return Density(
        kernel,
        start=_positive_start(family.link),
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=lambda mu, phi, w: phi[0] * mu * mu / w,
        constant=constant,
    )


def inverse_gaussian(family) -> Density:
    """Variance phi[0] mu^3 / w."""

    def kernel(row, eta, phi):
        mu = POSITIVE[family.link](eta)[1]
        return -0.5 * row.w / phi[0] * ((row.y - mu) / mu) ** 2 / row.y

    def constant(row, phi):
        return 0.5 * (jnp.log(row.w) - jnp.log(phi[0]) - 3.0 * jnp.log(row.y)) - HALF_LOG_2PI

    return Density(
        kernel,
        start=_positive_start(family.link),
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=lambda mu, phi, w: phi[0] * mu**3 / w,
        constant=constant,
    )


def beta(family) -> Density:
    """Beta(mu precision, (1 - mu) precision), precision phi[0]."""

    def kernel(row, eta, phi):
        success, failure = LOGS[family.link](eta)
        a, b = phi[0] * jnp.exp(success), phi[0] * jnp.exp(failure)
        return row.w * (a * jnp.log(row.y) + b * jnp.log1p(-row.y) - lgamma(a) - lgamma(b))

    def constant(row, phi):
        return row.w * (lgamma(phi[0]) - jnp.log(row.y) - jnp.log1p(-row.y))

    return Density(
        kernel,
        start=lambda row: LINK[family.link](0.01 + 0.98 * row.y),
        location=lambda eta, phi: INVERSE[family.link](eta),
        variance=lambda mu, phi, w: mu * (1.0 - mu) / (1.0 + phi[0]) / w,
        constant=constant,
    )


def student(family) -> Density:
    """Scale phi[0], phi[1] degrees of freedom; the variance is infinite up to two of them."""

    def kernel(row, eta, phi):
        z = (row.y - eta) / phi[0]
        return -0.5 * row.w * (phi[1] + 1.0) * jnp.log1p(z * z / phi[1])

    def constant(row, phi):
        normaliser = (
            lgamma_ratio(0.5 * phi[1], 0.5 + 0.0 * row.y)
            - 0.5 * jnp.log(jnp.pi * phi[1])
            - jnp.log(phi[0])
        )
        return row.w * normaliser

    def variance(mu, phi, w):
        heavy = phi[1] <= 2.0
        factor = jnp.where(heavy, jnp.inf, phi[1] / jnp.where(heavy, 1.0, phi[1] - 2.0))
        return phi[0] ** 2 * factor / w + 0.0 * mu

    return Density(
        kernel,
        start=lambda row: row.y,
        location=lambda eta, phi: eta,
        variance=variance,
        constant=constant,
    )
