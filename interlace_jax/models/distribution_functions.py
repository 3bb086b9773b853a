"""Distribution functions of responses, given their means and the numbers of their family. Host
SciPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..numerics.families.family import Distribution, Ordinal
from ..support.later import Later, special

stats = Later("scipy.stats")


def probability_limits(
    family: Distribution, y: np.ndarray, mu: np.ndarray, phi: Sequence, w: np.ndarray, m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P(Y < y) and P(Y <= y) of responses y (n,); the same number where responses are continuous.

    mu: the inverse link (n,), of an ordinal response the probabilities (n, categories). phi:
    natural parameters, (n,) each. w, m: prior weights, which scale the variance where a family has
    a dispersion, and trials.
    """
    if isinstance(family, Ordinal):
        below = np.concatenate([np.zeros((len(y), 1)), np.cumsum(mu, axis=1)], axis=1)
        rows, category = np.arange(len(y)), y.astype(int)
        return below[rows, category], np.minimum(below[rows, category + 1], 1.0)
    upto = _upto(family)
    if upto is None:
        raise ValueError(
            f"the distribution function of family {family.name!r} is not known: use "
            f"scaled_residuals(), which simulates"
        )
    if not family.is_count:
        found = upto(y, mu, phi, w, m)
        return found, found
    return upto(np.ceil(y) - 1.0, mu, phi, w, m), upto(y, mu, phi, w, m)


def _upto(family: Distribution) -> Callable | None:
    """The distribution function of a family, (y, mu, phi, w, m) -> (n,); None for one of the user's
    own.
    """
    if not hasattr(family, "base"):
        return _FUNCTIONS.get(family.name)
    base = _upto(family.base)
    return _truncated(base) if family.name.startswith("truncated") else _with_zeros(base)


def _truncated(base):
    def upto(y, mu, phi, w, m):
        zero = base(np.zeros_like(mu), mu, phi, w, m)
        return np.maximum(base(y, mu, phi, w, m) - zero, 0.0) / (1.0 - zero)

    return upto


def _with_zeros(base):
    def upto(y, mu, phi, w, m):
        return np.where(y < 0, 0.0, phi[-1] + (1.0 - phi[-1]) * base(y, mu, phi[:-1], w, m))

    return upto


def _counted(upto):
    """A distribution function of whole numbers, 0 below 0."""
    return lambda y, mu, phi, w, m: np.where(
        y < 0, 0.0, upto(np.floor(np.maximum(y, 0.0)), mu, phi, m)
    )


def _inverse_gaussian(y, mu, phi, w, m):
    root = np.sqrt(w / (phi[0] * y))
    far = np.exp(2.0 * w / (phi[0] * mu) + special.log_ndtr(-root * (y / mu + 1.0)))
    return special.ndtr(root * (y / mu - 1.0)) + far


def _linear_binomial(y, mu, phi, m):
    return special.betainc(mu / phi[0], y + 1.0, 1.0 / (1.0 + phi[0]))


_BINOMIAL = _counted(
    lambda y, mu, phi, m: np.where(
        y >= m, 1.0, special.betaincc(y + 1.0, np.maximum(m - y, 0.5), mu)
    )
)
_FUNCTIONS = {
    "gaussian": lambda y, mu, phi, w, m: special.ndtr((y - mu) * np.sqrt(w) / phi[0]),
    "student": lambda y, mu, phi, w, m: special.stdtr(phi[1], (y - mu) / phi[0]),
    "gamma": lambda y, mu, phi, w, m: special.gammainc(w / phi[0], w * y / (phi[0] * mu)),
    "inverse_gaussian": _inverse_gaussian,
    "beta": lambda y, mu, phi, w, m: special.betainc(mu * phi[0], (1.0 - mu) * phi[0], y),
    "binomial": _BINOMIAL,
    "bernoulli": _BINOMIAL,
    "betabinomial": _counted(
        lambda y, mu, phi, m: stats.betabinom.cdf(y, m, mu * phi[0], (1.0 - mu) * phi[0])
    ),
    "poisson": _counted(lambda y, mu, phi, m: special.gammaincc(y + 1.0, mu)),
    "nbinom2": _counted(
        lambda y, mu, phi, m: special.betainc(phi[0], y + 1.0, phi[0] / (phi[0] + mu))
    ),
    "nbinom1": _counted(_linear_binomial),
}
