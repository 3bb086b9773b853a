"""Moments to estimate: the search, its implicit derivative, and what it found.

Pure: jit it, vmap it.
"""

from __future__ import annotations

import numpy as np

from ...support.containers import container
from ...support.later import custom_jvp, jax, jnp, lax
from ..covariance.parameters import canonical_parameters, columns, factors
from ..crossproducts.moments import Moments
from ..likelihood.coordinates import to_user, user_blocks
from ..likelihood.elimination import Reduced, reduce
from ..likelihood.gaussian import coefficients, objective, profile
from ..linalg.matrices import inverse, inverse_general, inverse_upper
from .bfgs import CONVERGED, EXHAUSTED, Bfgs, minimise, start
from .boundary import Settled, near_zero, settle, zero_columns
from .start import begin, moment_start

SINGULAR = 1e-4  # lme4's tolerance, made free of scale
NEGLIGIBLE = 1e-7  # deviance units: a search that stalled with less than this to gain has converged


@container
class Estimate:
    """A fitted model as arrays. `theta` and `beta` are on the user's scale, the others as said."""

    t: jax.Array  # (d,) conditioned parameters
    # (d,) lme4's theta; of a structured factor its scale and free numbers, then those of K
    theta: jax.Array
    beta: jax.Array  # (p,)
    sigma: jax.Array  # () residual standard deviation
    vcov: jax.Array  # (p, p) covariance of beta
    deviance: jax.Array  # () -2 log L, or -2 log L_REML, without priors
    gradient: jax.Array  # (d,) of the deviance, priors included, with respect to t
    # () deviance units still to gain, by the optimiser's quadratic model
    predicted_decrease: jax.Array
    steps: jax.Array  # () evaluations
    status: jax.Array  # () one of optimize.CONVERGED, STALLED, EXHAUSTED
    # per factor, in the user's order (k,): columns of Lambda that are singular
    vanishing: list[jax.Array]

    noise = theta_noise = 0.0  # see `Optimum`; not 0 where the deviance is itself estimated

    @property
    def converged(self):
        """Whether what is left to gain is negligible; () or by lane."""
        done = (abs(self.deviance) < np.inf) & (self.predicted_decrease < NEGLIGIBLE)
        return (self.status == CONVERGED) | done


def search(m: Moments, reml, begun: Bfgs) -> Bfgs:
    """BFGS on the profiled deviance."""
    return minimise(jax.value_and_grad(lambda t: objective(t, m, reml)), begun)


def is_exhausted(status, deviance):
    """Whether a search is to go on from where it ended, at some deviance, with the curvature there.

    It may have crept for hundreds of steps: where two columns of Lambda are all but zero, what they
    share can be turned from one to the other for almost nothing, and the curvature it began with is
    far off.
    """
    return (status == EXHAUSTED) & (abs(deviance) < np.inf)


def attempts(blocks) -> int:
    """Searches to make at most: each restart off a saddle frees one column of Lambda."""
    return 3 + len(columns(blocks))


def estimate(m: Moments, reml=True, t0=None) -> Estimate:
    """Fit by (restricted) maximum likelihood. t0 (d,): conditioned start, by default from the
    moments.

    Differentiable in the moments, and so in y, X, Z, weights and offset, in forward and reverse
    mode and at every order, by the implicit function theorem: nothing is differentiated through the
    iterations. The derivatives are those of `t theta beta sigma vcov deviance`; what says how the
    search ended has none. Zero columns of Lambda stay zero: by symmetry their derivative is 0 while
    the optimum stays at the boundary, and there is none where it leaves it.
    """
    t, *ended = _optimum(m, reml, moment_start(m) if t0 is None else t0)
    return finish(t, m, reml, *ended)


@custom_jvp
def _optimum(m, reml, t0):
    """Conditioned t (d,) at the optimum; gradient, predicted decrease, evaluations and status of
    the search for it.
    """

    def attempt(carry):
        t, _, tries, steps, _ = carry
        found = search(m, reml, begin(t, m))
        t = found.optimum
        look = near_zero(t, m.layout.blocks).any()
        t, restart = lax.cond(
            look, lambda t: settle(t, m, reml), lambda t: Settled(t, jnp.bool(False)), t
        )
        return (
            t,
            restart | is_exhausted(found.status, found.f),
            tries + 1,
            steps + found.steps,
            found,
        )

    first = (t0, jnp.bool(True), jnp.int32(0), jnp.int32(0), start(t0, jnp.ones_like(t0)))
    t, _, _, steps, found = lax.while_loop(
        lambda c: c[1] & (c[2] < attempts(m.layout.blocks)), attempt, first
    )
    return t, found.g, found.predicted_decrease, steps, found.status


@_optimum.defjvp
def _optimum_jvp(primals, tangents):
    """The gradient stays 0 along the optimum: H dt = -(d gradient / d m) dm over the columns
    that are not zero.
    """
    m, reml, t0 = primals
    t, *ended = _optimum(m, reml, t0)
    gradient = jax.grad(objective)
    _, moved = jax.jvp(lambda m: gradient(t, m, reml), (m,), (tangents[0],))
    _, zero = zero_columns(t, m.layout.blocks)
    free = ~zero
    H = jnp.where(
        free[:, None] & free[None],
        jax.jacfwd(gradient)(t, m, reml),
        jnp.eye(t.shape[0], dtype=t.dtype),
    )
    dt = -inverse_general(H) @ jnp.where(free, moved, 0.0)
    none = [
        jnp.zeros_like(a)
        if jnp.issubdtype(a.dtype, jnp.floating)
        else np.zeros(a.shape, jax.dtypes.float0)
        for a in ended
    ]
    return (t, *ended), (dt, *none)


def finish(t, m: Moments, reml, gradient, predicted_decrease, steps, status) -> Estimate:
    """Everything of the estimate that follows from t (d,), and how the search for it ended."""
    t = canonical_parameters(t, m.layout.blocks)
    return describe(t, reduce(t, m), m, reml, gradient, predicted_decrease, steps, status)


def describe(
    t, reduced: Reduced, m: Moments, reml, gradient, predicted_decrease, steps, status
) -> Estimate:
    """The estimate at a canonical t (d,) from what is left of the cross-products there."""
    theta = to_user(t, m.layout, m.A)
    _, zero = zero_columns(t, m.layout.blocks)
    profiled = profile(reduced, m, reml)
    sigma = profiled.sigma
    S = inverse_upper(m.R)
    return Estimate(
        t=t,
        theta=theta,
        beta=coefficients(reduced, m),
        sigma=sigma,
        vcov=sigma**2 * S @ inverse(reduced.XX) @ S.T,
        deviance=profiled.deviance - m.log_weights,
        gradient=jnp.where(zero, 0.0, jnp.abs(gradient)),
        predicted_decrease=predicted_decrease,
        steps=steps,
        status=status,
        vanishing=vanishing_columns(factors(theta, user_blocks(m.layout)), m),
    )


def vanishing_columns(Lams, m):
    """A diagonal entry of Lambda, the SD relative to sigma that is its column's own, times the
    RMS of Z's column.
    """
    rms = [jnp.sqrt(jnp.sum(m.A[j] ** 2, 0)) for j in m.layout.order]
    return [jnp.abs(jnp.diagonal(Lam)) * r < SINGULAR for Lam, r in zip(Lams, rms, strict=True)]
