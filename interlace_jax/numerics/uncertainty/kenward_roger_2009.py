"""Kenward & Roger's adjustment where V is not linear in its parameters, free of how they are
chosen.

With V_i = dV / dx_i, V_ij the second derivatives, Phi = (X'V^-1X)^-1, P_i = -X'V^-1 V_i V^-1 X, PP
= V^-1 - V^-1 X Phi X'V^-1, Q_ij = X'V^-1 V_i V^-1 V_j V^-1 X and W the covariance of x from the
observed information:

    linear  Phi_L = Phi + 2 Phi [ sum_ij W_ij (Q_ij - P_i Phi P_j) ] Phi
    2009    Phi_A = Phi_L - 1/2 Phi X'V^-1 D_n V^-1 X Phi,
            D = sum_ij W_ij V_ij,   D_n = D - sum_s a_s V_s,
            a = I^-1 [ 1/2 tr(PP V_s PP D) ]_s,   I_st = 1/2 tr(PP V_s PP V_t)

(Kenward & Roger 2009, Comput. Stat. Data Anal. 53, 2583-2595.) The estimate of x has a bias of
second order; what that does to Phi takes from the curvature D its part D_n normal to the tangent
plane of V, which does not depend on the parametrisation. `linear` leaves the curvature out (Prasad
& Rao; SAS's kr(linear), mmrm's "Kenward-Roger-Linear").

All of it are derivatives of cross-products by *matrices*: V is replaced by its tangent plane at the
estimate, on which second derivatives of X'V^-1X give Q_ij + Q_ji, and those of log|V| +
log|X'V^-1X| minus twice I.
"""

from __future__ import annotations

from ...support.later import jax, jnp, lax
from ..covariance.parameters import beyond, conditioned_factors
from ..crossproducts.moments import Moments
from ..likelihood.coordinates import roots
from ..likelihood.elimination import reduce_covariances
from ..linalg.batching import eigh
from ..linalg.matrices import inverse, inverse_general, inverse_upper, logdet_inverse
from .curvature import jacobian
from .kenward_roger import Adjusted


def kenward_roger_2009(t, log_sigma, W, m: Moments, linear) -> Adjusted:
    """Adjusted covariance of beta at a REML estimate. t (d,): conditioned parameters with psi.

    W (d + 1, d + 1): covariance of x = (t, log sigma), 0 for parameters at the boundary. linear:
    leave the curvature out; may be traced.
    """
    x = jnp.append(t, log_sigma)
    Ks = [None if L is None else L @ L.T for L in roots(t, m)]

    def matrices(x):
        """V over sigma^2 at the estimate: covariances of the random effects by block, of the
        residuals by pattern.
        """
        size = jnp.exp(2.0 * (x[-1] - log_sigma))
        psi = beyond(x[:-1], m.layout.blocks)
        Lams = conditioned_factors(x[:-1], m.layout.blocks, m.A)
        return [size * Lam @ Lam.T for Lam in Lams], size * m.residual.structure.matrices(
            psi, m.residual.patterns
        )

    def reduced(V):
        """X~'V^-1X~ and log|V|."""
        Sigmas, R = V
        moments, logdet = m.residual.of_matrices(_filled(R, m), m)
        found = reduce_covariances(Sigmas, Ks, moments)
        return found.XX, found.logdet + logdet

    V, slopes = jacobian(matrices, x)
    along_x = jax.tree.map(lambda s: jnp.moveaxis(s, -1, 0), slopes)  # V_i, one after another
    # sums of V_i with covariance I
    along_W = jax.tree.map(lambda s: jnp.tensordot(_root(W).T, s, 1), along_x)
    XX, _ = reduced(V)
    Phi = inverse(XX)

    def bends(E):
        """First and second derivative of X~'V^-1X~ along E."""
        return jax.jvp(lambda V: jax.jvp(lambda V: reduced(V)[0], (V,), (E,))[1], (V,), (E,))

    each = jax.tree.map(lambda *a: jnp.concatenate(a), along_x, along_W)
    first, second = lax.map(bends, each)
    P, WQ = first[: len(x)], 0.5 * jnp.sum(second[len(x) :], 0)
    bias = WQ - jnp.einsum("ij,iab,bc,jcd->ad", W, P, Phi, P)
    adjusted = Phi + Phi @ (bias + bias.T) @ Phi

    def curved(u):
        """Second derivative of V along u."""
        return jax.jvp(lambda y: jax.jvp(matrices, (y,), (u,))[1], (x,), (u,))[1]

    D = jax.tree.map(lambda a: jnp.sum(a, 0), lax.map(curved, _root(W).T))

    def criterion(V):
        XX, logdet = reduced(V)
        return logdet + logdet_inverse(XX)[0]

    def half_trace(E):
        """1/2 tr(PP V_s PP E) for every V_s."""
        change = jax.jvp(jax.grad(criterion), (V,), (E,))[1]
        sums = jax.tree.map(lambda c, s: jnp.tensordot(c, s, c.ndim), change, slopes)
        return -0.5 * sum(jax.tree.leaves(sums))

    traces = lax.map(
        half_trace, jax.tree.map(lambda s, d: jnp.concatenate([s, d[None]]), along_x, D)
    )
    used = jnp.diagonal(W) > 0.0
    information = jnp.where(used[:, None] & used[None], traces[:-1], jnp.eye(len(x), dtype=x.dtype))
    a = inverse_general(information) @ jnp.where(used, traces[-1], 0.0)
    normal = jax.tree.map(lambda d, s: d - s @ a, D, slopes)
    bent, _ = bends(normal)  # -X'V^-1 D_n V^-1 X
    adjusted = jnp.where(linear, adjusted, adjusted + 0.5 * Phi @ bent @ Phi)

    back = inverse_upper(m.R)

    def to_user(S):
        """R^-1 S R^-T in units of the response."""
        return jnp.exp(2.0 * log_sigma) * back @ S @ back.T

    return Adjusted(
        to_user(Phi), to_user(adjusted), jax.vmap(lambda p: to_user(-Phi @ p @ Phi))(P), W
    )


def _root(W):
    """U with U U' = W (d, d), positive semidefinite."""
    values, vectors = eigh(W)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]


def _filled(R, m):
    """R (m, m, P) with ones on the diagonal where a place has no row, whatever the size of the
    others.
    """
    empty = ~m.residual.patterns.seen
    return jnp.where(empty[:, None] & jnp.eye(R.shape[0], dtype=bool)[:, :, None], 1.0, R)
