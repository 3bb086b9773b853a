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
    order = np.argsort(level * np.int64(q) + column).astype(np.int32)
    column, sizes = column[order].astype(np.int32), np.bincount(level).astype(np.int32)
    rank = _count_up(sizes)  # of an entry in its level
    left = np.repeat(sizes, sizes) - rank - 1
    everyone = np.arange(len(order), dtype=np.int32)

    def place(a, b):
        return column.take(b) * np.int32(q) + column.take(a)

    def later(a, at):
        b = np.minimum(a + 1 + at, len(order) - 1)  # a chunk may reach beyond its level
        return order.take(b), place(a, b)

    def earlier(b, at):
        a = np.minimum(b - rank.take(b) + at, b)
        return order.take(a), place(a, b)

    return Pairs(
        _by_place(np.repeat(everyone, left), left, order, place, empty, rounded),
        _chunks(order, left, later, (empty, 0), OF_ENTRY, rounded),
        _chunks(order, rank, earlier, (empty, 0), OF_ENTRY, rounded),
    )


def _by_place(a, left, order, place, empty, rounded) -> Chunks:
    """Pairs by their first entry a, of which there are so many left with each, in the order of their places."""
    b = a + 1 + _count_up(left)
    keys = place(a, b).astype(np.int64) << 32
    keys |= np.arange(len(a))
    keys.sort()  # much faster than sorting places together with where they came from
    places = (keys >> 32).astype(np.int32)
    keys &= 0xFFFFFFFF
    starts = np.flatnonzero(np.append(True, places[1:] != places[:-1])[: len(places)]).astype(np.int32)
    met = order.take(a).take(keys), order.take(b).take(keys)

    def of_place(group, at):
        i = np.minimum(starts.take(group) + at, len(keys) - 1)
        return met[0].take(i), met[1].take(i)

    counts = np.diff(starts, append=np.int32(len(keys)))
    return _chunks(places[starts], counts, of_place, (empty, empty), AT_PLACE, rounded)


def _count_up(sizes):
    """0, 1, ... for each of the sizes."""
    return np.arange(sizes.sum(), dtype=np.int32) - np.repeat((np.cumsum(sizes) - sizes).astype(np.int32), sizes)


def _chunks(owners, sizes, items, fills, width, rounded) -> Chunks:
    """Items of owners, of whom each has so many: items(places of owners (c,), numbers of items (width, c)) finds them.

    What it finds beyond the last item of an owner is replaced by the fills.
    """
    group, before = chunked(sizes, width, rounded)
    at = before + np.arange(width, dtype=np.int32)[:, None]
    filled = at < sizes.take(group)
    found = zip(items(group, at), fills, strict=True)
    return Chunks(owners[group], tuple(np.where(filled, values, np.int32(fill)) for values, fill in found))


def chunked(sizes, width, rounded):
    """Groups of so many items in chunks: the group of every chunk (c,), and how many of its items came before (c,).

    rounded: of the number of chunks; those it adds are empty, and the last group's.
    """
    chunks = -(-sizes // width)
    total = int(chunks.sum())
    chunks[-1:] += rounded(total) - total
    group = np.repeat(np.arange(len(sizes), dtype=np.int32), chunks)
    return group, width * _count_up(chunks)


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
