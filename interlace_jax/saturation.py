"""Models with as many random effects as rows, as `cov` allows them: whether the residual is told from the effects.

The residual variance is not determined if its derivative of V, W^-1, is a combination of the others, K (x) dSigma: then
another split of V gives the same likelihood. And it may be estimated as 0, where V stays regular without a residual;
theta, which is relative to it, then runs off to infinity. Neither can be where there are fewer effects than rows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np

from . import covariance
from .compute import run
from .dense import Dense
from .design import Design, Factor
from .errors import listed
from .estimation import NEAR_ZERO, Estimate
from .grouping import level_roots
from .large import Iterative

PROBES = 3  # random vectors on which linear identities between n x n matrices are checked
IN_SPAN = 1e-7  # relative residual below which an array is in the span of others
AWAY = 0.5  # from the start of a structure, which may be special (AR1 without correlation)
FEWER = 10.0  # part of theta at which a model has clearly more of a residual
RISE = 0.01  # deviance units that more of a residual must cost where it is determined


def residual_doubt(design: Design, core: Dense | Iterative, e: Estimate, reml: bool) -> str | None:
    """Why the residual variance of a fit means nothing, in words; None where it does."""
    effects = sum(len(f.levels) * len(f.columns) for f in design.factors)
    if effects + len(design.columns) < len(design.y):
        return None
    names = listed(f.name for f in design.factors)
    advice = "consider fewer random effects, or a structure with less freedom"
    if any(f.is_structured for f in design.factors) and _is_confounded(design):
        return (
            f"the residual variance cannot be told from the variances that cov allows for {names}, as no two rows "
            f"share an effect: only their sum is estimated, and so are coefficients; {advice}"
        )
    if e.sigma < NEAR_ZERO * core.products.scale and _vanishes(design, core, e, reml):
        return (
            f"the residual standard deviation is estimated as 0 (the random effects of {names}, as many as rows, "
            "account for everything): coefficients and covariances are estimated, but theta, which is relative to it, "
            f"is arbitrary; {advice}"
        )
    return None


def _is_confounded(design: Design) -> bool:
    """Whether W^-1 is a combination of the derivatives of V by the covariances, on random vectors."""
    n, factors = len(design.y), design.factors
    probes = np.random.default_rng(0).normal(size=(n, PROBES))
    thetas = [_generic(f) for f in factors]
    roots = level_roots(factors, np.concatenate(thetas))
    others = [V for f, theta, L in zip(factors, thetas, roots, strict=True) for V in _derivatives(f, theta, L, probes)]
    basis = np.reshape(others, (len(others), -1)).T
    residual = (probes if design.weights is None else probes / design.weights[:, None]).ravel()
    left = residual - basis @ np.linalg.lstsq(basis, residual, rcond=None)[0]
    return np.linalg.norm(left) < IN_SPAN * np.linalg.norm(residual)


def _generic(f: Factor) -> np.ndarray:
    """Parameters of a factor where nothing is special."""
    block = f.block
    within, across = map(np.asarray, covariance.shape_start(block))
    own = np.ones(block.own) if block.is_pattern else np.append(1.0, within + AWAY)
    return np.append(own, across)


def _derivatives(f: Factor, theta: np.ndarray, L: np.ndarray | None, probes: np.ndarray) -> Sequence[np.ndarray]:
    """(K (x) dSigma) u, for all derivatives of Sigma, in the rows: arrays (n, r)."""
    sums = np.zeros((len(f.levels), len(f.columns), probes.shape[1]))
    np.add.at(sums, f.codes, f.Z[:, :, None] * probes[:, None, :])
    covarying = sums if L is None else np.tensordot(L @ L.T, sums, 1)
    slopes = run(_slopes, theta, f.block)
    return [np.einsum("nk,kl,nlr->nr", f.Z, S, covarying[f.codes]) for S in np.moveaxis(slopes, -1, 0)]


@functools.partial(jax.jit, static_argnums=1)
def _slopes(theta, block):
    """Derivatives (k, k, d) of Sigma = Lambda Lambda' by theta (d,)."""

    def sigma(theta):
        (Lam,) = covariance.factors(theta, (block,))
        return Lam @ Lam.T

    return jax.jacfwd(sigma)(theta)


def _vanishes(design: Design, core: Dense | Iterative, e: Estimate, reml: bool) -> bool:
    """Whether the likelihood hardly minds more of a residual."""
    scales = [np.arange(f.block.size) < (f.block.own if f.block.is_pattern else 1) for f in design.factors]
    less = np.where(np.concatenate(scales), e.theta / FEWER, e.theta)
    return core.deviance(less, reml) - core.deviance(e.theta, reml) < RISE
