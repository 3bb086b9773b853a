"""Levels of equal Z_i'WZ_i, for models of wide X and very many levels.

Eliminating level i of a factor of one column subtracts w_i C_i'C_i from the cross-products C_i
touches, with w_i = lambda^2 / (1 + lambda^2 G_i). Levels of equal G_i, as are those of equally many
rows, have one w: what they touch is summed once, class by class, and an evaluation takes as long as
there are classes. What is left, the factors crossed with it, goes on by `Rounds`, with the places
filled in where two of their levels met the same one.

Everything here is host NumPy.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np

from ...support.containers import container
from .layout import bucket
from .moments import Moments
from .pair_products import count_up
from .rounds import MOST_PAIRS, Rounds, ordered

EQUAL = 1e-12  # relative difference of G_i that rounding makes
WIDE = 1 << 21  # cross-products of levels with X and y from which an evaluation takes long
LARGE_CORE = 1000  # columns from which the same is true of its factorisation
SPARSE = 8  # times fewer entries than places must such a core have
FEWER = 4  # times as many levels must there be as classes
ROUNDS = 2  # of the core; more would leave less, and take as long


@container
class Classes:
    """Sums over the levels of a class; c = p + 1 columns of X and y, q of the core."""

    G: np.ndarray  # (s,)
    levels: np.ndarray  # (s,) how many there are
    rest: np.ndarray  # (s, c, c) of C_i'C_i
    # for every column of the core that a class meets: the class, the column, and what it meets
    beside_class: np.ndarray  # (u,)
    beside_column: np.ndarray  # (u,)
    beside: np.ndarray  # (u, c)
    # the same for every two columns that a level meets; which of `MergedMoments.numbers` it is
    core_class: np.ndarray  # (v,)
    core_number: np.ndarray  # (v,)
    core: np.ndarray  # (v,)


@container
class MergedMoments(Moments):
    """The `Moments` of a factor of many levels and a core, for searches: with classes in place of
    the levels' cross-products with core and X.
    """

    generalised = None  # its lists are made for one size
    is_lean: ClassVar[bool] = True

    classes: Classes
    # of Z_core'W Z_core, (q + e,): the diagonal, and those places that are or will be filled
    numbers: np.ndarray
    row: np.ndarray  # (q + e,)
    column: np.ndarray  # (q + e,)
    rounds: Rounds


def merged(m: Moments) -> Moments:
    """The moments by class where that makes an evaluation several times as quick, else as they
    are.
    """
    if not _can_be_merged(m):
        return m
    level, column, _ = _meetings(m)
    met, q = np.bincount(level), m.layout.q
    pairs = met @ (met + 1) // 2
    is_wide = (m.p + 1) * m.G[0].shape[2] >= WIDE
    is_sparse = q >= LARGE_CORE and 2 * SPARSE * pairs <= q**2
    if pairs > MOST_PAIRS or not (is_wide or is_sparse):
        return m
    owner, G, _ = _classes(m.G[0][0, 0])
    rows = len(np.unique(owner[level] * np.int64(q) + column))
    if FEWER * (len(G) * (m.p + 1) + rows) > len(owner) + len(level):
        return m
    return by_class(m)


def _can_be_merged(m):
    blocks, is_alone = m.layout.blocks, m.layout.chain == 1 and m.residual is None
    return is_alone and all(b.k == 1 and b.is_pattern and b.across is None for b in blocks)


def by_class(m: Moments) -> MergedMoments:
    """The moments by class of the one factor that is eliminated level by level; every factor has
    one column.
    """
    return _merged(m, *_classes(m.G[0][0, 0]))


def by_level(m: Moments) -> MergedMoments:
    """The moments with every level a class of its own, and without X: log|M| depends on no more."""
    q, G = m.layout.q, m.G[0][0, 0]
    beside = 0 if m.layout.entries else q
    alone = replace(
        m,
        ZX=(m.ZX[0][:, :beside],),
        XX=m.XX[:q, :q],
        Xy=m.Xy[:q],
        R=m.R[:0, :0],
        beta0=m.beta0[:0],
    )
    return _merged(alone, np.arange(len(G)), G, np.ones(len(G)))


def _merged(m, owner, G, levels):
    """The moments by classes of G (s,) and of so many levels (s,); owner (m,): that of every
    level.
    """
    q, ZX = m.layout.q, m.ZX[0][0]
    C = np.concatenate([ZX[len(ZX) - m.p :], m.Zy[0]]).T
    level, column, value = met = _meetings(m)
    key, beside = _summed(owner[level] * np.int64(q) + column, value, C, level)
    core, numbers, row, other = _of_core(m, owner, met)
    order = ordered(row, other, q, most=ROUNDS)
    classes = Classes(
        *_padded(G, levels, _squares(C, owner)),
        *_padded(*np.divmod(key, max(q, 1)), beside),
        *_padded(*core),
    )
    kept: dict[str, Any] = {f.name: getattr(m, f.name) for f in fields(Moments)}
    kept |= dict(B=(), E=(), ZX=())
    return MergedMoments(
        **kept, classes=classes, numbers=numbers, row=row, column=other, rounds=order
    )


def _classes(G):
    """The class of every level, and of every class its G and how many levels it has."""
    order = np.argsort(G, kind="stable")
    is_new = np.diff(G[order], prepend=-np.inf) > EQUAL * G[order]
    owner = np.empty(len(G), np.int64)
    owner[order] = np.cumsum(is_new) - 1
    return owner, G[order][is_new], np.bincount(owner).astype(float)


def _meetings(m):
    """Level, column of the core and cross-product of all that meet, by level and column."""
    if not m.layout.entries:
        level, column = np.nonzero(m.ZX[0][0, : m.layout.q].T)
        return level, column, m.ZX[0][0, column, level]
    entries = m.layout.entries[0]
    met = np.flatnonzero(m.E[0][0])
    return entries.level[met], entries.column[met], m.E[0][0, met]


def _summed(key, factor, rows, of_row):
    """The different keys, increasing, and for each the sum of factor times rows[of_row]."""
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    found = rows[of_row[order]]
    found *= factor[order].reshape(-1, *[1] * (rows.ndim - 1))
    return key[order][starts], np.add.reduceat(found, starts) if len(key) else found


def _squares(C, owner):
    """Sums of C_i'C_i (s, c, c) by the class of every level."""
    by_class = C[np.argsort(owner, kind="stable")]
    return np.stack([c.T @ c for c in np.split(by_class, np.cumsum(np.bincount(owner))[:-1])])


def _of_core(m, owner, met):
    """What pairs of columns that a level meets add up to by class, as class, number and sum;
    and the numbers of Z_core'W Z_core with their rows and columns, padded.
    """
    q = np.int64(m.layout.q)
    level, column, value = met
    first, second = _pairs(np.bincount(level, minlength=len(owner)))
    one, other, place = column[first], column[second], column[first] * q + column[second]
    row, above = _places(m, place)
    numbers = m.XX[row, above]
    known = row[q:] * q + above[q:]
    number = np.where(one != other, q + np.searchsorted(known, place), one)
    size = len(numbers) + 1
    key, sums = _summed(owner[level[first]] * size + number, value[first], value, second)
    return (*np.divmod(key, size), sums), *_padded(numbers, row, above)


def _pairs(sizes):
    """Every two of the items 0, 1, ... of one level, and one with itself; so many of each level."""
    ahead = np.repeat(sizes, sizes) - count_up(sizes)
    first = np.repeat(np.arange(len(ahead)), ahead)
    return first, first + count_up(ahead)


def _places(m, filled):
    """Row and column of the diagonal of Z_core'W Z_core, then of what lies above it, with places
    row q + column that will be filled.
    """
    q = m.layout.q
    row, column = np.nonzero(np.triu(m.XX[:q, :q], 1))
    row, column = np.divmod(np.union1d(row * np.int64(q) + column, filled), max(q, 1))
    above = row < column
    return tuple(np.concatenate([np.arange(q), a[above]]) for a in (row, column))


def _padded(*arrays):
    """Arrays with zeros after them, which change nothing; indices as 32-bit integers."""
    more = bucket(len(arrays[0])) - len(arrays[0])
    made = (np.concatenate([a, np.zeros((more, *a.shape[1:]), a.dtype)]) for a in arrays)
    return tuple(a if a.dtype.kind == "f" else a.astype(np.int32) for a in made)
