"""theta and the relative covariance factors Lambda: the one place that knows how the first fills
the second.

Two coordinates. *User* theta is lme4's: factors in the order of the fit, terms in theirs, each
lower triangle of Lambda column by column. *Conditioned* t holds the same entries of Lambda~ = A
Lambda, factors in elimination order: the coordinates of the optimiser. A is lower triangular, so
the map is linear and keeps zero columns.

A structured factor (`structures`) has a scale s and free numbers x instead, Lambda = s L(x); only s
changes between the coordinates, to s |A| (Frobenius), the SD of what the factor adds to a row of
average size. Numbers of K come last.

After all blocks come the free numbers psi of the residual covariance, where there is one: the same
in both coordinates.
"""

from __future__ import annotations

import numpy as np

from ...support.later import jnp


def _slices(blocks):
    ends = np.cumsum([b.size for b in blocks])
    return [slice(int(e) - b.size, int(e)) for e, b in zip(ends, blocks, strict=True)]


def _each(t, blocks):
    return zip([t[s] for s in _slices(blocks)], blocks, strict=True)


def beyond(t, blocks):
    """What of parameters (d,) follows those of the blocks: the numbers psi of the residual
    covariance (r,).
    """
    return t[sum(b.size for b in blocks) :]


def following(t, blocks):
    """The numbers beyond those of the blocks as a list, empty where there are none."""
    psi = beyond(t, blocks)
    return [psi] if len(psi) else []


def factors(theta, blocks):
    """The lower triangular Lambda (k, k) of every block, from the user's parameters (d,)."""
    return [_factor(values, b) for values, b in _each(theta, blocks)]


def _factor(values, block):
    if block.is_pattern:
        return _fill(values[: block.own], block)
    return values[0] * block.within.factor(values[1 : block.own], block.k).astype(values.dtype)


def conditioned_factors(t, blocks, A):
    """Lambda~ = A Lambda (k, k) of every block, from conditioned parameters (d,)."""
    return [
        _fill(values[: b.own], b)
        if b.is_pattern
        else a @ _factor(_rescaled(values, 1.0 / _unit(a)), b)
        for (values, b), a in zip(_each(t, blocks), A, strict=True)
    ]


def _fill(values, block):
    rows, columns = np.array(block.parameters).T
    return jnp.zeros((block.k, block.k), values.dtype).at[rows, columns].set(values)


def read(Lam, block):
    """The entries of a pattern that Lambda (k, k) has: (own,)."""
    return Lam[tuple(np.array(block.parameters).T)]


def _unit(a):
    return jnp.sqrt(jnp.sum(a**2))


def _rescaled(values, by):
    return values.at[0].multiply(by)


def natural(theta, blocks):
    """By block the parameters of its structure and of its K, as they are reported: a list of
    arrays.
    """
    found = []
    for values, b in _each(theta, blocks):
        shape = [] if b.is_pattern else [b.within.natural(values[1 : b.own], b.k)]
        found.append(jnp.concatenate([*shape, jnp.exp(values[b.own :])]))
    return found


def shape_places(blocks) -> list[np.ndarray]:
    """By block the places in its parameters of those that `natural` reports."""
    return [np.arange(b.own if b.is_pattern else 1, b.size) for b in blocks]


def has_prior(blocks) -> bool:
    """Whether any block has a prior."""
    return any(
        part is not None and part.prior is not None for b in blocks for part in (b.within, b.across)
    )


def columns(blocks):
    """For every column of every Lambda: indices of its free entries in the parameter vector,
    diagonal first.

    The likelihood is even in each. A structured Lambda counts as one column, with its scale as the
    only entry.
    """
    found, start = [], 0
    for block in blocks:
        if block.is_pattern:
            place = np.array(block.parameters)
            found += [start + np.flatnonzero(place[:, 1] == c) for c in range(block.k)]
        else:
            found.append(np.array([start]))
        start += block.size
    return found


def carriers(blocks):
    """Which parameters (d, d) give each one its meaning: row i is of parameter i, which has none if
    all those are 0.

    Entries of Lambda: those of their column. Numbers x of a structure: its scale. Numbers of K: all
    of Lambda.
    """
    d = sum(b.size for b in blocks)
    found = np.zeros((d, d), bool)
    for c in columns(blocks):
        found[np.ix_(c, c)] = True
    for s, block in zip(_slices(blocks), blocks, strict=True):
        own = s.start + block.own
        if not block.is_pattern:
            found[s.start : own, s.start] = True
        found[own : s.stop, s.start : own if block.is_pattern else s.start + 1] = True
    return found


def canonical_parameters(t, blocks):
    """Parameters of the same model in standard form.

    Lambda is `canonical`, no scale is negative, and a number that means nothing beside a scale of 0
    is at its start.
    """
    return jnp.concatenate(
        [*(_standard(values, b) for values, b in _each(t, blocks)), *following(t, blocks)]
    )


def _standard(values, block):
    if block.is_pattern:
        own = read(canonical(_fill(values[: block.own], block)), block)
        none = ~jnp.any(own != 0.0)
    else:
        own = values[: block.own].at[0].set(jnp.abs(values[0]))
        none = values[0] == 0.0
        own = jnp.where(none, jnp.append(0.0, shape_start(block)[0].astype(own.dtype)), own)
    if block.size == block.own:
        return own
    return jnp.concatenate(
        [own, jnp.where(none, shape_start(block)[1].astype(own.dtype), values[block.own :])]
    )


def shape_start(block):
    """Where the searches for the numbers of the structure and for those of K start: two arrays."""
    within = () if block.is_pattern else block.within.start(block.k)
    across = () if block.across is None else np.log([value for _, value in block.across.start])
    return jnp.asarray(within, float), jnp.asarray(across, float)


def canonical(Lam, tol=1e-7):
    """The lower triangular factor of Lam Lam' (k, k) with a nonnegative diagonal.

    Where a diagonal entry vanishes (below tol of its row) the column below it does too, as in
    lme4's singular fits.
    """
    S = Lam @ Lam.T
    k = Lam.shape[0]
    L = jnp.zeros_like(Lam)
    for j in range(k):
        column = S[:, j] - L[:, :j] @ L[j, :j]
        regular = column[j] > tol**2 * S[j, j]
        pivot = jnp.sqrt(jnp.where(regular, column[j], 1.0))
        L = L.at[:, j].set(jnp.where(regular & (jnp.arange(k) >= j), column / pivot, 0.0))
    return L
