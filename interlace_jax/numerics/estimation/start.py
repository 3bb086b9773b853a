"""Where a search begins: moment estimates, and a rough diagonal of the deviance's Hessian."""

from __future__ import annotations

import numpy as np

from ...support.later import jax, jnp
from ..covariance.parameters import beyond, conditioned_factors, read, shape_start
from ..crossproducts.moments import Moments
from . import bfgs
from .bfgs import Bfgs
from .residual_start import inverse_curvature, residual_start

# of the variance that a column starts with: from less, zero variances take longer
LEAST_SHARE = 0.005


def _diagonals(m: Moments):
    """Per block, the diagonal of every level's Gram matrix and the scores Z'Wy~: two lists of
    arrays (k, m).
    """
    grams, scores = [jnp.einsum("kkm->km", G) for G in m.G], list(m.Zy)
    diagonal = jnp.diagonal(m.XX)
    for block, start, end in zip(
        m.layout.core, m.layout.offsets, m.layout.offsets[1:], strict=False
    ):
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

    E sum_i s_i^2 = u sum_i G_i^2 + sigma^2 sum_i G_i for the scores s_i = z_i'W y~ of one column,
    with sum_i G_i = n and total variance u + sigma^2 = 1 by conditioning. Correlations start at 0.
    """
    shares = []
    for G, s in zip(*_diagonals(m), strict=True):
        spread = jnp.maximum(jnp.sum(G**2, 1) - m.n, 1e-6 * m.n)
        shares.append(jnp.clip((jnp.sum(s**2, 1) - m.n) / spread, LEAST_SHARE, 0.9))
    residual = jnp.maximum(1.0 - sum(jnp.sum(u) for u in shares), 0.1)
    own = [_start(jnp.sqrt(u / residual), b) for u, b in zip(shares, m.layout.blocks, strict=True)]
    return jnp.concatenate(own if m.residual is None else [*own, residual_start(m)])


def _start(sd, block):
    """Parameters of a block whose columns have these SDs (k,) and do not correlate, as far as it
    can be so.
    """
    within, across = shape_start(block)
    own = (
        read(jnp.diag(sd), block)
        if block.is_pattern
        else jnp.append(jnp.sqrt(jnp.sum(sd**2)), within)
    )
    return jnp.append(own, across) if block.size > block.own else own


def curvature(t, m: Moments):
    """Rough diagonal of the deviance's Hessian (d,): the expected information were all columns
    orthogonal.

    For Lambda_ij, tr(V^-1 dV V^-1 dV) summed over levels, with K = G / (1 + t_jj^2 G) in place of
    Z'V^-1 Z.
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
    """Rough curvature of one structured block, from dSigma = d(Lambda~ Lambda~') and, for the
    numbers of K, dK.
    """

    def covariance(values):
        (Lam,) = conditioned_factors(values, (block,), (A,))
        L = (
            jnp.eye(1, dtype=values.dtype)
            if block.across is None
            else block.across.root(values[block.own :], K)
        )
        return Lam @ Lam.T, L @ L.T

    (S, _), (dS, dK) = covariance(values), jax.jacfwd(covariance)(values)
    precision = G / (1.0 + jnp.diagonal(S)[:, None] * G)
    within = jnp.einsum("abi,am,bm->i", dS**2, precision, precision)
    if block.size == block.own:
        return within
    across = jnp.einsum("mli,am,al,a->i", dK**2, precision, precision, jnp.diagonal(S) ** 2)
    return within + across


def begin(t, m: Moments) -> Bfgs:
    """The search from t (d,), or from moment estimates, before its first evaluation."""
    t = moment_start(m) if t is None else t
    if m.residual is None:
        return bfgs.start(t, curvature(t, m))
    psi = beyond(t, m.layout.blocks)
    H = inverse_curvature(psi, m)
    if m.layout.blocks:
        own = bfgs.start(t[: len(t) - len(psi)], curvature(t, m)).H
        none = jnp.zeros((len(own), len(psi)), H.dtype)
        H = jnp.block([[own, none], [none.T, H]])
    return bfgs.resume(t, H)
