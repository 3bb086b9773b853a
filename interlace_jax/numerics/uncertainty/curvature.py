"""Second-order facts at the optimum: the joint Hessian, and Satterthwaite's degrees of freedom."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ...support.later import jax, jnp, lax
from ..covariance.parameters import beyond
from ..crossproducts.moments import Moments
from ..estimation.boundary import zero_columns
from ..likelihood.coordinates import log_prior
from ..likelihood.elimination import reduce
from ..likelihood.gaussian import profile
from ..linalg.batching import eigh
from ..linalg.matrices import inverse, inverse_upper

FLAT = 1e-10  # eigenvalues of the Hessian below this part of the largest carry no information


def jacobian(f, x):
    """f(x), and its derivatives by x (d,) on a last axis: one entry of x after another, which
    takes little memory.
    """
    value, along = jax.linearize(f, x)
    return value, jax.tree.map(
        lambda a: jnp.moveaxis(a, 0, -1), lax.map(along, jnp.eye(len(x), dtype=x.dtype))
    )


def parameter_covariance(H):
    """2 H^-1 over the directions in which the deviance curves upwards."""
    values, vectors = eigh(H)
    used = values > FLAT * values[-1]
    return (vectors * jnp.where(used, 2.0 / jnp.where(used, values, 1.0), 0.0)[None]) @ vectors.T


class Curvature(NamedTuple):
    """Second-order facts at an estimate, on the user's scale for beta and in x = (t, log sigma)
    for the variances.
    """

    vcov: jax.Array  # (p, p) covariance of beta
    dvcov: jax.Array  # (d + 1, p, p) its derivatives by x, zero for the parameters left out
    W: jax.Array  # (d + 1, d + 1) covariance of x, zero for the parameters left out


class Derivatives(NamedTuple):
    """Second-order facts at an estimate in conditioned units: what takes time to compute, and to
    compile.
    """

    H: jax.Array  # (d + 1, d + 1) Hessian of the joint deviance in x
    C: jax.Array  # (p, p) inverse of X~'V^-1 X~ sigma^2
    dC: jax.Array  # (d, p, p) its derivatives by t


def derivatives(t, log_sigma, m: Moments, reml, straight: bool = False) -> Derivatives:
    """One pass of derivatives by t over one elimination; those by log sigma follow from where sigma
    enters.

    The joint deviance is logdet(t) + nu (log 2 pi + 2 log sigma) + lack(t), with lack = r2(t) /
    sigma^2. straight: for a model with residual covariance, the same by two simpler derivatives,
    which pays where its cross-products are large; it takes longer to compile.
    """

    def pieces(t, m):
        reduced = reduce(t, m)
        profiled = profile(reduced, m, reml)
        lack = profiled.r2 * jnp.exp(2.0 * (jnp.log(m.scale) - log_sigma))
        return profiled.logdet + lack - 2.0 * log_prior(t, m), (lack, inverse(reduced.XX))

    bent = 0.0
    if straight:
        m, bent = _straightened(lambda m: pieces(t, m)[0], t, m)
    (_, (lack, C)), (H, (dlack, dC)) = jacobian(jax.grad(lambda t: pieces(t, m), has_aux=True), t)
    H = H + bent  # of log|R| and of how A bends
    cross = -2.0 * dlack[:, None]
    return Derivatives(
        jnp.block([[H, cross], [cross.T, 4.0 * lack[None, None]]]), C, jnp.moveaxis(dC, -1, 0)
    )


def _straightened(deviance, t, m: Moments):
    """The moments with cross-products linear in psi, and what second derivatives (d, d) then lack.

    With cross-products A(psi) the deviance is g(t, A(psi)) + log|R|. Its second derivatives are
    those of g where A goes straight, without classes or rows in them, and those of log|R| +
    <dg/dA, A(psi)> with dg/dA held, which need R alone.
    """
    residual, psi = m.residual, beyond(t, m.layout.blocks)
    straight = residual.linearised(psi, m)
    whole = replace(m, residual=straight)

    def by_products(products):
        return deviance(replace(whole, residual=replace(straight, products=products)))

    curved = residual.curved(psi, jax.grad(by_products)(straight.products), m)
    d, r = t.shape[0], psi.shape[0]
    bent = jacobian(jax.grad(curved), psi)[1]
    return whole, jnp.zeros((d, d), t.dtype).at[d - r :, d - r :].set(bent)


def curvature(t, log_sigma, m: Moments, reml, straight: bool = False) -> Curvature:
    """Covariance of beta and of the variance parameters, and the derivatives of the former by
    the latter.
    """
    return in_user_units(derivatives(t, log_sigma, m, reml, straight), t, log_sigma, m)


def in_user_units(found: Derivatives, t, log_sigma, m: Moments) -> Curvature:
    """The `curvature` that follows from the derivatives at t (d,) and log sigma."""
    _, zero = zero_columns(t, m.layout.blocks)
    free = jnp.append(~zero, True)
    both = free[:, None] & free[None]
    W = parameter_covariance(jnp.where(both, found.H, jnp.eye(len(free), dtype=found.H.dtype)))
    S = inverse_upper(m.R)
    vcov, dvcov = (jnp.exp(2.0 * log_sigma) * S @ C @ S.T for C in (found.C, found.dC))
    dvcov = jnp.where(free[:-1, None, None], dvcov, 0.0)
    return Curvature(vcov, jnp.concatenate([dvcov, 2.0 * vcov[None]]), jnp.where(both, W, 0.0))


def degrees_of_freedom(contrasts, c: Curvature):
    """Satterthwaite's nu = 2 v^2 / (g'Wg) of every contrast c'beta: (r,).

    v = c' Cov(beta) c as a function of the variance parameters, g its gradient, W their covariance
    (Giesbrecht & Burns 1985; as lmerTest, with exact derivatives). contrasts (r, p), on the user's
    scale; NumPy or JAX.
    """
    v = ((contrasts @ c.vcov) * contrasts).sum(-1)
    # relative, or squares overflow
    g = ((contrasts[None] @ c.dvcov) * contrasts[None]).sum(-1) / v[None]
    return 2.0 / ((c.W @ g) * g).sum(0)


def satterthwaite(t, log_sigma, contrasts, m: Moments, reml):
    """`degrees_of_freedom` of every contrast (r, p) at an estimate: (r,)."""
    return degrees_of_freedom(contrasts, curvature(t, log_sigma, m, reml))
