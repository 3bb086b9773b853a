"""The Gaussian deviance: beta and sigma profiled out of what elimination leaves, or held."""

from __future__ import annotations

from typing import NamedTuple

from ...support.later import jax, jnp
from ..crossproducts.moments import Moments
from ..linalg.matrices import inverse, inverse_upper, logdet_quadratic
from .coordinates import log_prior
from .elimination import Reduced, reduce


class Profiled(NamedTuple):
    """Pieces of the profiled deviance."""

    logdet: jax.Array  # () log|M| + [REML] log|R_X'R_X|
    r2: jax.Array  # () penalised residual sum of squares, in units of the response's scale
    nu: jax.Array  # () n or n - p
    scale: jax.Array  # ()

    @property
    def sigma(self):
        """Residual standard deviation."""
        return self.scale * jnp.sqrt(self.r2 / self.nu)

    @property
    def deviance(self):
        """-2 log L up to the weights, with sigma^2 = r2 / nu."""
        return self.logdet + self.nu * (
            1.0 + jnp.log(2.0 * jnp.pi * self.r2 / self.nu) + 2.0 * jnp.log(self.scale)
        )

    def at(self, log_sigma):
        """-2 log L up to the weights, at another sigma than the optimum."""
        lack = self.r2 * jnp.exp(2.0 * (jnp.log(self.scale) - log_sigma))
        return self.logdet + self.nu * (jnp.log(2.0 * jnp.pi) + 2.0 * log_sigma) + lack


def profile(reduced: Reduced, m: Moments, reml) -> Profiled:
    """Put beta at its optimum. reml: True for the restricted likelihood, may be traced."""
    logdet_x, explained = logdet_quadratic(reduced.XX, reduced.Xy[:, None])
    logdet_r = 2.0 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(m.R))))
    logdet = reduced.logdet + jnp.where(reml, logdet_x + logdet_r, 0.0)
    return Profiled(logdet, reduced.yy - explained[0, 0], m.n - jnp.where(reml, m.p, 0), m.scale)


def coefficients(reduced: Reduced, m: Moments):
    """Fixed effects beta (p,) at their optimum, in the user's units."""
    return m.beta0 + m.scale * inverse_upper(m.R) @ (inverse(reduced.XX) @ reduced.Xy)


def deviance(t, m: Moments, reml):
    """Profiled deviance -2 log L of t (d,): beta and sigma at their optimum.

    NaN where r2 is not positive.
    """
    return profile(reduce(t, m), m, reml).deviance - m.log_weights


def objective(t, m: Moments, reml):
    """What a fit minimises: the deviance of t (d,), less twice the log-density of the priors
    where there are any.
    """
    return deviance(t, m, reml) - 2.0 * log_prior(t, m)
