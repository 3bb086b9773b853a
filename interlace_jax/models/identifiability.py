"""Models with as many random effects as rows: whether their residual variance is identifiable.

The residual variance is not determined if its derivative of V, W^-1, is a combination of the
others, K (x) dSigma: then another split of V gives the same likelihood. And it may be estimated as
0, where V stays regular without a residual; theta, which is relative to it, then runs off to
infinity. Neither can be where there are fewer effects than rows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ..design.design import Design
from ..design.grouping import Factor
from ..engines.engine import Engine
from ..numerics.covariance import parameters
from ..numerics.covariance.block import Block
from ..numerics.covariance.parameters import shape_start
from ..numerics.estimation.boundary import NEAR_ZERO
from ..numerics.estimation.estimate import Estimate
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.arguments import listed
from ..support.later import jax
from .parameters import level_roots

PROBES = 3  # random vectors on which linear identities between n x n matrices are checked
IN_SPAN = 1e-7  # relative residual below which an array is in the span of others
AWAY = 0.5  # from the start of a structure, which may be special (AR1 without correlation)
FEWER = 10.0  # part of theta at which a model has clearly more of a residual
RISE = 0.01  # deviance units that more of a residual must cost where it is determined
ROUNDING = 1e-14  # least-squares residuals below this part of the response are rounding
# residual SD, relative to that of least squares, below which digits run out (theta^2 of them)
PERFECT = 1e-6
NO_RESIDUAL = "the model fits the response perfectly, to rounding: there is no residual variance"
ADVICE = "consider fewer random effects, or a structure with less freedom"


def residual_doubt(design: Design, engine: Engine, e: Estimate, reml: bool) -> str | None:
    """Why the residual variance of a fit means nothing, in words; None where it does."""
    if is_confounded(design)[0]:
        return confounded_message(design)
    is_saturated = _effects(design) + len(design.columns) >= len(design.y)
    is_small = e.sigma < NEAR_ZERO * engine.products.scale
    if not (is_saturated and is_small):
        return None
    less = _with_less_effect(e.theta, [f.block for f in design.factors])
    if engine.deviance(less, reml) - engine.deviance(e.theta, reml) < RISE:
        return (
            "the residual standard deviation is estimated as 0 (the random effects of "
            f"{_names(design)}, as many as rows, account for everything): coefficients and "
            "covariances are estimated, but theta, which is relative to it, is arbitrary; "
            f"{ADVICE}"
        )
    return None


def weighted_size(design: Design, size: np.ndarray | float) -> np.ndarray | float:
    """The size of responses in the unit of the residual variance, from their largest absolute
    values.
    """
    return size if design.weights is None else size * np.sqrt(design.weights.max())


def is_rounding(size, scale):
    """Whether what least squares leaves of a response of some weighted size, its scale, is
    rounding.
    """
    return scale <= ROUNDING * size


def is_perfect(size, scale, sigma):
    """Whether a fit leaves no residual: theta has run off to infinity, or all of it is rounding."""
    return is_rounding(size, scale) | np.logical_not(sigma > PERFECT * scale)


def confounded_message(design: Design) -> str:
    """What it is about a design whose residual is a part of the random effects."""
    return (
        "the residual variance cannot be told from those of the random effects of "
        f"{_names(design)}: another split between them fits as well, so that only their sum is "
        f"estimated, and so are coefficients; {ADVICE}"
    )


def _names(design: Design) -> str:
    return listed(f.name for f in design.factors)


def _effects(design: Design) -> int:
    return sum(len(f.levels) * len(f.columns) for f in design.factors)


def _with_less_effect(theta: np.ndarray, blocks: Sequence[Block]) -> np.ndarray:
    """theta, or conditioned parameters, (..., d) with clearly more of a residual."""
    scales = np.zeros(theta.shape[-1], bool)
    own = [np.arange(b.size) < (b.own if b.is_pattern else 1) for b in blocks]
    scales[: sum(map(len, own))] = np.concatenate([*own, scales[:0]])
    return np.where(scales, theta / FEWER, theta)


def is_confounded(design: Design, used: np.ndarray | None = None) -> np.ndarray:
    """Whether W^-1 is a combination of the derivatives of V by the covariances, on random vectors:
    (r,).

    used: (r, n) rows of the design that each of r models has; by default one with all.
    """
    n, factors = len(design.X), design.factors
    used = np.ones((1, n), bool) if used is None else used
    if not factors or (_effects(design) + len(design.columns) < used.sum(1)).all():
        return np.zeros(len(used), bool)
    probes = used.T[:, :, None] * np.random.default_rng(0).normal(size=(n, 1, PROBES))
    thetas = [_generic(f) for f in factors]
    roots = level_roots(factors, np.concatenate(thetas))
    of_factors = zip(factors, thetas, roots, strict=True)
    others = [
        V for f, theta, L in of_factors for V in _derivatives(f, theta, L, probes.reshape(n, -1))
    ]
    basis = used.T[None, :, :, None] * np.reshape(others, (len(others), *probes.shape))
    residual = probes if design.weights is None else probes / design.weights[:, None, None]
    return np.array([_is_in_span(residual[:, i].ravel(), basis[:, :, i]) for i in range(len(used))])


def _is_in_span(a: np.ndarray, basis: np.ndarray) -> bool:
    """Whether an array (x,) is a combination of others (b, ...)."""
    basis = basis.reshape(len(basis), -1).T
    left = a - basis @ np.linalg.lstsq(basis, a, rcond=None)[0]
    return bool(np.linalg.norm(left) < IN_SPAN * np.linalg.norm(a))


def _generic(f: Factor) -> np.ndarray:
    """Parameters of a factor where nothing is special."""
    block = f.block
    within, across = map(np.asarray, shape_start(block))
    own = np.ones(block.own) if block.is_pattern else np.append(1.0, within + AWAY)
    return np.append(own, across)


def _derivatives(
    f: Factor, theta: np.ndarray, L: np.ndarray | None, probes: np.ndarray
) -> Sequence[np.ndarray]:
    """(K (x) dSigma) u, for all derivatives of Sigma, in the rows: arrays (n, r)."""
    sums = np.zeros((len(f.levels), len(f.columns), probes.shape[1]))
    np.add.at(sums, f.codes, f.Z[:, :, None] * probes[:, None, :])
    covarying = sums if L is None else np.tensordot(L @ L.T, sums, 1)
    slopes = run(_slopes, theta, f.block.of_any_levels)
    return [
        np.einsum("nk,kl,nlr->nr", f.Z, S, covarying[f.codes]) for S in np.moveaxis(slopes, -1, 0)
    ]


@functools.partial(jit, static_argnums=1)
def _slopes(theta, block):
    """Derivatives (k, k, d) of Sigma = Lambda Lambda' by theta (d,)."""

    def sigma(theta):
        (Lam,) = parameters.factors(theta, (block,))
        return Lam @ Lam.T

    return jax.jacfwd(sigma)(theta)
