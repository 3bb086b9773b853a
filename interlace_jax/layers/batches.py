"""Batches of whole groups: what the rows of some levels say of the gradient of all.

V is block diagonal over the levels of a factor that every other factor lies in, so that

    nll = sum_j nll_j,   (G / B) sum_{j in batch} grad nll_j  has the mean  grad nll

for B of G levels drawn without replacement. Where another factor is crossed with it, Fisher's
identity helps:

    grad nll = E_{c | y} grad [ sum_j -log p(y_j | c) - log p(c) ]

with c a draw of the crossed factor's effects given all rows (`effects.draw`); it is free of bias
while c is fresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..numerics.linalg.matrices import inverse_lower
from ..support.arguments import listed, whole_number
from ..support.later import jnp
from .effects import Parameters, Rows, explained, nll
from .factors import Factors


class Batch(NamedTuple):
    """The rows of some levels of a factor, padded to one length, and their codes numbered anew."""

    rows: np.ndarray
    "(N,) positions of the rows; 0 for padding."
    groups: dict[str, np.ndarray]
    """By factor (N,) codes: from 0 within the batch for the factor itself and those that lie in it,
    else as they were.
    """
    mask: np.ndarray
    "(N,) 1.0 for rows, 0.0 for padding."
    levels: dict[str, int]
    "How many levels the factors numbered anew have, the same in every batch: `levels=` of `nll`."
    scale: float
    "Levels in all over levels in the batch: `scale=` of `nll`."


def batches_of_groups(
    groups: Mapping[str, Any], by: str, size: int, *, inner: tuple[str, ...] = (), seed: int = 0
) -> Iterator[Batch]:
    """One pass over all rows, in random order, in batches of whole levels of a factor.

    groups: by factor its codes, Int[n]. by: the factor whose levels stay together. size: levels a
    batch. inner: factors that lie in it, whose codes are numbered anew too. All batches have one
    length and one number of levels, so that a training step is compiled once. seed: of the order.

    >>> import numpy as np
    >>> from interlace_jax.layers.batches import batches_of_groups
    >>> users = np.repeat([0, 1, 2, 3], 2)
    >>> batches = list(batches_of_groups({"user": users}, "user", 2))
    >>> [sorted(set(users[batch.rows].tolist())) for batch in batches]
    [[0, 2], [1, 3]]
    """
    whole_number("size", size, 1)
    codes = {name: np.asarray(values) for name, values in groups.items()}
    if unknown := [name for name in (by, *inner) if name not in codes]:
        raise ValueError(f"there are no codes of {unknown[0]!r}; groups has {listed(codes)}")
    order = np.argsort(codes[by], kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[by][order])) + 1)
    size = min(size, len(members))
    length = _largest([len(rows) for rows in members], size)
    levels = {by: size}
    for name in inner:
        levels[name] = _largest([len(np.unique(codes[name][rows])) for rows in members], size)
    order = np.random.default_rng(seed).permutation(len(members))
    for first in range(0, len(members), size):
        chosen = order[first : first + size]
        rows = np.concatenate([members[j] for j in chosen])
        padding = (0, length - len(rows))
        here = {name: values[rows] for name, values in codes.items()}
        here |= {name: np.unique(here[name], return_inverse=True)[1] for name in levels}
        yield Batch(
            rows=np.pad(rows, padding),
            groups={
                name: np.pad(values, padding, constant_values=-1) for name, values in here.items()
            },
            mask=np.pad(np.ones(len(rows)), padding),
            levels=levels,
            scale=len(members) / len(chosen),
        )


def _largest(counts, size):
    """The most that so many of them add up to."""
    return int(np.sort(counts)[-size:].sum())


def batch_nll(
    parameters: Parameters,
    factors: Factors,
    rows: Rows,
    given: Mapping[str, Any] | None = None,
    scale: float = 1.0,
):
    """`scale` times -log p(rows | given effects), and -log p(given effects) once.

    given: by factor (levels, k) effects to condition on, as `effects.draw` has them.
    """
    if not given:
        return scale * nll(parameters, factors, rows)
    rest, places = factors.without(given)
    parameters = parameters.wide()
    known = explained(factors, given, rows.groups, rows.features)
    features = {name: values for name, values in rows.features.items() if name in rest.names}
    groups = {name: rows.groups[name] for name in rest.names}
    left = Rows(rows.residual - known, groups, features, rows.mask)
    own = nll(Parameters(parameters.raw[places], parameters.log_sigma), rest, left)
    return scale * own + _prior_nll(parameters, factors, given)


def _prior_nll(parameters, factors, given):
    """-log density of effects (levels, k) by factor."""
    total = 0.0
    each = zip(factors.names, factors.relative_factors(parameters.raw), strict=True)
    for name, L in each:
        if name in given:
            b = jnp.asarray(given[name], L.dtype)
            z = inverse_lower(L) @ b.T * jnp.exp(-parameters.log_sigma)
            logdet = jnp.sum(jnp.log(jnp.diagonal(L))) + len(L) * parameters.log_sigma
            total = (
                total
                + 0.5 * jnp.sum(z**2)
                + len(b) * (logdet + 0.5 * len(L) * jnp.log(2.0 * jnp.pi))
            )
    return total
