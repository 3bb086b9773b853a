"""Variances of predictions from what a fit keeps: their cost does not depend on the rows of the
fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.sparse import Sparse
from ..models.fitted import FittedModel
from ..models.linear_predictor import Rows
from ..numerics.crossproducts.layout import Layout
from ..numerics.uncertainty.row_information import Information, by_block, information
from ..runtime.calls import run
from ..runtime.compilation import jit

MOST_NUMBERS = 1 << 27  # that the blocks and their derivatives may take
AT_ONCE = 1 << 14  # rows
AT_ONCE_IF_NEW = 1 << 12  # rows whose levels meet anew in a sparse core

_information = jit(information)


def row_variances(fit: FittedModel, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Var(x'(beta^ - beta) + z'(b^ - b)) / sigma^2 of rows (n,), its derivatives by t (n, d), and
    where it is known.

    theta and sigma are held. It is known for all rows with the sparse engine. With others it is not
    where the layout has a sparse core, or where a row puts a level of the fit into another level of
    an outer factor than the fit does. Codes of -1 are unseen levels.
    """
    n, d = len(rows.X), len(fit.estimate.t)
    engine = fit.model.engine
    if isinstance(engine, Sparse):
        return _by_meetings(fit, engine, rows)
    kept = kept_information(fit)
    if kept is None:
        return np.zeros(n), np.zeros((n, d)), np.zeros(n, bool)
    parts = [
        _variances(kept, rows.take(slice(a, a + AT_ONCE))) for a in range(0, max(n, 1), AT_ONCE)
    ]
    found = np.concatenate(parts)
    return found[:, 0], found[:, 1:], _as_nested(kept.layout, rows)


def _by_meetings(
    fit: FittedModel, engine: Sparse, rows: Rows
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`row_variances` of the sparse engine: rows whose levels meet in the data have all that they
    need in the factorisation of the fit; others get places of their own, some rows at a time.
    """
    n = len(rows.X)
    found = np.empty((n, 1 + len(fit.estimate.t)))
    is_met = engine.meet(rows.codes)
    others = np.flatnonzero(~is_met)
    cuts = range(AT_ONCE_IF_NEW, len(others), AT_ONCE_IF_NEW)
    for some in (np.flatnonzero(is_met), *np.split(others, cuts)):
        if len(some) == 0:
            continue
        part = rows.take(some)
        m, met = engine.meeting(part.codes)
        kept = _stacked(m.layout, run(_information, fit.estimate.t, m))
        found[some] = _variances(kept, part, by_block([f.of_more for f in met], len(kept.G)))
    return found[:, 0], found[:, 1:], np.ones(n, bool)


def kept_information(fit: FittedModel) -> Kept | None:
    """What variances of any rows are made of, once for a fit; None where the core is sparse, or
    it is too much.
    """
    return fit.remembered("information", lambda: _made(fit))


def _made(fit: FittedModel) -> Kept | None:
    if not fit.model.engine.can("moments"):
        return None
    m, d = fit.model.moments, len(fit.estimate.t)
    numbers = m.XX.size + sum(a.size for part in (m.G, m.ZX, *m.B) for a in part)
    if m.layout.entries or numbers * (1 + d) > MOST_NUMBERS:
        return None
    return _stacked(m.layout, run(_information, fit.estimate.t, m))


@dataclass(frozen=True, eq=False)
class Kept:
    """`Information` with values and slopes together, on a last axis (1 + d,)."""

    layout: Layout
    G: list[np.ndarray]
    B: list[list[np.ndarray]]
    ZX: list[np.ndarray]
    XX: np.ndarray
    unseen: list[np.ndarray]
    X: np.ndarray
    Z: list[np.ndarray]


def _stacked(layout: Layout, found: Information) -> Kept:
    def both(value, slopes):
        return np.concatenate([value[..., None], slopes], -1)

    blocks, slopes = found.blocks, found.slopes
    return Kept(
        layout=layout,
        G=list(map(both, blocks.G, slopes.G)),
        B=[list(map(both, *pair)) for pair in zip(blocks.B, slopes.B, strict=True)],
        ZX=list(map(both, blocks.ZX, slopes.ZX)),
        XX=both(blocks.XX, slopes.XX),
        unseen=list(map(both, blocks.unseen, slopes.unseen)),
        X=found.X,
        Z=found.Z,
    )


def _variances(kept: Kept, rows: Rows, places: Any = None) -> np.ndarray:
    """Quadratic forms of the conditioned rows and their derivatives: (n, 1 + d).

    places: places[j][h] (n,) in `Kept.B`, where it is not the level.
    """
    layout = kept.layout
    q, chain = layout.q, layout.chain
    place = [layout.order.index(j) for j in range(len(layout.blocks))]
    x = rows.X @ kept.X
    z = [rows.Z[i] @ kept.Z[j] for j, i in enumerate(place)]
    code = [np.asarray(rows.codes[i]) for i in place]
    seen = [np.where((c >= 0)[:, None], values, 0.0) for c, values in zip(code, z, strict=True)]
    new = [values - known for values, known in zip(z, seen, strict=True)]
    columns = [
        start + np.maximum(c, 0)[:, None] * block.k + np.arange(block.k)[None]
        for block, start, c in zip(layout.core, layout.offsets, code[chain:], strict=False)
    ]
    core = list(zip(seen[chain:], columns, strict=True))
    total = _forms(x, kept.XX[q:, q:])
    for values, variance in zip(new, kept.unseen, strict=True):
        total += _forms(values, variance)
    total += _of_core(kept.XX, q, core, x)
    for j in range(chain):
        a, level = seen[j], np.maximum(code[j], 0)
        total += _forms_by_level(a, kept.G[j], level, a)
        total += _forms_by_level(a, kept.ZX[j][:, q:], level, x)
        for b, at in core:
            met = kept.ZX[j][:, at, level[:, None]]
            total += np.einsum("nk,nlks,nl->ns", a, met.transpose(1, 2, 0, 3), b)
        for h, B in enumerate(kept.B[j], j + 1):
            at = level if places is None else places[j][h - j - 1]
            total += _forms_by_level(a, B, at, seen[h])
    return total


def _forms(x: np.ndarray, M: np.ndarray) -> np.ndarray:
    """Forms x'Mx of rows x (n, p), for every one of the matrices M (p, p, s): (n, s).

    Numbers that are added up lie side by side, which is quicker; so below.
    """
    p, _, s = M.shape
    Mx = (x @ np.swapaxes(M, 1, 2).reshape(p, s * p)).reshape(len(x), s, p)
    return np.einsum("nsp,np->ns", Mx, x)


def _forms_by_level(a: np.ndarray, M: np.ndarray, level: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Forms a'Mb of rows a (n, k) and b (n, l), with the matrices of their levels among M
    (k, l, m, s): (n, s).
    """
    of_row = np.moveaxis(M, (2, 3), (0, 1))[level]
    return np.einsum("nkl,nskl->ns", a[:, :, None] * b[:, None], of_row)


def _of_core(XX: np.ndarray, q: int, core: Sequence[Any], x: np.ndarray) -> np.ndarray | float:
    """What the core's effects add, among each other and with the fixed part (n, 1 + d).

    core: per block the effects' columns (n, k), and where in XX they stand (n, k).
    """
    total: np.ndarray | float = 0.0
    for (a, at), (b, other) in itertools.product(core, repeat=2):
        met = XX[at[:, :, None], other[:, None, :]]
        total = total + np.einsum("nk,nkls,nl->ns", a, met, b)
    for a, at in core:
        both = XX[at, q:] + XX[q:, at].transpose(1, 2, 0, 3)
        total = total + np.einsum("nk,nkps,np->ns", a, both, x)
    return total


def _as_nested(layout: Layout, rows: Rows) -> np.ndarray:
    """Whether every level is within the levels of outer factors that it is within in the fit
    (n,).
    """
    code = [np.asarray(rows.codes[layout.order.index(j)]) for j in range(layout.chain)]
    same = np.ones(len(rows.X), bool)
    for j, parents in enumerate(layout.parents):
        for h, parent in enumerate(parents, j + 1):
            same &= (code[j] < 0) | (code[h] < 0) | (parent[code[j]] == code[h])
    return same
