"""What the likelihood asks of a family: log-densities, scores and weights of rows."""

from __future__ import annotations

import functools
from dataclasses import field, replace
from typing import ClassVar

from ...support.containers import container
from ...support.later import jax, jnp, lax
from . import continuous, discrete, mixtures, ordinal
from .density import Density, Row
from .family import Distribution
from .links import INVERSE, LINK
from .ordinal import thresholds
from .special import sigmoid

SATURATED = 40  # Newton steps to the best mean of a row alone

_MADE = {
    "gaussian": continuous.gaussian,
    "student": continuous.student,
    "gamma": continuous.gamma,
    "inverse_gaussian": continuous.inverse_gaussian,
    "beta": continuous.beta,
    "binomial": discrete.binomial,
    "bernoulli": discrete.bernoulli,
    "betabinomial": discrete.betabinomial,
    "poisson": discrete.poisson,
    "nbinom1": discrete.negative_binomial,
    "nbinom2": discrete.negative_binomial,
    "ordinal": ordinal.cumulative,
}
_NATURAL = {
    "real": lambda x: x,
    "logit": lambda x: x,
    "positive": lambda x: jnp.exp(x),
    "unit": sigmoid,
}


def density(family: Distribution) -> Density:
    """The functions of a family."""
    if hasattr(family, "log_density"):
        return _own(family)
    if not hasattr(family, "base"):
        return _MADE[family.name](family)
    base = density(family.base)
    if family.name.startswith("truncated"):
        return mixtures.truncated(family, base)
    return mixtures.zero_inflated(base, is_hurdle=family.base.name.startswith("truncated"))


def _own(family):
    """A family of the user's own."""

    def kernel(row, eta, phi):
        return row.w * family.log_density(row.y, INVERSE[family.link](eta), *phi)

    def start(row):
        near = row.y if family.start is None else family.start(row.y)
        eta = LINK[family.link](near)
        finite = jnp.isfinite(eta)
        usual = jnp.sum(jnp.where(finite, eta, 0.0)) / jnp.maximum(jnp.sum(finite), 1)
        return jnp.where(finite, eta, usual)

    variance = None if family.variance is None else lambda mu, phi, w: family.variance(mu, *phi) / w
    return Density(kernel, start, lambda eta, phi: INVERSE[family.link](eta), variance)


def natural(family: Distribution, free) -> tuple:
    """Parameters as densities take them, from free numbers (r,), or (r, n) where they differ by
    row.
    """
    parts = tuple(free[j] for j in range(len(family.parameters)))
    if family.name == "ordinal":
        return thresholds(parts)
    return tuple(_NATURAL[p.domain](x) for p, x in zip(family.parameters, parts, strict=True))


def kernels(family: Distribution, row: Row, eta, free):
    """Log-densities (n,) up to what is free of eta; 0 where the weight is 0."""
    # A link may have no value at what stands in a row that is not used, and its derivatives would
    # spread from there.
    eta = jnp.where(row.w > 0, eta, LINK[family.link](jnp.full_like(eta, 0.5)))
    return _where_used(row, lambda used: density(family).kernel(used, eta, natural(family, free)))


def constants(family: Distribution, row: Row, free):
    """What log-densities (n,) have besides; 0 where the weight is 0."""
    return _where_used(row, lambda used: density(family).constant(used, natural(family, free)))


def _where_used(row, function):
    """Function of the rows of positive weight; the others are given values that every family can
    have.
    """
    used = row.w > 0
    safe = Row(*(jnp.where(used, a, b) for a, b in zip(row, (0.5, 1.0, 1.0), strict=True)))
    return jnp.where(used, function(safe), 0.0)


def rows_of(family: Distribution, row: Row, eta, free):
    """Log-density, score and observed information of every row, (n,) each, by forward
    derivatives.
    """
    one = jnp.ones_like(eta)

    def slope(eta):
        return jax.jvp(lambda e: kernels(family, row, e, free), (eta,), (one,))

    (value, score), (_, change) = jax.jvp(slope, (eta,), (one,))
    return value, score, -change


@container
class At:
    """Linear predictors of rows (n,), and their parameters on free scales, (n,) each."""

    family: Distribution = field(metadata={"static": True})
    eta: jax.Array
    free: tuple

    sizes: ClassVar[dict[str, int]] = {}

    @functools.cached_property
    def generalised(self) -> At:
        """The same for any number of rows."""
        return replace(self, eta="r", free=("r",) * len(self.free))


def _natural_at(at: At) -> tuple:
    """Natural parameters; thresholds are those of all rows."""
    if at.family.name == "ordinal":
        return natural(at.family, [part[0] for part in at.free])
    return natural(at.family, at.free)


def location_at(at: At):
    """Inverse link (n,); of an ordinal response probabilities (n, categories)."""
    return density(at.family).location(at.eta, _natural_at(at))


def mean_at(at: At):
    """Expected response (n,), of binomial families a proportion; of an ordinal one the
    probabilities.
    """
    phi = _natural_at(at)
    made = density(at.family)
    return made.mean(made.location(at.eta, phi), phi)


def slope_at(at: At):
    """Derivative of `mean_at` by eta."""
    return jax.jvp(lambda eta: mean_at(replace(at, eta=eta)), (at.eta,), (jnp.ones_like(at.eta),))[
        1
    ]


def variance_at(at: At, w):
    """Variance (n,) of a response with weights w."""
    phi = _natural_at(at)
    made = density(at.family)
    return made.variance(made.location(at.eta, phi), phi, w)


def derivatives_at(at: At, y, w, m):
    """Score and observed information of rows (n, 2)."""
    free = [part[0] for part in at.free] if at.family.name == "ordinal" else at.free
    _, score, W = rows_of(at.family, Row(y, w, m), at.eta, free)
    return jnp.stack([score, W], 1)


def log_density_at(at: At, y, w, m):
    """Log-density (n,) of responses y with weights w and m trials."""
    free = [part[0] for part in at.free] if at.family.name == "ordinal" else at.free
    row = Row(y, w, m)
    return kernels(at.family, row, at.eta, free) + constants(at.family, row, free)


def deviance_residuals_at(at: At, y, w, m):
    """Signed roots of twice what the log-density lacks of its largest value over eta: (n,).

    The largest is found by Newton's method from the family's own start, which is the saturated fit
    of a row.
    """
    row = Row(y, w, m)
    free = [part[0] for part in at.free] if at.family.name == "ordinal" else at.free
    made = density(at.family)
    value = kernels(at.family, row, at.eta, free)

    def trip(_, carry):
        eta, best = carry
        _, score, W = rows_of(at.family, row, eta, free)
        step = jnp.clip(score / jnp.maximum(W, 1e-8), -2.0, 2.0)
        new = eta + step
        there = kernels(at.family, row, new, free)
        better = there > best
        return jnp.where(better, new, eta), jnp.where(better, there, best)

    begun = made.start(row)
    first = kernels(at.family, row, begun, free)
    eta, best = lax.fori_loop(
        0, SATURATED, trip, (begun, jnp.where(jnp.isfinite(first), first, -jnp.inf))
    )
    lack = jnp.maximum(2.0 * (jnp.maximum(best, value) - value), 0.0)
    return jnp.sign(eta - at.eta) * jnp.sqrt(lack)
