"""Levels that meet many columns of a sparse core: what eliminating them adds to the core, pair of columns by pair.

An *entry* is a level of the eliminated factor and a column of the core that it meets. With U_l and V_l (k, columns of
level l), sum_l U_l'V_l gets a term for every two entries of a level. The pairs are listed three times, in chunks of
few: by their place in the core, to be added up, and by either entry, to be differentiated. A sum over a chunk is a
fixed number of gathers, which fuse into one parallel loop; what is left to scatter is short. Only one of two mirrored
places is written, twice what belongs there: of the core, the symmetric part counts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

AT_PLACE, OF_ENTRY = 3, 8  # pairs of a chunk
SAFE = dict(mode="promise_in_bounds", wrap_negative_indices=False)


class Chunks(NamedTuple):
    """Items that belong to an owner, W at a time."""

    owner: np.ndarray  # (c,)
    items: tuple[np.ndarray, ...]  # each (W, c)


class Pairs(NamedTuple):
    """Every two entries of one level, each pair once; the second is the one of the later column."""

    by_place: Chunks  # row * q + column of the core; first and second entries
    by_first: Chunks  # first entry; second entries and places
    by_second: Chunks  # second entry; first entries and places


def all_pairs(level, column, q, empty, rounded) -> Pairs:
    """Pairs of entries by their level and column (e,); empty: an entry that is zero; rounded: of numbers of chunks."""
    order = np.lexsort((column, level)).astype(np.int32)
    column, sizes = column[order].astype(np.int32), np.bincount(level)
    rank = _count_up(sizes)  # of an entry in its level
    left = np.repeat(sizes, sizes) - rank - 1

    def place(a, b):
        return column[b] * np.int32(q) + column[a]

    everyone = np.arange(len(order), dtype=np.int32)
    a = np.repeat(everyone, left)
    b = a + 1 + _count_up(left)
    later, places = order[b], place(a, b)
    by_place = np.argsort(places)
    sorted_places = places[by_place]
    starts = np.flatnonzero(np.diff(sorted_places, prepend=-1))
    owners, counts = sorted_places[starts], np.diff(starts, append=len(places))
    met = order[a[by_place]], later[by_place]
    b = np.repeat(everyone, rank)
    a = b - rank[b] + _count_up(rank)
    return Pairs(
        _chunks(owners, counts, met, (empty, empty), AT_PLACE, rounded),
        _chunks(order, left, (later, places), (empty, 0), OF_ENTRY, rounded),
        _chunks(order, rank, (order[a], place(a, b)), (empty, 0), OF_ENTRY, rounded),
    )


def _count_up(sizes):
    """0, 1, ... for each of the sizes."""
    return np.arange(sizes.sum(), dtype=np.int32) - np.repeat((np.cumsum(sizes) - sizes).astype(np.int32), sizes)


def _chunks(owners, sizes, items, fills, width, rounded) -> Chunks:
    """Items in the order of their owners, of whom each has so many, padded to whole chunks and a rounded number."""
    group, filled = chunked(sizes, width, rounded)
    spread = [np.full(filled.shape, fill, np.int32) for fill in fills]
    for array, values in zip(spread, items, strict=True):
        array[filled] = values
    return Chunks(owners[group], tuple(np.ascontiguousarray(array.T) for array in spread))


def chunked(sizes, width, rounded):
    """Groups of so many items in chunks: the group of every chunk (c,), and which places have an item (c, width).

    Items follow group by group. rounded: of the number of chunks; those it adds are empty, and the last group's.
    """
    chunks = -(-sizes // width)
    total = int(chunks.sum())
    chunks[-1:] += rounded(total) - total
    group = np.repeat(np.arange(len(sizes), dtype=np.int32), chunks)
    return group, np.arange(width) < (sizes[group] - width * _count_up(chunks))[:, None]


def subtract_products(core, U, V, column, pairs: Pairs):
    """Subtract from core (q, q) what has the symmetric part sum_l U_l'V_l, from U and V (k, e); V'U is the same."""
    diagonal = column * (len(core) + 1)
    flat = core.reshape(-1).at[diagonal].add(-jnp.sum(U * V, 0), **SAFE)
    return _off_diagonal(flat, U, -2.0 * V, pairs).reshape(core.shape)


@jax.custom_jvp
def _off_diagonal(flat, U, V, pairs):
    owner, (first, second) = pairs.by_place
    # Row by row: a reduction would not fuse.
    met = sum(_at(u, a) * _at(v, b) for a, b in zip(first, second, strict=True) for u, v in zip(U, V, strict=True))
    return flat.at[owner].add(met, **SAFE)


@_off_diagonal.defjvp
def _off_diagonal_jvp(primals, tangents):
    """Transposes to sums over chunks: each tangent is gathered by the owner alone."""
    _, U, V, pairs = primals
    tangent, dU, dV, _ = tangents
    for chunks, moved, fixed in ((pairs.by_first, dU, V), (pairs.by_second, dV, U)):
        owner, (other, place) = chunks
        moved = _at(moved, owner)
        for o, p in zip(other, place, strict=True):
            tangent = tangent.at[p].add(jnp.sum(moved * _at(fixed, o), 0), **SAFE)
    return _off_diagonal(*primals), tangent


def _at(U, entries):
    return U.at[..., entries].get(**SAFE)
