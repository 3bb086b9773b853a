"""What a family computes: its log-density in two parts, means and variances. Elementwise in rows.

    log f(y_i) = kernel(row, eta, phi) + constant(row, phi)

What does not depend on eta belongs to the constant, which Newton's method for the random effects
never evaluates (of a negative binomial it is three quarters of the work). Scores, weights and third
derivatives are the kernel's derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...support.later import jax, jnp


class Row(NamedTuple):
    """Responses as a density takes them, (n,) each."""

    # the response; of a binomial the successes; of an ordinal response the category, from 0
    y: jax.Array
    w: jax.Array  # prior weights
    m: jax.Array  # trials; 1 where the family has none


def _none(row, phi):
    return jnp.zeros_like(row.y)


def _same(mu, phi):
    return mu


class Density(NamedTuple):
    """The functions of a family. phi: its parameters on their natural scale, a tuple of () or
    (n,).
    """

    kernel: Callable  # (row, eta, phi) -> (n,)
    start: Callable  # (row) -> eta (n,), near which the linear predictor is searched first
    # (eta, phi) -> mu, the inverse link; of an ordinal response the probabilities (n, categories)
    location: Callable
    # (mu, phi, w) -> variance of a response, of a proportion where there are trials
    variance: Callable | None
    constant: Callable = _none  # (row, phi) -> (n,)
    # (mu, phi) -> mean of a response, of a proportion where there are trials
    mean: Callable = _same


def log_density(density: Density, row: Row, eta, phi):
    """Log-density of every row (n,)."""
    return density.kernel(row, eta, phi) + density.constant(row, phi)
