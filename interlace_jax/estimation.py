"""Moments to estimate: start values, BFGS, and the truth about the boundary. Pure: jit it, vmap it."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.dtypes import float0

from . import optimize
from .covariance import (
    canonical_parameters,
    carriers,
    columns,
    conditioned_factors,
    factors,
    read,
    shape_start,
    to_user,
    user_blocks,
)
from .crossproducts import Moments
from .likelihood import Reduced, coefficients, objective, profile, reduce
from .linalg import eigh, inverse, inverse_general, inverse_upper, symmetric

LEAST_SHARE = 0.005  # of the variance that a column starts with: from less, zero variances take longer
NEAR_ZERO = 0.03  # standard deviation relative to sigma, per column of unit RMS, below which zero is tried
FREE_RISE = 1e-8  # deviance units that going to exactly zero may cost
PROBE = 1e-3  # step of the differences that measure the curvature of a zero column
SADDLE = -1e-4  # curvature below which a zero column is no minimum
SINGULAR = 1e-4  # lme4's tolerance, made free of scale
NEGLIGIBLE = 1e-7  # deviance units: a search that stalled with less than this to gain has converged


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Estimate:
    """A fitted model as arrays. `theta` and `beta` are on the user's scale, the others as said."""

    t: jax.Array  # (d,) conditioned parameters
    theta: jax.Array  # (d,) lme4's theta; of a structured factor its scale and free numbers, then those of K
    beta: jax.Array  # (p,)
    sigma: jax.Array  # () residual standard deviation
    vcov: jax.Array  # (p, p) covariance of beta
    deviance: jax.Array  # () -2 log L, or -2 log L_REML, without priors
    gradient: jax.Array  # (d,) of the deviance, priors included, with respect to t
    predicted_decrease: jax.Array  # () deviance units still to gain, by the optimiser's quadratic model
    steps: jax.Array  # () evaluations
    status: jax.Array  # () one of optimize.CONVERGED, STALLED, EXHAUSTED
    vanishing: list[jax.Array]  # per factor, in the user's order (k,): columns of Lambda that are singular

    noise = theta_noise = 0.0  # see `Optimum`; not 0 where the deviance is itself estimated

    @property
    def converged(self):
        """Whether what is left to gain is negligible; () or by lane."""
        done = (abs(self.deviance) < np.inf) & (self.predicted_decrease < NEGLIGIBLE)
        return (self.status == optimize.CONVERGED) | done


def _diagonals(m: Moments):
    """Per block, the diagonal of every level's Gram matrix and the scores Z'Wy~: two lists of arrays (k, m)."""
    grams, scores = [jnp.einsum("kkm->km", G) for G in m.G], list(m.Zy)
    diagonal = jnp.diagonal(m.XX)
    for block, start, end in zip(m.layout.core, m.layout.offsets, m.layout.offsets[1:], strict=False):
        G, s = (a[start:end].reshape(block.levels, block.k).T for a in (diagonal, m.Xy))
        if block.across is not None:  # whose columns are not of unit size
            total = jnp.sum(G, 1, keepdims=True)
            size = jnp.where(total > 0, m.n / total, 1.0)
            G, s = size * G, jnp.sqrt(size) * s
        grams.append(G)
        scores.append(s)
    return grams, scores


def moment_start(m: Moments):
    """One-way moment estimates of the variances, each factor and column as if alone: t (d,).

    E sum_i s_i^2 = u sum_i G_i^2 + sigma^2 sum_i G_i for the scores s_i = z_i'W y~ of one column, with sum_i G_i = n
    and total variance u + sigma^2 = 1 by conditioning. Correlations start at 0.
    """
    shares = []
    for G, s in zip(*_diagonals(m), strict=True):
        spread = jnp.maximum(jnp.sum(G**2, 1) - m.n, 1e-6 * m.n)
        shares.append(jnp.clip((jnp.sum(s**2, 1) - m.n) / spread, LEAST_SHARE, 0.9))
    residual = jnp.maximum(1.0 - sum(jnp.sum(u) for u in shares), 0.1)
    return jnp.concatenate([_start(jnp.sqrt(u / residual), b) for u, b in zip(shares, m.layout.blocks, strict=True)])


def _start(sd, block):
    """Parameters of a block whose columns have these SDs (k,) and do not correlate, as far as it can be so."""
    within, across = shape_start(block)
    own = read(jnp.diag(sd), block) if block.is_pattern else jnp.append(jnp.sqrt(jnp.sum(sd**2)), within)
    return jnp.append(own, across) if block.size > block.own else own


def curvature(t, m: Moments):
    """Rough diagonal of the deviance's Hessian (d,): the expected information were all columns orthogonal.

    For Lambda_ij, tr(V^-1 dV V^-1 dV) summed over levels, with K = G / (1 + t_jj^2 G) in place of Z'V^-1 Z.
    """
    found, at = [], 0
    for j, (block, G) in enumerate(zip(m.layout.blocks, _diagonals(m)[0], strict=True)):
        values = t[at : at + block.size]
        at += block.size
        if not block.is_pattern or block.across is not None:
            found.append(_structured_curvature(values, block, m.A[j], m.K[j], G))
            continue
        places = np.array(block.parameters)
        own = values[np.flatnonzero(places[:, 0] == places[:, 1])] ** 2
        K = G / (1.0 + own[:, None] * G)
        rows, cols = places.T
        found.append(np.where(rows == cols, 4.0, 2.0) * own[cols] * jnp.sum(K[rows] * K[cols], 1))
    return jnp.concatenate(found)


def _structured_curvature(values, block, A, K, G):
    """The same from dSigma = d(Lambda~ Lambda~'), and for the numbers of K from dK."""

    def covariance(values):
        (Lam,) = conditioned_factors(values, (block,), (A,))
        L = jnp.eye(1, dtype=values.dtype) if block.across is None else block.across.root(values[block.own :], K)
        return Lam @ Lam.T, L @ L.T

    (S, _), (dS, dK) = covariance(values), jax.jacfwd(covariance)(values)
    precision = G / (1.0 + jnp.diagonal(S)[:, None] * G)
    within = jnp.einsum("abi,am,bm->i", dS**2, precision, precision)
    if block.size == block.own:
        return within
    across = jnp.einsum("mli,am,al,a->i", dK**2, precision, precision, jnp.diagonal(S) ** 2)
    return within + across


def begin(t, m: Moments) -> optimize.Bfgs:
    """The search from t (d,), or from moment estimates, before its first evaluation."""
    t = moment_start(m) if t is None else t
    return optimize.start(t, curvature(t, m))


def search(m: Moments, reml, begun: optimize.Bfgs) -> optimize.Bfgs:
    """BFGS on the profiled deviance."""
    return optimize.minimise(jax.value_and_grad(lambda t: objective(t, m, reml)), begun)


def near_zero(t, blocks):
    """Whether each diagonal entry of the Lambda~ is small enough to be tried at zero: (..., K) of t (..., d)."""
    return abs(t[..., np.array([c[0] for c in columns(blocks)])]) < NEAR_ZERO


def is_exhausted(status, deviance):
    """Whether a search is to go on from where it ended, at some deviance, with the curvature there.

    It may have crept for hundreds of steps: where two columns of Lambda are all but zero, what they share can be turned
    from one to the other for almost nothing, and the curvature it began with is far off.
    """
    return (status == optimize.EXHAUSTED) & (abs(deviance) < np.inf)


def attempts(blocks) -> int:
    """Searches to make at most: each restart off a saddle frees one column of Lambda."""
    return 3 + len(columns(blocks))


class Settled(NamedTuple):
    """Parameters (d,) after the boundary has been looked at, and whether a search from them can still gain."""

    t: jax.Array
    restart: jax.Array


def settle(t, m: Moments, reml) -> Settled:
    """Set diagonal entries of Lambda that are all but zero to exactly zero, and leave saddles.

    The deviance is even in each column of Lambda, so a zero column is stationary whether it is a minimum or a saddle.
    Where its curvature is negative, t moves off it, and `restart` says so.
    """
    blocks = m.layout.blocks
    diagonals = jnp.array([c[0] for c in columns(blocks)])

    def try_zero(i, carry):
        t, f = carry
        candidate = canonical_parameters(t.at[diagonals[i]].set(0.0), blocks)
        value = objective(candidate, m, reml)
        take = (jnp.abs(t[diagonals[i]]) < NEAR_ZERO) & (value <= f + FREE_RISE)
        return jnp.where(take, candidate, t), jnp.where(take, value, f)

    t = canonical_parameters(t, blocks)
    t, _ = lax.fori_loop(0, len(diagonals), try_zero, (t, objective(t, m, reml)))
    probed = lax.map(lambda e: jax.grad(objective)(t + PROBE * e, m, reml), jnp.eye(t.shape[0], dtype=t.dtype)) / PROBE
    return leave_saddle(t, probed, blocks)


def leave_saddle(t, probed, blocks) -> Settled:
    """Move t (d,) off a saddle; probed (d, d): gradients at PROBE along every parameter, over PROBE."""
    within, zero = zero_columns(t, blocks)
    curvature = jnp.where(within & zero[:, None] & zero[None], probed, jnp.eye(t.shape[0], dtype=t.dtype))
    values, vectors = eigh(symmetric(curvature))
    saddle = values[0] < SADDLE
    return Settled(jnp.where(saddle, t + 0.1 * vectors[:, 0], t), saddle)


def zero_columns(t, blocks):
    """Pairs of parameters of one column of Lambda (d, d), and the parameters whose column is zero (d,).

    With a column go the numbers that mean nothing without it.
    """
    within = np.zeros((t.shape[0],) * 2, bool)
    for c in columns(blocks):
        within[np.ix_(c, c)] = True
    return within, ~jnp.any(carriers(blocks) & (t != 0)[None], 1)


def estimate(m: Moments, reml=True, t0=None) -> Estimate:
    """Fit by (restricted) maximum likelihood. t0 (d,): conditioned start, by default from the moments.

    Differentiable in the moments, and so in y, X, Z, weights and offset, in forward and reverse mode and at every
    order, by the implicit function theorem: nothing is differentiated through the iterations. The derivatives are those
    of `t theta beta sigma vcov deviance`; what says how the search ended has none. Zero columns of Lambda stay zero:
    by symmetry their derivative is 0 while the optimum stays at the boundary, and there is none where it leaves it.
    """
    t, *ended = _optimum(m, reml, moment_start(m) if t0 is None else t0)
    return finish(t, m, reml, *ended)


@jax.custom_jvp
def _optimum(m, reml, t0):
    """Conditioned t (d,) at the optimum; gradient, predicted decrease, evaluations and status of the search for it."""

    def attempt(carry):
        t, _, tries, steps, _ = carry
        found = search(m, reml, begin(t, m))
        t = found.optimum
        look = near_zero(t, m.layout.blocks).any()
        t, restart = lax.cond(look, lambda t: settle(t, m, reml), lambda t: Settled(t, jnp.bool(False)), t)
        return t, restart | is_exhausted(found.status, found.f), tries + 1, steps + found.steps, found

    first = (t0, jnp.bool(True), jnp.int32(0), jnp.int32(0), optimize.start(t0, jnp.ones_like(t0)))
    t, _, _, steps, found = lax.while_loop(lambda c: c[1] & (c[2] < attempts(m.layout.blocks)), attempt, first)
    return t, found.g, found.predicted_decrease, steps, found.status


@_optimum.defjvp
def _optimum_jvp(primals, tangents):
    """The gradient stays 0 along the optimum: H dt = -(d gradient / d m) dm over the columns that are not zero."""
    m, reml, t0 = primals
    t, *ended = _optimum(m, reml, t0)
    gradient = jax.grad(objective)
    _, moved = jax.jvp(lambda m: gradient(t, m, reml), (m,), (tangents[0],))
    _, zero = zero_columns(t, m.layout.blocks)
    free = ~zero
    H = jnp.where(free[:, None] & free[None], jax.jacfwd(gradient)(t, m, reml), jnp.eye(t.shape[0], dtype=t.dtype))
    dt = -inverse_general(H) @ jnp.where(free, moved, 0.0)
    none = [jnp.zeros_like(a) if jnp.issubdtype(a.dtype, jnp.floating) else np.zeros(a.shape, float0) for a in ended]
    return (t, *ended), (dt, *none)


def finish(t, m: Moments, reml, gradient, predicted_decrease, steps, status) -> Estimate:
    """Everything of the estimate that follows from t (d,), and how the search for it ended."""
    t = canonical_parameters(t, m.layout.blocks)
    return describe(t, reduce(t, m), m, reml, gradient, predicted_decrease, steps, status)


def describe(t, reduced: Reduced, m: Moments, reml, gradient, predicted_decrease, steps, status) -> Estimate:
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
        vanishing=_vanishing(factors(theta, user_blocks(m.layout)), m),
    )


def _vanishing(Lams, m):
    """A diagonal entry of Lambda, the SD relative to sigma that is its column's own, times the RMS of Z's column."""
    rms = [jnp.sqrt(jnp.sum(m.A[j] ** 2, 0)) for j in m.layout.order]
    return [jnp.abs(jnp.diagonal(Lam)) * r < SINGULAR for Lam, r in zip(Lams, rms, strict=True)]
