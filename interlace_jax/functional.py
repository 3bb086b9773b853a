"""The mixed model as pure functions of arrays, for use inside other JAX programs.

They take and return pytrees, work under `jit`, `vmap`, `grad`, `jvp` and their compositions at
every order, and return numbers in JAX's own precision: float64 in its 64-bit mode, else float32.

Known numbers, those that JAX does not trace, are computed with in float64 in either mode. So
moments made of known rows are float64, and with them, closed over by whatever is traced, the
deviance and its derivatives by theta, sigma and beta, the estimate and the BLUPs are good to all
digits of float32, up to a theta of about 1e4.

Where rows or moments are traced outside of 64-bit mode, as arguments of a function under `jit` or
`grad` are, all is float32. There the deviance is good to six digits and its derivatives to about
four, so that it can be trained on, while theta is of order 1; digits go with its square, at 100
three are left, and from about 1,000 on the deviance is NaN. The search of `estimate` stops sooner,
and theta, BLUPs and derivatives of the fit are good to two or three.

Shapes: n rows, p columns of X, k columns of a factor's Z, d parameters theta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .arrays.groups import (
    arrays_of,
    check_nesting,
    check_numbers,
    check_rows,
    level_counts,
    read_groups,
)
from .arrays.moments import NamedMoments, moments_by_host, moments_by_levels
from .arrays.precision import floats_in_own_precision, in_own_precision
from .numerics.covariance.block import parameter_count
from .numerics.crossproducts.moments import Moments
from .numerics.estimation.bfgs import EXHAUSTED
from .numerics.estimation.estimate import Estimate
from .numerics.estimation.estimate import estimate as estimate_of_moments
from .numerics.likelihood.coordinates import to_conditioned, user_blocks
from .numerics.likelihood.elimination import reduce
from .numerics.likelihood.gaussian import profile
from .numerics.likelihood.random_effects import mode_covariances, modes
from .result import Fit
from .runtime.calls import own_rules, session
from .runtime.compilation import jit
from .runtime.island import island
from .support.arguments import listed
from .support.later import is_traced, jax, jnp

ROUNDING = 100  # units of the last digit that a dependent column may keep of its size


def _minus_two_log_likelihood(theta, m: Moments, reml, sigma, beta):
    """What `deviance` gives, of arrays: theta (d,), sigma () and beta (p,), these two or None."""
    reduced = reduce(to_conditioned(theta, m.layout, m.A), m)
    found = profile(reduced, m, reml)
    if beta is not None:
        b = m.R @ (beta - m.beta0) / m.scale
        found = found._replace(r2=reduced.yy - 2.0 * b @ reduced.Xy + b @ reduced.XX @ b)
    if sigma is None:
        return found.deviance - m.log_weights
    return found.at(jnp.log(sigma)) - m.log_weights


# one program a shape, also where the caller compiles nothing
_deviance = jit(_minus_two_log_likelihood)
_estimate = jit(estimate_of_moments)
_modes = jit(modes)
_mode_covariances = jit(mode_covariances)


@own_rules()
def moments(
    y,
    X,
    groups: Mapping[str, Any] | Sequence[tuple],
    weights=None,
    offset=None,
    *,
    levels: Mapping[str, int] | Sequence[int] | None = None,
    nested: Mapping[str, str] | None = None,
) -> Moments:
    """Cross-products of the rows: all that the functions below need of the data.

    y: Float[n]. X: Float[n, p], of full column rank; p may be 0.

    groups: by the name of each grouping factor its codes, Int[n], for a random intercept, or
    `(codes, Z)` or `(codes, Z, third)` with Z: Float[n, k], None for an intercept; or a sequence of
    such tuples. Codes are integers from 0. The third is either the numbers of columns of mutually
    uncorrelated terms, `(2,)` for `(1 + x | g)`, the default, and `(1, 1)` for `(1 + x || g)`; or a
    covariance structure as `fit` takes in `cov`: `AR1()`, `Known(K)`, `Kernel(...)`, or a tuple.

    weights: Float[n], zero for rows to leave out, whatever stands in them. offset: Float[n].

    levels: how many levels a factor has, by name or in the order of `groups`; by default as many as
    the codes need. Codes decide shapes, so that those without `levels` must be concrete; with it
    they may be traced, one program serves all codes, and rows whose traced code is outside of 0 to
    levels - 1 count as of weight zero. nested: factors that lie in others, `{"class": "school"}`,
    so that their levels are eliminated one by one; without traced codes it is found, and only
    checked.

    Differentiable in y, X, Z, weights and offset, in a JAX array K and in JAX arrays of a kernel's
    coordinates. K is then to be positive definite, with a row for each code from 0 to the largest.

    Raises ValueError for shapes that do not fit each other and, where they are not traced, for
    negative weights and numbers that are NaN or infinite; TypeError for traced codes without
    `levels`.

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> codes, subjects = pd.factorize(sleep["Subject"])
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> m = interlace_jax.moments(sleep["Reaction"].to_numpy(), X, {"Subject": (codes, X)})
    >>> theta = np.array([0.97, 0.02, 0.23])
    >>> round(float(interlace_jax.deviance(theta, m)), 1)
    1743.6
    """
    read = read_groups(groups)
    if _are_known((y, X, weights, offset, arrays_of(read))):
        with session():
            found = moments(y, X, groups, weights, offset, levels=levels, nested=nested)
        return jax.tree.map(np.asarray, found)
    y, X, weights, offset = map(in_own_precision, (y, X, weights, offset))
    read = [g.filled(len(y) if y.ndim else 0) for g in read]
    check_rows(y, X, read, weights, offset)
    check_numbers(y, X, read, weights, offset)
    counts = level_counts(read, levels)
    lies_in = check_nesting(read, nested or {})
    if any(g.is_traced for g in read):
        return moments_by_levels(y, X, read, counts, lies_in, weights, offset)
    return moments_by_host(y, X, read, counts, weights, offset)


@own_rules()
def deviance(theta, m: Moments, reml=True, *, sigma=None, beta=None):
    """-2 log L_REML, or -2 log L, at theta: Float[d], lme4's, factors in the order of `groups`.

    Of a structured factor theta has the scale, the free numbers of its structure, and those of K
    (logs, for a kernel). Priors do not count. sigma: residual standard deviation, Float[]; by
    default at its optimum. beta: Float[p]; by default at its optimum; if given, the likelihood is
    the full one (reml must be False). Returns Float[]. Differentiable in all of them and in the
    moments.

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> codes, subjects = pd.factorize(sleep["Subject"])
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> m = interlace_jax.moments(sleep["Reaction"].to_numpy(), X, {"Subject": (codes, X)})
    >>> theta = np.array([0.97, 0.02, 0.23])
    >>> round(float(interlace_jax.deviance(theta, m)), 1)
    1743.6
    """
    if beta is not None and not (isinstance(reml, bool) and not reml):
        raise ValueError("with beta given the likelihood is not restricted: pass reml=False")
    if isinstance(m, Moments) and _are_known(m):
        given = dict(theta=theta, sigma=sigma, beta=beta)
        return _in_float64(partial(deviance, m=m, reml=reml), given)
    m, sigma, beta = _in_jax(m), in_own_precision(sigma), in_own_precision(beta)
    if beta is not None and jnp.shape(beta) != (m.p,):
        raise ValueError(
            f"beta has shape {jnp.shape(beta)}; this model has {m.p} coefficients: ({m.p},)"
        )
    return _deviance(_theta(theta, m), m, reml, sigma, beta)


@own_rules()
def log_likelihood(theta, m: Moments, *, reml=True, sigma=None, beta=None):
    """Log-likelihood, restricted by default, at theta: Float[d]: minus half of `deviance`.

    theta, sigma: Float[] and beta: Float[p] are those of `deviance`. Returns Float[].

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> codes, subjects = pd.factorize(sleep["Subject"])
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> m = interlace_jax.moments(sleep["Reaction"].to_numpy(), X, {"Subject": (codes, X)})
    >>> theta = np.array([0.97, 0.02, 0.23])
    >>> round(float(interlace_jax.log_likelihood(theta, m)), 1)
    -871.8
    """
    return -0.5 * deviance(theta, m, reml, sigma=sigma, beta=beta)


@own_rules()
def estimate(m: Moments, reml=True) -> Estimate:
    """The fitted model: `theta` (d,), `beta` (p,), `sigma`, `vcov` (p, p), `deviance`, and how the
    search ended.

    Differentiable in the moments, by the implicit function theorem; see `Estimate`. Under `jax.jit`
    it compiles once for each number of levels and coefficients.

    Columns of X that depend on those before them are refused with a ValueError; where they are
    traced, beta is NaN and `converged` False instead.

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> codes, subjects = pd.factorize(sleep["Subject"])
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> m = interlace_jax.moments(sleep["Reaction"].to_numpy(), X, {"Subject": (codes, X)})
    >>> fitted = interlace_jax.estimate(m)
    >>> [round(float(number), 1) for number in fitted.beta]
    [251.4, 10.5]
    """
    if _are_known(m):
        with session():
            found = estimate(m, reml)
        return _narrow(found)
    m = _in_jax(m)
    is_own = _independent_columns(m)
    is_sound = jnp.all(is_own)
    if not is_traced(is_sound) and not is_sound:
        raise ValueError(
            f"columns {np.flatnonzero(~np.asarray(is_own)).tolist()} of X depend on those before "
            "them: leave them out"
        )
    found = _estimate(m, reml)
    return replace(
        found,
        beta=jnp.where(is_sound, found.beta, jnp.nan),
        predicted_decrease=jnp.where(is_sound, found.predicted_decrease, jnp.inf),
        status=jnp.where(is_sound, found.status, EXHAUSTED),
    )


def _independent_columns(m):
    """Which columns of X (p,) are more than sums of those before them and rounding."""
    rest, size = jnp.abs(jnp.diagonal(m.R)), jnp.sqrt(jnp.sum(m.R**2, 0))
    return rest > ROUNDING * jnp.finfo(m.R.dtype).eps * size


@own_rules()
def random_effects(fitted: Estimate | jax.Array, m: Moments, *, with_variance: bool = False):
    """Conditional modes (BLUPs), Float[levels, k] per factor, at an estimate or at a theta:
    Float[d].

    A dict by name where `groups` was one, else a list in its order. They are those with beta at its
    optimum. For a beta of your own, make the moments of `y - X @ beta` with `X[:, :0]`.

    with_variance: also return, in the same form, Cov(b | y, beta) / sigma^2, Float[levels, k, k]
    per factor.

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> codes, subjects = pd.factorize(sleep["Subject"])
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> m = interlace_jax.moments(sleep["Reaction"].to_numpy(), X, {"Subject": (codes, X)})
    >>> effects = interlace_jax.random_effects(interlace_jax.estimate(m), m)
    >>> effects["Subject"].shape
    (18, 2)
    """
    if _are_known((m, fitted)):
        with session():
            found = random_effects(fitted, m, with_variance=with_variance)
        return _narrow(found)
    m = _in_jax(m)
    t = (
        fitted.t
        if isinstance(fitted, Estimate)
        else to_conditioned(_theta(fitted, m), m.layout, m.A)
    )
    t = in_own_precision(t)
    found = _by_name(_modes(t, m), m)
    return (found, _by_name(_mode_covariances(t, m), m)) if with_variance else found


def _is_wide() -> bool:
    """Whether JAX is in its 64-bit mode."""
    return jnp.result_type(float) == np.float64


def _are_known(values) -> bool:
    """Whether float64 is to be had outside of 64-bit mode: none of these arrays is traced."""
    return not _is_wide() and not any(map(is_traced, jax.tree.leaves(values)))


def _in_float64(function, given):
    """`function` of the keyword arguments that are not None, differentiable in them."""
    given = {name: in_own_precision(a) for name, a in given.items() if a is not None}
    return island(lambda *a: function(**dict(zip(given, a, strict=True))))(*given.values())


def _narrow(found):
    """What was computed in float64, in JAX's own precision."""
    return jax.tree.map(
        lambda a: in_own_precision(a) if a.dtype == np.float64 else jnp.asarray(a), found
    )


def _by_name(arrays, m):
    return dict(zip(m.names, arrays, strict=True)) if isinstance(m, NamedMoments) else arrays


def _theta(theta, m):
    theta, blocks = in_own_precision(theta), user_blocks(m.layout)
    d = parameter_count(blocks)
    if theta.shape != (d,):
        keys = m.names if isinstance(m, NamedMoments) else range(len(blocks))
        each = ", ".join(
            f"{block.size} of groups[{key!r}]" for key, block in zip(keys, blocks, strict=True)
        )
        raise ValueError(
            f"theta has shape {theta.shape}; this model has {d} parameters: ({d},), {each}; k "
            "columns have the "
            "k (k + 1) / 2 of a lower triangle, column by column"
        )
    return theta


def _in_jax(m: Moments) -> Moments:
    """The moments in JAX's own precision: those of a compiled model, or of a 64-bit context that
    ended, are wider.
    """
    if not isinstance(m, Moments):
        raise TypeError(
            "this takes what interlace_jax.moments makes of the rows, after theta where there is "
            f"one, not {type(m).__name__}"
        )
    return jax.tree.map(floats_in_own_precision, m)


@own_rules()
def predict(fitted: Estimate, m: Moments | None = None, X=None, groups: Any = None):
    """X beta + Z b for rows X: Float[n, p] and, per factor, `(codes, Z)` with codes: Int[n] of its
    levels.

    fitted and m: of `estimate` and `moments`. groups: as in `moments`, by name where these had
    names; Z: Float[n, k] may be left out for a random intercept. A level that the moments do not
    have (-1, NaN, or too large) counts as that of the population, b = 0. The codes may be traced
    here; traced codes that are no whole numbers count as unknown levels, others are refused.
    Returns Float[n], without any offset.

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> codes, subjects = pd.factorize(sleep["Subject"])
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> m = interlace_jax.moments(sleep["Reaction"].to_numpy(), X, {"Subject": (codes, X)})
    >>> fitted = interlace_jax.estimate(m)
    >>> new, who = X[:3], np.array([0, 0, -1])
    >>> found = interlace_jax.predict(fitted, m, new, {"Subject": (who, new)})
    >>> [round(float(number)) for number in found]
    [254, 273, 272]
    """
    if isinstance(fitted, Fit):
        raise TypeError("that is a fitted formula model: use fit.predict(newdata)")
    if groups is None:
        raise TypeError(
            "predict takes an estimate, the moments, X and groups; of a formula model use "
            "fit.predict"
        )
    modes, X = random_effects(fitted, m), in_own_precision(X)
    effects = list(modes.values()) if isinstance(modes, dict) else modes
    rows = _new_rows(groups, m, len(X))
    _check_new_rows(X, rows, m.p, [b.shape[1] for b in effects])
    total = X @ in_own_precision(fitted.beta)
    for b, (codes, Z) in zip(effects, rows.values(), strict=True):
        known, places = _known_codes(codes, len(b))
        total = total + jnp.where(
            known, jnp.einsum("nk,nk->n", in_own_precision(Z), b[places]), 0.0
        )
    return total


def _new_rows(groups, m, n):
    """By key the codes and Z of new rows, in the order of the moments."""
    if not isinstance(groups, Mapping):
        return {place: (codes, Z) for place, (codes, Z, *_) in enumerate(groups)}
    names = m.names if isinstance(m, NamedMoments) else ()
    if set(names) != set(groups):
        raise ValueError(f"groups has {listed(groups)}, but the moments have {listed(names)}")
    found = {}
    for name in names:
        codes, Z, *_ = groups[name] if isinstance(groups[name], tuple) else (groups[name], None)
        found[name] = (codes, jnp.ones((n, 1)) if Z is None else Z)
    return found


def _known_codes(codes, levels: int):
    """Which codes (n,) are among so many levels, and these codes; 0 for the others. Looked at
    before they are cast.
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
    """Refuse shapes that are not those of the model: p columns of X, and of Z as many as `widths`
    says.
    """
    if X.ndim != 2 or X.shape[1] != p:
        raise ValueError(f"X has shape {X.shape}; it must be (rows, {p})")
    if len(groups) != len(widths):
        raise ValueError(
            f"groups has {len(groups)} entries, but the model has {len(widths)} grouping factors"
        )
    for (key, (codes, Z)), k in zip(groups.items(), widths, strict=True):
        if jnp.shape(Z) != (len(X), k) or jnp.shape(codes) != (len(X),):
            raise ValueError(
                f"codes and Z of groups[{key!r}] have shapes {jnp.shape(codes)} and "
                f"{jnp.shape(Z)}; for {len(X)} rows "
                f"of X they must be ({len(X)},) and ({len(X)}, {k})"
            )
