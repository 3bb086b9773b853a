"""The mixed model as pure functions of arrays, for use inside other JAX programs.

They take and return pytrees, work under `jit`, `vmap`, `grad`, `jvp` and their compositions at
every order, and compute in JAX's own precision: float64 in its 64-bit mode, else float32. There the
deviance is good to six digits and its derivatives to about four, so that it can be trained on,
while theta is of order 1; digits go with its square, at 100 three are left, and from about 1,000 on
the deviance is NaN. The search of `estimate` stops sooner, and theta, BLUPs and derivatives of the
fit are good to two or three.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .numerics.covariance.across import pair
from .numerics.covariance.block import parameter_count
from .numerics.crossproducts.layout import plan
from .numerics.crossproducts.moments import Moments
from .numerics.crossproducts.moments import moments as _moments
from .numerics.estimation.estimate import Estimate
from .numerics.estimation.estimate import estimate as _estimate
from .numerics.likelihood.coordinates import to_conditioned
from .numerics.likelihood.elimination import reduce
from .numerics.likelihood.gaussian import profile
from .numerics.likelihood.random_effects import modes
from .runtime.calls import own_rules
from .runtime.island import floating
from .support.later import is_jax_array, is_traced, jax, jnp

LARGEST_CODE = np.iinfo(np.int32).max


@own_rules()
def moments(y, X, groups: Sequence[tuple], weights=None, offset=None) -> Moments:
    """Cross-products of the rows: all that the functions below need of the data.

    y (n,). X (n, p), of full column rank. groups: per grouping factor `(codes, Z)` or `(codes, Z,
    third)` with codes (n,) concrete integers from 0 (they decide shapes, so they cannot be traced)
    and Z (n, k). The third is either the numbers of columns of mutually uncorrelated terms, `(2,)`
    for `(1 + x | g)`, the default, and `(1, 1)` for `(1 + x || g)`; or a covariance structure as
    `fit` takes in `cov`: `AR1()`, `Known(K)`, `Kernel(...)`, or a tuple. weights (n,), zero for
    rows to leave out, whatever stands in them. offset (n,).

    Differentiable in y, X, Z, weights and offset, in a JAX array K and in JAX arrays of a kernel's
    coordinates. K is then to be positive definite, with a row for each code from 0 to the largest.
    """
    codes = [_codes(c) for c, *_ in groups]
    y, X, weights, offset = map(_floating, (y, X, weights, offset))
    Z = [_floating(z) for _, z, *_ in groups]
    _check_rows(y, X, Z, weights, offset, codes)
    if weights is not None:
        y, X, offset, *Z = (_without(weights, a) for a in (y, X, offset, *Z))
    sizes, covariances, K = zip(*map(_structure, groups, Z, codes), strict=True)
    return _moments(plan(codes, sizes, covariances=covariances), y, X, Z, weights, offset, K)


def _without(weights, rows):
    """Rows (n, ...) with zeros where the weights (n,) are 0: NaN times 0 would be NaN. None
    stays.
    """
    if rows is None:
        return None
    is_there = (weights != 0).reshape(-1, *(1,) * (rows.ndim - 1))
    return jnp.where(is_there, rows, 0.0)


def _codes(codes):
    if is_traced(codes):
        raise TypeError(
            "the codes of a grouping factor decide shapes and cannot be traced: pass them as "
            "NumPy arrays"
        )
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu" or codes.size == 0 or codes.min() < 0:
        raise ValueError(
            "the codes of a grouping factor are integers from 0, one a row: make them with "
            "np.unique(labels, return_inverse=True)[1]"
        )
    if codes.max() > LARGEST_CODE:
        raise ValueError(
            f"the codes of a grouping factor are at most {LARGEST_CODE}, not {codes.max()}"
        )
    return codes


def _floating(values):
    """Numbers of any kind as an array in JAX's own precision; None stays."""
    if values is None:
        return None
    own = jnp.result_type(float)
    values = values if is_jax_array(values) else np.asarray(values)
    if values.dtype.kind in "biuf":
        return jnp.asarray(values, own)
    return floating(values).astype(own)


def _check_rows(y, X, Z, weights, offset, codes):
    if not codes:
        raise ValueError("groups is empty: give (codes, Z) for each grouping factor")
    if y.ndim != 1:
        raise ValueError(
            f"y has shape {y.shape}; it must be one response (n,): use jax.vmap for several"
        )
    n = len(y)
    named = [("X", X, 2), ("weights", weights, 1), ("offset", offset, 1)]
    for i, (z, code) in enumerate(zip(Z, codes, strict=True)):
        named += [(f"Z of groups[{i}]", z, 2), (f"codes of groups[{i}]", code, 1)]
    for name, a, ndim in named:
        if a is not None and (a.ndim != ndim or len(a) != n):
            wanted = f"({n}, columns)" if ndim == 2 else f"({n},)"
            raise ValueError(f"{name} has shape {a.shape}; y has {n} rows, so it must be {wanted}")


def _structure(group, Z, codes):
    """Sizes of terms, structures within and across levels, and the arrays of the latter."""
    third = group[2] if len(group) > 2 else (Z.shape[1],)
    if isinstance(third, tuple | list) and all(
        isinstance(size, int | np.integer) for size in third
    ):
        if sum(third) != Z.shape[1]:
            raise ValueError(
                f"the terms {tuple(third)} have {sum(third)} columns, but Z has {Z.shape[1]}"
            )
        return tuple(third), (None, None), None
    within, across = pair(third)
    sizes = (1,) * Z.shape[1] if within is not None and within.independent else (Z.shape[1],)
    if across is None:
        return sizes, (within, None), None
    K, levels = jax.tree.map(_floating, across.data), int(codes.max()) + 1
    if wrong := [a.shape for a in jax.tree.leaves(K) if a.shape[:1] != (levels,)]:
        raise ValueError(
            f"the covariance of {levels} levels, codes 0 to {levels - 1}, has an array of shape "
            f"{wrong[0]}"
        )
    return sizes, (within, across.static), K


@own_rules()
def deviance(theta, m: Moments, reml=True, *, sigma=None, beta=None):
    """-2 log L_REML, or -2 log L, at theta (d,): lme4's theta, factors in the order of `groups`.

    Of a structured factor theta has the scale, the free numbers of its structure, and those of K
    (logs, for a kernel). Priors do not count.
    sigma: residual standard deviation; by default at its optimum. beta (p,): by default at its
    optimum; if given, the likelihood is the full one (reml must be False). Returns a scalar.
    Differentiable in all of them and in the moments.
    """
    if beta is not None and not (isinstance(reml, bool) and not reml):
        raise ValueError("with beta given the likelihood is not restricted: pass reml=False")
    m, sigma, beta = _in_jax(m), _floating(sigma), _floating(beta)
    if beta is not None and jnp.shape(beta) != (m.p,):
        raise ValueError(
            f"beta has shape {jnp.shape(beta)}; this model has {m.p} coefficients: ({m.p},)"
        )
    reduced = reduce(to_conditioned(_theta(theta, m), m.layout, m.A), m)
    found = profile(reduced, m, reml)
    if beta is not None:
        b = m.R @ (beta - m.beta0) / m.scale
        found = found._replace(r2=reduced.yy - 2.0 * b @ reduced.Xy + b @ reduced.XX @ b)
    if sigma is None:
        return found.deviance - m.log_weights
    return found.at(jnp.log(sigma)) - m.log_weights


@own_rules()
def estimate(m: Moments, reml=True) -> Estimate:
    """The fitted model: `theta` (d,), `beta` (p,), `sigma`, `vcov` (p, p), `deviance`, and how the
    search ended.

    Differentiable in the moments, by the implicit function theorem; see `Estimate`.
    """
    return _estimate(_in_jax(m), reml)


@own_rules()
def random_effects(fitted: Estimate | jax.Array, m: Moments):
    """Conditional modes (BLUPs) at an estimate or a theta (d,): one array (m, k) per factor, in the
    order of `groups`.

    They are those with beta at its optimum. For a beta of your own, make the moments of `y - X @
    beta` with `X[:, :0]`.
    """
    m = _in_jax(m)
    t = (
        fitted.t
        if isinstance(fitted, Estimate)
        else to_conditioned(_theta(fitted, m), m.layout, m.A)
    )
    return modes(_floating(t), m)


def _theta(theta, m):
    theta, d = _floating(theta), parameter_count(m.layout.blocks)
    if theta.shape != (d,):
        raise ValueError(f"theta has shape {theta.shape}; this model has {d} parameters: ({d},)")
    return theta


def _in_jax(m: Moments) -> Moments:
    """The moments in JAX's own precision: those of a compiled model, or of a 64-bit context that
    ended, are wider.
    """
    if not isinstance(m, Moments):
        raise TypeError(
            f"this takes what interlace_jax.moments makes of the rows, not {type(m).__name__}"
        )
    return jax.tree.map(_own_precision, m)


def _own_precision(values):
    """An array in JAX's own precision; whole numbers, which are places of levels and entries,
    stay such.
    """
    values = values if is_jax_array(values) else np.asarray(values)
    return jnp.asarray(values) if values.dtype.kind in "iu" else _floating(values)


@own_rules()
def predict(fitted: Estimate, m: Moments, X, groups: Sequence[tuple]):
    """X beta + Z b for rows X (n, p) and, per factor, `(codes, Z)` with codes (n,) of its levels.

    A level that the moments do not have (-1, NaN, or too large) counts as that of the population, b
    = 0. The codes may be traced here; traced codes that are no whole numbers count as unknown
    levels, others are refused. Returns (n,), without any offset.
    """
    effects, X = random_effects(fitted, m), _floating(X)
    _check_new_rows(X, groups, m.p, [b.shape[1] for b in effects])
    total = X @ _floating(fitted.beta)
    for b, (codes, Z, *_) in zip(effects, groups, strict=True):
        known, places = _known_codes(codes, len(b))
        total = total + jnp.where(known, jnp.einsum("nk,nk->n", _floating(Z), b[places]), 0.0)
    return total


def _known_codes(codes, levels: int):
    """Which codes (n,) are among so many levels, and these codes; 0 for the others.

    Looked at before they are cast.
    """
    if is_traced(codes):
        lib = jnp
    else:
        lib, codes = np, np.asarray(codes)
    if codes.dtype.kind not in "iuf":
        raise TypeError(f"the codes of a grouping factor are whole numbers, not {codes.dtype}")
    is_whole = lib.floor(codes) == codes
    if lib is np and not (is_whole | np.isnan(codes)).all():
        raise ValueError(
            "the codes of a grouping factor are whole numbers, NaN or -1 for an unknown level"
        )
    known = is_whole & (codes >= 0) & (codes < levels)
    return known, lib.where(known, codes, 0).astype(np.int32)


def _check_new_rows(X, groups, p, widths):
    """Refuse shapes that are not those of the model: p columns of X, and of Z as many as
    `widths` says.
    """
    if X.ndim != 2 or X.shape[1] != p:
        raise ValueError(f"X has shape {X.shape}; it must be (rows, {p})")
    if len(groups) != len(widths):
        raise ValueError(
            f"groups has {len(groups)} entries, but the model has {len(widths)} grouping factors"
        )
    for i, ((codes, Z, *_), k) in enumerate(zip(groups, widths, strict=True)):
        if jnp.shape(Z) != (len(X), k) or jnp.shape(codes) != (len(X),):
            raise ValueError(
                f"codes and Z of groups[{i}] have shapes {jnp.shape(codes)} and {jnp.shape(Z)}; "
                f"for {len(X)} rows of X they must be ({len(X)},) and ({len(X)}, {k})"
            )
