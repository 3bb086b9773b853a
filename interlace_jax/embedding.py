"""The mixed model as pure functions of arrays, for use inside other JAX programs.

They take and return pytrees, work under `jit`, `vmap`, `grad`, `jvp` and their compositions, and compute in the dtype
they are given. In float32 the deviance is good to about six digits; JAX's 64-bit mode gives the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .covariance import to_conditioned
from .crossproducts import Moments
from .crossproducts import moments as _moments
from .estimation import Estimate
from .estimation import estimate as _estimate
from .families import pair
from .likelihood import profile, reduce
from .modes import modes
from .structure import plan


def moments(y, X, groups: Sequence[tuple], weights=None, offset=None) -> Moments:
    """Cross-products of the rows: all that the functions below need of the data.

    y (n,). X (n, p), of full column rank. groups: per grouping factor `(codes, Z)` or `(codes, Z, third)` with codes
    (n,) concrete integers from 0 (they decide shapes, so they cannot be traced) and Z (n, k). The third is either the
    numbers of columns of mutually uncorrelated terms, `(2,)` for `(1 + x | g)`, the default, and `(1, 1)` for
    `(1 + x || g)`; or a covariance structure as `fit` takes in `cov`: `AR1()`, `Known(K)`, `Kernel(...)`, or a tuple.
    weights (n,), zero for rows to leave out. offset (n,).

    Differentiable in y, X, Z, weights and offset, in a JAX array K and in JAX arrays of a kernel's coordinates. K is
    then to be positive definite, with a row for each code from 0 to the largest.
    """
    codes, Z, sizes, covariances, K = zip(*map(_group, groups), strict=True)
    if any(isinstance(c, jax.core.Tracer) for c in codes):
        raise TypeError("the codes of a grouping factor decide shapes and cannot be traced: pass them as NumPy arrays")
    layout = plan([np.asarray(c) for c in codes], sizes, covariances=covariances)
    return _moments(layout, y, X, Z, weights, offset, K)


def _group(group):
    """Codes, Z, sizes, structures within and across levels, and the arrays of the latter."""
    codes, Z, *more = group
    third = more[0] if more else (Z.shape[1],)
    if isinstance(third, tuple | list) and all(isinstance(size, int | np.integer) for size in third):
        return codes, Z, tuple(third), (None, None), None
    within, across = pair(third)
    sizes = (1,) * Z.shape[1] if within is not None and within.independent else (Z.shape[1],)
    static, K = (None, None) if across is None else (across.static, across.data)
    return codes, Z, sizes, (within, static), K


def deviance(theta, m: Moments, reml=True, *, sigma=None, beta=None):
    """-2 log L_REML, or -2 log L, at theta (d,): lme4's theta, factors in the order of `groups`.

    Of a structured factor theta has the scale, the free numbers of its structure, and those of K (logs, for a kernel).
    Priors do not count.
    sigma: residual standard deviation; by default at its optimum. beta (p,): by default at its optimum; if given, the
    likelihood is the full one (reml must be False). Returns a scalar.
    """
    reduced = reduce(to_conditioned(theta, m.layout, m.A), m)
    found = profile(reduced, m, reml)
    if beta is not None:
        if not (isinstance(reml, bool) and not reml):
            raise ValueError("with beta given the likelihood is not restricted: pass reml=False")
        b = m.R @ (beta - m.beta0) / m.scale
        found = found._replace(r2=reduced.yy - 2.0 * b @ reduced.Xy + b @ reduced.XX @ b)
    if sigma is None:
        return found.deviance - m.log_weights
    return found.at(jnp.log(sigma)) - m.log_weights


def estimate(m: Moments, reml=True) -> Estimate:
    """The fitted model: `theta` (d,), `beta` (p,), `sigma`, `vcov` (p, p), `deviance`, and how the search ended.

    Differentiable in the moments, by the implicit function theorem; see `Estimate`.
    """
    return _estimate(m, reml)


def random_effects(fitted: Estimate, m: Moments):
    """Conditional modes (BLUPs) at an estimate: one array (m, k) per factor, in the order of `groups`."""
    return modes(fitted.t, m)


def predict(fitted: Estimate, m: Moments, X, groups: Sequence[tuple]):
    """X beta + Z b for rows X (n, p) and, per factor, `(codes, Z)` with codes (n,) of known levels, -1 for others."""
    total = X @ fitted.beta
    for b, (codes, Z, *_) in zip(random_effects(fitted, m), groups, strict=True):
        total = total + jnp.where(codes >= 0, jnp.einsum("nk,nk->n", Z, b[codes]), 0.0)
    return total
