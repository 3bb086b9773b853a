"""Crossed factors whose matrix M = I + Lambda'Z'WZ Lambda stays sparse: in which order its columns
are eliminated, and what each of them meets.

A *round* is a set of columns that do not meet each other and meet few others, whatever their
factor: all of them are eliminated at once, and what they meet gets filled in. Rounds end
where the dense matrix of what is left, the core, costs less than the next one. Few albums have two
artists: whole factors do not nest, but nearly all of their levels do (the minimum degree of
George & Liu 1989, SIAM Review 31(1), many columns at a time).

Everything here is host NumPy; `Rounds` holds index lists as leaves, and `RoundMoments` beside them
the cross-products that `Moments` lack, those of every two levels that meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, NamedTuple

import numpy as np

from ...support.containers import container
from ..covariance.block import Block
from .layout import FLOPS_PER_PAIR, STATIC, Layout, Plan, bucket
from .moments import Moments
from .pair_products import count_up

FLOPS_OF_CUBE = 3.2  # the core's factorisation and its derivative take so many times q^3
MOST_ROUNDS = 6  # each adds to the time of compilation
MOST_PAIRS = 30_000_000  # in all rounds: what their lists may take of memory


@container
class Round:
    """Columns to be eliminated at once, and the entries of M below them."""

    column: np.ndarray  # (e,) which of the round's columns an entry stands in
    row: np.ndarray  # (e,) column of M that it meets there, of a later round
    # (P,) every two entries of one column, and one with itself
    first: np.ndarray
    second: np.ndarray
    place: np.ndarray  # (P,) where in M the product of the two goes
    size: int = field(metadata=STATIC)  # columns, with the empty ones


@container
class Rounds:
    """In which order the columns of M are eliminated. M is a vector: its diagonal, in that order,
    the entries below it round by round, those of the core, and a last place for what is not
    needed.
    """

    rounds: tuple[Round, ...]
    core: tuple[np.ndarray, np.ndarray]  # row and column (e,) in the core of its entries
    columns: int = field(metadata=STATIC)  # of M, with the empty ones of every round
    column: np.ndarray  # (sum of k m,) of every block, (k, m) flat: its place on the diagonal
    # where in M they go: Z_g'WZ_g of every block, (k, k, m) flat, then `RoundMoments.met`
    place: np.ndarray

    @property
    def q(self) -> int:
        """Columns of the core."""
        return self.columns - sum(r.size for r in self.rounds)

    @property
    def flops(self) -> float:
        """What an evaluation takes, roughly."""
        pairs = sum(len(r.first) for r in self.rounds)
        return FLOPS_PER_PAIR * 2.0 * pairs + FLOPS_OF_CUBE * float(self.q) ** 3


@container
class RoundMoments(Moments):
    """The `Moments` of a plan in which every block is eliminated level by level, and how levels
    of different blocks meet.
    """

    generalised = None  # its lists are made for one size
    is_lean: ClassVar[bool] = True

    met: tuple  # per two blocks g < h (k_g, k_h, e): Z_g'W Z_h of their levels that meet
    rounds: Rounds


class Meeting(NamedTuple):
    """Levels of two blocks g < h that meet."""

    g: int
    h: int
    level: np.ndarray  # (e,) of g
    other: np.ndarray  # (e,) of h
    of_row: np.ndarray  # (n,) which meeting a row of the data belongs to
    of_more: np.ndarray  # (r,) the same of more rows; of a level that is unseen, any


def separate(codes, blocks: Sequence[Block]) -> Plan:
    """A plan in which no block is nested in another, in the user's order."""
    chain = len(blocks)
    layout = Layout(tuple(blocks), tuple(range(chain)), chain, (), ())
    return Plan(layout, tuple(np.asarray(c, np.int32) for c in codes), ())


def meetings(plan: Plan, more: Sequence[np.ndarray] | None = None) -> list[Meeting]:
    """Which levels of every two blocks share a row.

    more: codes of rows beside those of the data, whose levels shall have a place too; -1 of an
    unseen level, which meets no other.
    """
    found, n = [], len(plan.codes[0])
    codes = plan.codes if more is None else list(map(np.append, plan.codes, more))
    for g, h in itertools.combinations(range(len(codes)), 2):
        others = plan.layout.blocks[h].levels
        keys = codes[g].astype(np.int64) * others + codes[h]
        keys[np.minimum(codes[g], codes[h]) < 0] = keys[0]
        key, of_row = np.unique(keys, return_inverse=True)
        found.append(Meeting(g, h, *np.divmod(key, others), *np.split(of_row.ravel(), [n])))
    return found


def with_rounds(
    plan: Plan, m: Moments, met: Sequence[Meeting], rounds: Rounds, Z, weights
) -> RoundMoments:
    """The moments of a plan of `separate`, with those of the levels that meet.

    Z: per block (n, k), as given; weights (n,) or None.
    """
    Z = [z @ np.linalg.inv(a) for z, a in zip(Z, m.A, strict=True)]
    products = tuple(_products(meeting, Z, weights) for meeting in met)
    return RoundMoments(**vars(m), met=products, rounds=rounds)


def _products(meeting, Z, weights):
    left, right, e = Z[meeting.g], Z[meeting.h], len(meeting.level)
    left = left if weights is None else weights[:, None] * left
    found = np.empty((left.shape[1], right.shape[1], e))
    for a, b in np.ndindex(found.shape[:2]):
        found[a, b] = np.bincount(meeting.of_row, left[:, a] * right[:, b], e)
    return found


def rounds_of(plan: Plan, met: Sequence[Meeting], most: int = MOST_ROUNDS) -> Rounds:
    """The rounds, at most so many, that an evaluation takes least time with."""
    blocks = plan.layout.blocks
    starts = np.cumsum([0, *(b.levels * b.k for b in blocks)])
    ids = [
        start + np.arange(b.k * b.levels).reshape(b.k, b.levels)
        for start, b in zip(starts, blocks, strict=False)
    ]
    n = int(starts[-1])
    pairs = [_both(i[:, None], i[None]) for i in ids]
    pairs += [_both(ids[f.g][:, None, f.level], ids[f.h][None, :, f.other]) for f in met]
    row, column = (np.concatenate(a) for a in zip(*pairs, strict=True))
    return ordered(row, column, n, sum(b.levels * b.k**2 for b in blocks), most)


def ordered(row, column, n: int, diagonal: int = 0, most: int = MOST_ROUNDS) -> Rounds:
    """The rounds of a matrix of n columns, from the places of the numbers that it is made of.

    Of two mirrored places one is given, but of the first `diagonal` numbers both.
    """
    apart = row != column
    steps, left = _eliminate(_distinct(_keys(row[apart], column[apart], n)), n, most)
    return _listed(steps, left, n, row, column, diagonal)


def _both(a, b):
    return tuple(x.ravel() for x in np.broadcast_arrays(a, b))


def _keys(a, b, n):
    """Entries (a, b) of a matrix of n columns and their mirrored ones, as numbers."""
    a, b = a.astype(np.int64), b.astype(np.int64)
    return np.concatenate([a * n + b, b * n + a])


def _distinct(keys):
    """Every key once, increasing; quicker than `np.unique`."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


class _Step(NamedTuple):
    """One round in terms of all columns."""

    chosen: np.ndarray  # columns
    column: np.ndarray  # of every entry, increasing
    row: np.ndarray
    first: np.ndarray
    second: np.ndarray


def _eliminate(keys, n, most):
    """Rounds of columns, from the sorted entries of M but its diagonal; and which are left, with
    what they meet.
    """
    steps, active, listed = [], np.ones(n, bool), 0
    tie = np.random.default_rng(0).permutation(n)  # any fixed order: neighbours must not follow
    while len(steps) < most and active.any():
        a, b = np.divmod(keys, n)
        degree = np.bincount(a, minlength=n)
        chosen = _independent(a, b, degree, active, tie)
        own = degree[chosen]
        pairs = int(own @ (own + 1)) // 2
        q, fewer = float(active.sum()), float(active.sum() - len(chosen))
        saved = FLOPS_OF_CUBE * (q**3 - fewer**3)
        if 2.0 * FLOPS_PER_PAIR * pairs > saved or listed + pairs > MOST_PAIRS:
            break
        listed += pairs
        active[chosen] = False
        mine = ~active[a]
        column, row = a[mine], b[mine]
        sizes = degree[chosen]
        at = np.arange(len(row))
        ahead = np.repeat(sizes, sizes) - count_up(sizes)  # with itself
        first = np.repeat(at, ahead)
        second = first + count_up(ahead)
        filled = first != second
        fill = _keys(row[first[filled]], row[second[filled]], n)
        keys = _distinct(np.concatenate([keys[~mine & active[b]], fill]))
        steps.append(_Step(chosen, column, row, first, second))
    return steps, (np.flatnonzero(active), keys)


def _independent(a, b, degree, active, tie):
    """Columns of at most median degree that do not meet, those of low degree first."""
    free = active & (degree <= np.median(degree[active]))
    rank = np.empty(len(degree), np.int64)
    rank[np.lexsort((tie, degree))] = np.arange(len(degree))
    chosen = np.zeros(len(degree), bool)
    while free.any():
        near = free[a] & free[b]
        a, b = a[near], b[near]
        later = np.zeros(len(degree), bool)
        later[a[rank[b] < rank[a]]] = True
        new = free & ~later
        chosen |= new
        free &= ~new
        free[b[new[a]]] = False
    return np.flatnonzero(chosen)


def _listed(steps, left, n, row, column, diagonal):
    """The lists of `Rounds`. row, column: of every number of G, of which there are so many on
    the diagonal blocks, and of those that meet.
    """
    remaining, keys = left
    sizes = [bucket(len(s.chosen)) for s in steps] + [bucket(len(remaining))]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    position = np.empty(n, np.int64)
    for start, chosen in zip(starts, [*(s.chosen for s in steps), remaining], strict=False):
        position[chosen] = start + np.arange(len(chosen))
    a, b = np.divmod(keys, n)
    below = position[a] < position[b]
    core = position[a[below]], position[b[below]]
    entries = [(position[s.column], position[s.row]) for s in steps] + [core]
    lengths = [bucket(len(e[0]) + 1) for e in entries]
    columns = int(starts[-1])
    first_places = columns + np.cumsum([0, *lengths])
    dump = int(first_places[-1])
    known = np.concatenate([e[0] * columns + e[1] for e in entries])
    places = np.concatenate(
        [start + np.arange(len(e[0])) for start, e in zip(first_places, entries, strict=False)]
    )
    order = np.argsort(known)
    known, places = known[order], places[order]

    def place(i, j):
        """Where in M the entry of two columns is."""
        low, high = np.minimum(i, j), np.maximum(i, j)
        at = np.searchsorted(known, low * columns + high)
        return np.where(low == high, low, places[np.minimum(at, len(places) - 1)])

    rounds = []
    for step, (own, met), start, size, length in zip(
        steps, entries, starts, sizes, lengths, strict=False
    ):
        total = bucket(len(step.first))
        rounds.append(
            Round(
                _filled(own - start, length, 0),
                _filled(met, length, columns - 1),
                _filled(step.first, total, length - 1),
                _filled(step.second, total, length - 1),
                _filled(place(met[step.first], met[step.second]), total, dump),
                size,
            )
        )
    row, column = position[row], position[column]
    upper = (row < column) & (np.arange(len(row)) < diagonal)  # G has both of two mirrored numbers
    into = np.where(upper, dump, place(row, column))
    core_row, core_column = (_filled(c - starts[-2], lengths[-1], 0) for c in core)
    return Rounds(
        tuple(rounds),
        (core_row, core_column),
        columns,
        position.astype(np.int32),
        into.astype(np.int32),
    )


def _filled(a, size, fill):
    return np.concatenate([a, np.full(size - len(a), fill)]).astype(np.int32)
