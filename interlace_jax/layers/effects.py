"""Random effects as pure functions of parameters and arrays, whatever the framework that holds the
parameters.

    -log L = d(theta, sigma; r) / 2,   r = y - f(x)

with d of `interlace_jax.deviance` without columns X. Parameters: `raw` (d,), free numbers of theta
(`Factors.theta`), and `log_sigma` (). Codes may be traced; one outside of a factor's levels is an
unseen id. What takes `Rows` takes what `read_rows` makes of a user's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from ..arrays.groups import Grouping
from ..arrays.moments import moments_by_levels
from ..arrays.simulation import contribution, draw_effects
from ..numerics.crossproducts.moments import Moments
from ..numerics.likelihood.coordinates import to_conditioned
from ..numerics.likelihood.elimination import reduce
from ..numerics.likelihood.gaussian import profile
from ..numerics.likelihood.random_effects import mode_covariances, modes
from ..runtime.calls import own_rules
from ..runtime.compilation import jit
from ..support.later import jax, jnp
from .factors import Factors

MOST_SHAPES = 8  # numbers of rows that a layer is compiled for before it warns
_compiled: dict[Factors, set[int]] = {}


class Parameters(NamedTuple):
    """The numbers of a layer that are trained."""

    raw: Any  # (d,)
    log_sigma: Any  # ()

    def wide(self) -> Parameters:
        """In JAX's own precision."""
        return Parameters(*(jnp.asarray(a, jnp.result_type(float)) for a in self))


class State(NamedTuple):
    """What predictions need of the rows that were seen: a pytree, not to be trained."""

    modes: dict[str, Any]
    "By factor (levels, k): BLUPs; 0 of a level without rows."
    covariances: dict[str, Any]
    """By factor (levels, k, k): their covariance given the rows; the prior's of a level without
    rows.
    """


class Rows(NamedTuple):
    """Rows in JAX's own precision."""

    residual: Any  # (n,)
    groups: dict[str, Any]  # by factor (n,) codes, -1 for unseen ids
    features: dict[str, Any]  # by factor with slopes (n, k - 1)
    mask: Any  # (n,) 0 for padding; None: all count


def read_rows(factors: Factors, residual, groups, features=None, mask=None) -> Rows:
    """Rows as a layer is given them, checked."""
    codes, features = factors.read(groups, features)
    own, n = jnp.result_type(float), len(codes[factors.names[0]])
    residual = jnp.asarray(residual, own)
    mask = None if mask is None else jnp.asarray(mask, own)
    for name, values in ("residual", residual), ("mask", mask):
        if values is not None and values.shape != (n,):
            raise ValueError(
                f"{name} has shape {values.shape}; groups has {n} rows, so it must be ({n},)"
            )
    return Rows(residual, codes, features, mask)


def start(factors: Factors, dtype=None) -> Parameters:
    """Independent effects with SDs of 1, and a residual SD of 1."""
    return Parameters(jnp.zeros(factors.size, dtype), jnp.zeros((), dtype))


def prior_state(parameters: Parameters, factors: Factors) -> State:
    """The state before any row was seen."""
    each = list(zip(factors.names, factors.levels, factors.columns, strict=True))
    prior = priors(parameters, factors)
    zeros = {name: jnp.zeros((m, k), prior[name].dtype) for name, m, k in each}
    return State(
        zeros, {name: jnp.broadcast_to(prior[name][None], (m, k, k)) for name, m, k in each}
    )


def log_sd(residual, mask=None):
    """Where the search for log sigma may start: log of the root mean square (), of the rows that
    count.
    """
    own = jnp.result_type(float)
    residual = jnp.asarray(residual, own)
    w = jnp.ones_like(residual) if mask is None else jnp.asarray(mask, own)
    squares = jnp.where(w > 0, residual, 0.0) ** 2
    return 0.5 * jnp.log(jnp.sum(w * squares) / jnp.sum(w))


@own_rules()
def nll(parameters: Parameters, factors: Factors, rows: Rows):
    """-log likelihood of all rows, a sum: () in JAX's own precision."""
    return _nll(parameters.wide(), factors, rows)


@partial(jit, static_argnums=1)
def _nll(parameters, factors, rows):
    m = _moments(factors, rows)
    t = to_conditioned(factors.theta(parameters.raw), m.layout, m.A)
    return 0.5 * (profile(reduce(t, m), m, False).at(parameters.log_sigma) - m.log_weights)


@own_rules()
def condition(parameters: Parameters, factors: Factors, rows: Rows) -> State:
    """BLUPs given all rows, and their conditional covariances."""
    return _condition(parameters.wide(), factors, rows)


@partial(jit, static_argnums=1)
def _condition(parameters, factors, rows):
    m = _moments(factors, rows)
    t = to_conditioned(factors.theta(parameters.raw), m.layout, m.A)
    variance = jnp.exp(2.0 * parameters.log_sigma)
    spread = [variance * C for C in mode_covariances(t, m)]
    return State(
        dict(zip(factors.names, modes(t, m), strict=True)),
        dict(zip(factors.names, spread, strict=True)),
    )


@own_rules()
def predict(parameters: Parameters, factors: Factors, state: State, groups, features=None):
    """The sum of z'b over the factors for rows, (n,), and its variance, (n,).

    An unseen id has mean 0 and the prior's variance. Variances of factors are added up: covariances
    between effects of different factors are left out.
    """
    return _predict(parameters.wide(), factors, state, *factors.read(groups, features))


@partial(jit, static_argnums=1)
def _predict(parameters, factors, state, codes, features):
    prior = priors(parameters, factors)
    mean, variance = 0.0, 0.0
    for name, z in columns(factors, codes, features).items():
        is_seen, place = codes[name] >= 0, jnp.maximum(codes[name], 0)
        b = jnp.where(is_seen[:, None], state.modes[name][place], 0.0)
        C = jnp.where(is_seen[:, None, None], state.covariances[name][place], prior[name][None])
        mean = mean + jnp.sum(z * b, 1)
        variance = variance + jnp.einsum("ni,nij,nj->n", z, C, z)
    return mean, variance


@own_rules()
def priors(parameters: Parameters, factors: Factors) -> dict[str, Any]:
    """By factor the covariance (k, k) of the effects of an unseen level, in units of y."""
    variance = jnp.exp(2.0 * parameters.log_sigma)
    each = zip(factors.names, factors.relative_factors(parameters.raw), strict=True)
    return {name: variance * L @ L.T for name, L in each}


@own_rules()
def draw(key, parameters: Parameters, factors: Factors, rows: Rows) -> dict[str, Any]:
    """By factor (levels, k): one draw of all effects given the rows, exact.

    Matheron's rule: effects b* and rows r* are simulated, and the BLUPs of r - r* are added to b*.
    """
    return _draw(key, parameters.wide(), factors, rows)


@partial(jit, static_argnums=2)
def _draw(key, parameters, factors, rows):
    theta, sigma = factors.theta(parameters.raw), jnp.exp(parameters.log_sigma)
    key_b, key_e = jax.random.split(key)
    drawn = draw_effects(key_b, theta, sigma, factors.blocks)
    b = dict(zip(factors.names, drawn, strict=True))
    simulated = explained(factors, b, rows.groups, rows.features)
    simulated = simulated + sigma * jax.random.normal(key_e, rows.residual.shape, theta.dtype)
    m = _moments(factors, rows._replace(residual=rows.residual - simulated))
    correction = modes(to_conditioned(theta, m.layout, m.A), m)
    return {name: b[name] + c for name, c in zip(factors.names, correction, strict=True)}


def explained(factors: Factors, effects: Mapping[str, Any], groups, features):
    """The sum over the factors that `effects` has of z'b for rows, (n,); 0 of an unseen id."""
    Z = columns(factors, groups, features)
    return sum(contribution(groups[name], Z[name], b) for name, b in effects.items())


def columns(factors: Factors, groups, features) -> dict[str, Any]:
    """By factor Z (n, k): an intercept and the features, in JAX's own precision."""
    n = len(groups[factors.names[0]])
    one = jnp.ones((n, 1))
    return {
        name: jnp.concatenate([one, features[name]], 1) if name in features else one
        for name in factors.names
    }


def _moments(factors: Factors, rows: Rows) -> Moments:
    """Cross-products without fixed effects; padding and unseen ids have weight 0."""
    _count_shapes(factors, len(rows.residual))
    Z = columns(factors, rows.groups, rows.features)
    each = zip(factors.names, factors.sizes, strict=True)
    groupings = [Grouping(name, rows.groups[name], Z[name], sizes) for name, sizes in each]
    X = jnp.zeros((len(rows.residual), 0))
    return moments_by_levels(
        rows.residual, X, groupings, factors.levels, factors.lies_in, rows.mask, None
    )


def _count_shapes(factors: Factors, n: int) -> None:
    """Warn, once, of a layer that is compiled again and again because batches differ in length."""
    shapes = _compiled.setdefault(factors, set())
    if n in shapes:
        return
    shapes.add(n)
    if len(shapes) == MOST_SHAPES + 1:
        warnings.warn(
            f"RandomEffects was compiled for {len(shapes)} different numbers of rows: pad batches "
            "to one length, and "
            "pass mask= with 0 for padding",
            UserWarning,
            stacklevel=5,
        )
