"""Levels that meet many columns of a sparse core: what eliminating them adds to the core, pair of
columns by pair.

An *entry* is a level of the eliminated factor and a column of the core that it meets; entries are
ordered by level and column. With U_l and V_l (k, columns of level l), sum_l U_l'V_l gets a term for
every two entries of a level. The pairs are listed by their place in the core, to be added up, and
by either entry, to be differentiated, in chunks of few: a sum over a chunk is a fixed number of
gathers, which fuse into one parallel loop; what is left to scatter is short. The partners of an
entry are its neighbours, and need no list. Only one of two mirrored places is written, twice what
belongs there: of the core, the symmetric part counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...support.later import custom_jvp, jnp

AT_PLACE, OF_ENTRY = 3, 8  # pairs of a chunk
SAFE = dict(mode="promise_in_bounds", wrap_negative_indices=False)


class Chunks(NamedTuple):
    """Consecutive items of one owner, a few at a time."""

    owner: np.ndarray  # (c,)
    start: np.ndarray  # (c,) the first item
    count: np.ndarray  # (c,) how many there are


class Pairs(NamedTuple):
    """Every two entries of one level, each pair once; the second is the one of the later column."""

    # (P,) entries of the pairs in the order of their places; of the last, an empty entry
    first: np.ndarray
    second: np.ndarray
    by_place: Chunks  # row * q + column of the core; pairs
    by_first: Chunks  # first entry; entries after it
    by_second: Chunks  # second entry; entries before it


def all_pairs(level, column, q, rounded) -> Pairs:
    """Pairs of entries by their level and column (e,), in that order; rounded: of numbers of
    pairs and chunks.
    """
    sizes = np.bincount(level).astype(np.int32)
    entry, column = np.arange(len(level), dtype=np.int32), column.astype(np.int32)
    before = count_up(sizes)
    after = np.repeat(sizes, sizes) - before - 1
    second = np.repeat(entry + 1, after) + count_up(after)
    keys = (np.repeat(column * np.int32(q), after) + column.take(second)).astype(np.int64) << 32
    keys |= np.arange(len(keys))
    keys.sort()  # much faster than sorting places together with where they came from
    place = (keys >> 32).astype(np.int32)
    keys &= 0xFFFFFFFF
    starts = np.flatnonzero(np.append(True, place[1:] != place[:-1])[: len(place)]).astype(np.int32)
    by_place = _chunks(np.diff(starts, append=np.int32(len(place))), starts, AT_PLACE, rounded)
    empty = np.full(rounded(len(keys) + 1) - len(keys), len(level), np.int32)
    first, second = (np.append(a.take(keys), empty) for a in (np.repeat(entry, after), second))
    return Pairs(
        first,
        second,
        by_place._replace(owner=place[starts][by_place.owner]),
        _chunks(after, entry + 1, OF_ENTRY, rounded),
        _chunks(before, entry - before, OF_ENTRY, rounded),
    )


def count_up(sizes):
    """0, 1, ... for each of the sizes."""
    return np.arange(sizes.sum(), dtype=np.int32) - np.repeat(
        (np.cumsum(sizes) - sizes).astype(np.int32), sizes
    )


def _chunks(sizes, starts, width, rounded) -> Chunks:
    """Items of owners 0, 1, ...: so many from a start, width of them at a time."""
    owner, before = chunked(sizes, width, rounded)
    return Chunks(owner, starts[owner] + before, np.clip(sizes[owner] - before, 0, width))


def chunked(sizes, width, rounded):
    """Groups of so many items in chunks: the group of every chunk (c,), and how many of its items
    came before (c,).

    rounded: of the number of chunks; those it adds are empty, and the last group's.
    """
    chunks = -(-sizes // width)
    total = int(chunks.sum())
    chunks[-1:] += rounded(total) - total
    group = np.repeat(np.arange(len(sizes), dtype=np.int32), chunks)
    return group, width * count_up(chunks)


def subtract_products(core, U, V, column, pairs: Pairs):
    """Subtract from core (q, q) what has the symmetric part sum_l U_l'V_l, from U and V (k, e);
    V'U is the same.
    """
    diagonal = column * (core.shape[0] + 1)
    flat = core.reshape(-1).at[diagonal].add(-jnp.sum(U * V, 0), **SAFE)
    return _off_diagonal(flat, U, -2.0 * V, column * core.shape[0], column, pairs).reshape(
        core.shape
    )


@custom_jvp
def _off_diagonal(flat, U, V, row, column, pairs):
    met = [
        (_at(pairs.first, i), _at(pairs.second, i))
        for i in _items(pairs.by_place, AT_PLACE, pairs.first.shape[0])
    ]
    # Row by row: a reduction would not fuse.
    added = sum(_at(u, a) * _at(v, b) for a, b in met for u, v in zip(U, V, strict=True))
    return flat.at[pairs.by_place.owner].add(added, **SAFE)


@_off_diagonal.defjvp
def _off_diagonal_jvp(primals, tangents):
    """Transposes to sums over chunks: each tangent is gathered by the owner alone, along its row
    of the core.
    """
    _, U, V, row, column, pairs = primals
    tangent, dU, dV, *_ = tangents
    for chunks, moved, fixed in ((pairs.by_first, dU, V), (pairs.by_second, dV, U)):
        moved, beginning = _at(moved, chunks.owner), _at(row, chunks.owner)
        for other in _items(chunks, OF_ENTRY, column.shape[0]):
            place = beginning + _at(column, other)
            tangent = tangent.at[place].add(jnp.sum(moved * _at(fixed, other), 0), **SAFE)
    return _off_diagonal(*primals), tangent


def _items(chunks, width, size):
    """The first item of every chunk (c,), then the second, ...; the last of all items, which is
    empty, for none.
    """
    return [jnp.where(at < chunks.count, chunks.start + at, size - 1) for at in range(width)]


def _at(U, entries):
    return jnp.asarray(U).at[..., entries].get(**SAFE)
