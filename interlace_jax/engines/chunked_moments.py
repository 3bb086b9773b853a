"""Cross-products of more rows than one program should touch: two passes over chunks of rows, to the
same Moments.

The first pass finds the constants that condition the columns, from the triangular factors of the
chunks (the QR of stacked QRs); the second adds up conditioned cross-products. Memory beyond the
rows themselves is that of one chunk and of the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..numerics.crossproducts.layout import Plan, bucket, pad_rows
from ..numerics.crossproducts.moments import (
    Moments,
    apply_constants,
    conditioners,
    design_products,
    eliminated_order,
    log_weights,
    response_products,
    root_weights,
)
from ..numerics.linalg.matrices import inverse_upper
from ..runtime.calls import session
from ..runtime.compilation import brief, in_order, jit, light
from ..support.later import jax, jnp

ROWS = 1 << 18  # of a chunk
LARGE = 1 << 21  # rows from which on chunks take less memory than they cost time


def moments_by_chunks(
    plan: Plan,
    y: Any,
    X: Any,
    Z: Sequence[Any],
    weights: Any = None,
    offset: Any = None,
    K: Sequence[Any] | None = None,
    rows: int | None = None,
) -> Moments:
    """`crossproducts.moments` as NumPy, `rows` rows at a time.

    Arrays may be memory maps; all rows have weight > 0.
    """
    n, p = X.shape
    # every chunk makes sums for all levels
    rows = rows or max(ROWS, *(b.levels for b in plan.layout.blocks))
    rows = min(rows, bucket(n))
    layout = jax.tree.map(jnp.asarray, plan.layout) if rows < n else plan.layout
    with session():
        factors = [np.zeros((c, c)) for c in (p + 1, *(z.shape[1] for z in Z))]
        for _, *chunk in _chunks(plan, y, X, Z, weights, offset, rows):
            # or chunks wait in memory for each other
            factors = jax.block_until_ready(_compressed(factors, *chunk))
        K = eliminated_order(plan.layout, K)
        constants, beta0 = _constants(plan.layout, factors, float(n), K)
        total: Any = None
        for part, *chunk in _chunks(plan, y, X, Z, weights, offset, rows):
            made = _products(replace(part, layout=layout), constants, *chunk)
            total = jax.block_until_ready(made if total is None else _added(total, made))
        A, R, _, scale = constants
        found = Moments(layout, **total, n=np.float64(n), A=A, K=K, R=R, beta0=beta0, scale=scale)
        return replace(jax.tree.map(np.asarray, found), layout=plan.layout)


def _chunks(plan, y, X, Z, weights, offset, rows) -> Iterator[tuple]:
    """Parts of a plan and their rows, the last filled up with rows of weight zero."""
    n = len(y)
    for a in range(0, n, rows):
        part = slice(a, min(a + rows, n))
        shifted = y[part] if offset is None else y[part] - offset[part]
        w = np.ones(len(shifted)) if weights is None else weights[part]
        codes, entries = jax.tree.map(lambda c, part=part: c[part], (plan.codes, plan.rows))
        arrays = codes, entries, shifted, X[part], [z[part] for z in Z], w
        codes, entries, *arrays = pad_rows(arrays, rows - len(shifted))
        yield replace(plan, codes=codes, rows=entries), *arrays


@light
@jit
def _compressed(factors, y, X, Z, w):
    """Triangular factors of [X y] and of every Z with these rows added."""
    root = root_weights(w)[:, None]
    new = [jnp.concatenate([X, y[:, None]], 1), *Z]
    return [
        jnp.linalg.qr(jnp.concatenate([r, root * a]), mode="r")
        for r, a in zip(factors, new, strict=True)
    ]


@brief
@jit
def _constants(layout, factors, n, K):
    """A, R, b0 and scale, from triangular factors of [X y] and of the Z in the user's order; and
    beta0.
    """
    Xy, *Z = factors
    R, b0, rest = Xy[:-1, :-1], Xy[:-1, -1:], jnp.abs(Xy[-1, -1]) / jnp.sqrt(n)
    A = conditioners(Plan(layout, (), ()), Z, n, K)
    beta0 = (inverse_upper(R) @ b0)[:, 0]
    return (A, R, b0, jnp.where(rest > 0, rest, 1.0)), beta0


@in_order
@jit
def _products(plan, constants, y, X, Z, w):
    A, R, b0, scale = constants
    basis = apply_constants(plan, X, Z, w, None, A, (), R)
    response = jax.tree.map(
        lambda a: a[0], response_products(plan, basis, y[:, None], b0, scale[None])
    )
    of_response = dict(Zy=response.Zy, Xy=response.Xy, yy=response.yy)
    return (
        design_products(plan, basis.X, basis.Z, w) | of_response | dict(log_weights=log_weights(w))
    )


_added = jit(lambda total, made: jax.tree.map(jnp.add, total, made), donate_argnums=0)
