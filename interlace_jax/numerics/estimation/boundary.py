"""The boundary of the parameter space: columns of Lambda that vanish, and saddles."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ...support.later import jax, jnp, lax
from ..covariance.parameters import beyond, canonical_parameters, carriers, columns
from ..crossproducts.moments import Moments
from ..likelihood.gaussian import objective
from ..linalg.batching import eigh
from ..linalg.matrices import symmetric

# standard deviation relative to sigma, per column of unit RMS, below which zero is tried
NEAR_ZERO = 0.03
FREE_RISE = 1e-8  # deviance units that going to exactly zero may cost
PROBE = 1e-3  # step of the differences that measure the curvature of a zero column
SADDLE = -1e-4  # curvature below which a zero column is no minimum


def near_zero(t, blocks):
    """Whether each diagonal entry of the Lambda~ is small enough to be tried at zero: (..., K)
    of t (..., d).
    """
    return abs(t[..., np.array([c[0] for c in columns(blocks)], int)]) < NEAR_ZERO


class Settled(NamedTuple):
    """Parameters (d,) after the boundary has been looked at, and whether a search from them can
    still gain.
    """

    t: jax.Array
    restart: jax.Array


def settle(t, m: Moments, reml) -> Settled:
    """Set diagonal entries of Lambda that are all but zero to exactly zero, and leave saddles.

    The deviance is even in each column of Lambda, so a zero column is stationary whether it is a
    minimum or a saddle. Where its curvature is negative, t moves off it, and `restart` says so.
    """
    value = functools.partial(objective, m=m, reml=reml)
    return settled(t, m.layout.blocks, value, jax.grad(value))


def settled(t, blocks, value, gradient) -> Settled:
    """`settle` of any model, from its deviance and gradient as functions of t (d,)."""
    if not blocks:
        return Settled(t, jnp.bool(False))
    diagonals = jnp.array([c[0] for c in columns(blocks)])

    def try_zero(i, carry):
        t, f = carry
        candidate = canonical_parameters(t.at[diagonals[i]].set(0.0), blocks)
        there = value(candidate)
        take = (jnp.abs(t[diagonals[i]]) < NEAR_ZERO) & (there <= f + FREE_RISE)
        return jnp.where(take, candidate, t), jnp.where(take, there, f)

    t = canonical_parameters(t, blocks)
    t, _ = lax.fori_loop(0, len(diagonals), try_zero, (t, value(t)))
    probed = lax.map(lambda e: gradient(t + PROBE * e), jnp.eye(t.shape[0], dtype=t.dtype)) / PROBE
    return leave_saddle(t, probed, blocks)


def leave_saddle(t, probed, blocks) -> Settled:
    """Move t (d,) off a saddle; probed (d, d): gradients at PROBE along every parameter, over
    PROBE.
    """
    within, zero = zero_columns(t, blocks)
    curvature = jnp.where(
        within & zero[:, None] & zero[None], probed, jnp.eye(t.shape[0], dtype=t.dtype)
    )
    values, vectors = eigh(symmetric(curvature))
    saddle = values[0] < SADDLE
    return Settled(jnp.where(saddle, t + 0.1 * vectors[:, 0], t), saddle)


def zero_columns(t, blocks):
    """Pairs of parameters of one column of Lambda (d, d), and the parameters whose column is zero
    (d,).

    With a column go the numbers that mean nothing without it.
    """
    within = np.zeros((t.shape[0],) * 2, bool)
    for c in columns(blocks):
        within[np.ix_(c, c)] = True
    psi = beyond(t, blocks)
    own = t[: t.shape[0] - psi.shape[0]]
    zero = ~jnp.any(carriers(blocks) & (own != 0)[None], 1)
    return within, jnp.append(zero, jnp.zeros_like(psi, bool)) if psi.shape[0] else zero
