"""Random effects on the linear predictor of a family, as pure functions: Laplace's approximation.

    y ~ family(eta + Z b),   b ~ N(0, Lambda Lambda')

eta is a network's output. theta is absolute here, and there is no sigma. Codes may be traced.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from ..numerics.crossproducts.traced_plan import nested_chain, traced_plan
from ..numerics.families.density import Row
from ..numerics.families.family import Distribution
from ..numerics.likelihood.coordinates import to_conditioned
from ..numerics.likelihood.laplace import (
    Data,
    Place,
    deviance_at,
    effects,
    factors_at,
    look,
    mode,
)
from ..numerics.likelihood.random_effects import mode_covariances
from ..runtime.calls import own_rules
from ..runtime.compilation import jit
from ..support.later import jnp, lax
from .effects import State, columns, read_rows
from .factors import Factors


class Answers(NamedTuple):
    """Rows in JAX's own precision."""

    predictor: Any  # (n,) eta without random effects
    y: Any  # (n,)
    groups: dict[str, Any]  # by factor (n,) codes, -1 for unseen ids
    features: dict[str, Any]  # by factor with slopes (n, k - 1)
    mask: Any  # (n,) 0 for padding; None: all count


def check_family(family: Distribution) -> None:
    """Refuse a family with parameters of its own, or with trials."""
    if not isinstance(family, Distribution):
        raise TypeError(
            f"family is a distribution such as Bernoulli() or Poisson(), not {family!r}"
        )
    if family.parameters or family.name not in ("bernoulli", "poisson"):
        raise ValueError(
            f"a layer takes Bernoulli and Poisson with any link so far, not {family.name!r}: fit "
            "the formula with family="
        )


def read_answers(factors: Factors, predictor, y, groups, features=None, mask=None) -> Answers:
    """Rows as a layer is given them, checked."""
    rows = read_rows(factors, predictor, groups, features, mask)
    y = jnp.asarray(y, rows.residual.dtype)
    if y.shape != rows.residual.shape:
        raise ValueError(f"y has shape {y.shape}; predictor has {rows.residual.shape}")
    return Answers(rows.residual, y, *rows[1:])


@own_rules()
def nll(raw, factors: Factors, family: Distribution, rows: Answers):
    """-log likelihood of all rows by Laplace's approximation, a sum: () in JAX's own precision."""
    return _nll(jnp.asarray(raw, rows.y.dtype), factors, family, rows)


@partial(jit, static_argnums=(1, 2))
def _nll(raw, factors, family, rows):
    x, data = _place(raw, factors, family, rows)
    return 0.5 * deviance_at(x, data, _mode(x, data))


@own_rules()
def condition(raw, factors: Factors, family: Distribution, rows: Answers) -> State:
    """Modes of the effects given all rows, and their covariances given the parameters."""
    return _condition(jnp.asarray(raw, rows.y.dtype), factors, family, rows)


@partial(jit, static_argnums=(1, 2))
def _condition(raw, factors, family, rows):
    x, data = _place(raw, factors, family, rows)
    u = _mode(x, data)
    b = effects(factors_at(x.t, data), u)
    spread = mode_covariances(x.t, look(x, u, data).moments)
    places = data.layout.order
    return State(
        {name: b[j].T for name, j in zip(factors.names, places, strict=True)},
        dict(zip(factors.names, spread, strict=True)),
    )


def _mode(x, data):
    """The modes u, as constants: their derivatives are those of the implicit function."""
    x, data = lax.stop_gradient((x, data))
    u = [jnp.zeros((b.k, b.levels), x.t.dtype) for b in data.layout.blocks]
    return mode(x, u, data)


def _place(raw, factors, family, rows) -> tuple[Place, Data]:
    """Parameters and rows in the order of elimination; columns are left as they are."""
    w = jnp.ones_like(rows.y) if rows.mask is None else rows.mask
    in_use = w != 0
    for codes in rows.groups.values():
        in_use = in_use & (codes >= 0)
    w = jnp.where(in_use, w, 0.0)
    blocks, names = factors.blocks, factors.names
    sizes = [block.levels * block.k for block in blocks]
    chain = nested_chain(sizes, factors.lies_in, [True] * len(blocks))
    plan = traced_plan([rows.groups[name] for name in names], blocks, chain, in_use)
    Z = columns(factors, rows.groups, rows.features)
    order = plan.layout.order
    by_place = [Z[names[order.index(j)]] for j in range(len(names))]
    A = tuple(jnp.eye(block.k, dtype=w.dtype) for block in plan.layout.blocks)
    none = jnp.zeros(0, w.dtype)
    data = Data(
        family,
        plan,
        Row(jnp.where(in_use, rows.y, 0.0), w, jnp.ones_like(w)),
        jnp.where(in_use, rows.predictor, 0.0),
        jnp.zeros((len(w), 0), w.dtype),
        tuple(jnp.where(in_use[:, None], z, 0.0) for z in by_place),
        (),
        A,
        (None,) * len(blocks),
        jnp.zeros((0, 0), w.dtype),
        none,
    )
    t = to_conditioned(factors.theta(raw), plan.layout, A)
    return Place(t, none, none), data
