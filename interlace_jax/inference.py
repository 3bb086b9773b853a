"""Uncertainty from exact derivatives: degrees of freedom of the fixed effects.

Everything variance-parameter inference needs comes from the *joint* deviance in (theta, sigma), never from the one with
sigma profiled out. Parameters in zero columns of Lambda are on the boundary and are left out.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from .deviance import joint_deviance, reduce
from .estimate import zero_columns
from .linalg import inverse
from .moments import Moments

FLAT = 1e-10  # eigenvalues of the Hessian below this part of the largest carry no information


def joint_hessian(t, log_sigma, m: Moments, reml):
    """Hessian (d + 1, d + 1) of the joint deviance in (t, log sigma), with identity rows for parameters left out."""
    d = t.shape[0]
    H = jax.hessian(lambda x: joint_deviance(x[:d], x[d], m, reml))(jnp.append(t, log_sigma))
    _, zero = zero_columns(t, m.layout.blocks)
    free = jnp.append(~zero, True)
    return jnp.where(free[:, None] & free[None], H, jnp.eye(d + 1, dtype=H.dtype)), free


def parameter_covariance(H):
    """2 H^-1 over the directions in which the deviance curves upwards."""
    values, vectors = jnp.linalg.eigh(H)
    used = values > FLAT * values[-1]
    return (vectors * jnp.where(used, 2.0 / jnp.where(used, values, 1.0), 0.0)[None]) @ vectors.T


def satterthwaite(t, log_sigma, contrasts, m: Moments, reml):
    """Satterthwaite degrees of freedom nu = 2 v^2 / (g'Wg) of every contrast c'beta: (r,).

    v = c' Cov(beta) c as a function of (theta, sigma), g its gradient, W the covariance of (theta, sigma)
    (Giesbrecht & Burns 1985; as lmerTest, with exact derivatives). contrasts (r, p), on the user's scale.
    """
    d = t.shape[0]
    rows = solve_triangular(m.R, contrasts.T, trans=1).T

    def variances(x):
        unscaled = inverse(reduce(x[:d], m).XX)
        return jnp.exp(2.0 * x[d]) * jnp.einsum("rp,pq,rq->r", rows, unscaled, rows)

    x = jnp.append(t, log_sigma)
    H, free = joint_hessian(t, log_sigma, m, reml)
    g = jnp.where(free[None], jax.jacfwd(variances)(x), 0.0)
    return 2.0 * variances(x) ** 2 / jnp.einsum("ri,ij,rj->r", g, parameter_covariance(H), g)
