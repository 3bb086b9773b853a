"""The integer side of a model: which levels meet which, and in what order the factors are
eliminated.

Everything here is host NumPy on level codes; the result, a `Plan`, is a pytree whose shapes are
static and whose index lists are leaves, so that models of one shape share an executable.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import field, replace
from typing import Any, ClassVar

import numpy as np

from ...support.containers import Size, container
from ..covariance.block import Block
from .pair_products import Chunks, Pairs, all_pairs

STATIC = dict(static=True)
# A dense update of the core costs 2 k m q^2 flops, one pair by pair as much as 2 * 50 a pair and
# column of the level.
FLOPS_PER_PAIR = 50
MATRICES = 6  # of the core's size that are held at a time
MOST_COLUMNS = 46_340  # of the core, whose places are 32-bit integers


@container
class Entries:
    """Where the levels of one eliminated factor meet columns of the core, for a core too sparse
    to be stored dense.
    """

    level: np.ndarray  # (e,) level of the eliminated factor
    column: np.ndarray  # (e,) column of the core
    # per later factor of the chain (e,): the entry this one passes its fill on to
    up: tuple[np.ndarray, ...]
    pairs: Pairs


@container
class Layout:
    """Elimination order and index lists of a model, without its rows.

    The first `chain` blocks are eliminated level by level (each is nested in the next); the levels
    of the others form one symmetric *core* with q columns, ordered by factor, level, column.
    """

    blocks: tuple[Block, ...] = field(metadata=STATIC)  # in elimination order
    order: tuple[int, ...] = field(
        metadata=STATIC
    )  # order[i]: place in `blocks` of the i-th factor as the user sees it
    chain: int = field(metadata=STATIC)
    # parents[j][h]: level of block j + 1 + h for each level of block j
    parents: tuple[tuple[np.ndarray, ...], ...]
    entries: tuple[Entries, ...]  # per chain block; empty where the core is absent or kept dense

    @property
    def core(self) -> tuple[Block, ...]:
        """Blocks that are not eliminated level by level."""
        return self.blocks[self.chain :]

    @property
    def offsets(self) -> tuple[int, ...]:
        """First core column of every core block, and q at the end."""
        return tuple(itertools.accumulate((b.levels * b.k for b in self.core), initial=0))

    @property
    def q(self) -> int:
        """Columns of the core."""
        return self.offsets[-1]

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """The levels of every block by the names that `generalised` gives them."""
        return {f"m{j}": block.levels for j, block in enumerate(self.blocks)}

    @functools.cached_property
    def generalised(self) -> Layout | None:
        """The layout for any number of levels, dimensions in place of arrays; None where levels
        covary.
        """
        if any(block.across is not None for block in self.blocks):
            return None
        blocks = tuple(replace(block, levels=Size(f"m{j}")) for j, block in enumerate(self.blocks))
        parents = tuple(tuple(f"m{j}" for _ in found) for j, found in enumerate(self.parents))
        entries = tuple(_generalised_entries(j, e) for j, e in enumerate(self.entries))
        return Layout(blocks, self.order, self.chain, parents, entries)

    @property
    def open_q(self) -> str:
        """The columns of the core in the words of `sizes`."""
        return "+".join(f"{b.k}*m{j}" for j, b in enumerate(self.blocks) if j >= self.chain)


def _generalised_entries(j: int, entries: Entries) -> Entries:
    first, *chunks = f"a{j}", *(Chunks(*[f"{kind}{j}"] * 3) for kind in ("b", "f", "s"))
    return Entries(
        f"e{j}", f"e{j}", tuple(f"e{j}" for _ in entries.up), Pairs(first, first, *chunks)
    )


@container
class Plan:
    """A layout, and where every row of the data goes in it."""

    layout: Layout
    codes: tuple[np.ndarray, ...]  # per block (n,): level of every row
    # sparse core: rows[j][h] (n,), first entry of chain block j a row adds to
    rows: tuple[tuple[np.ndarray, ...], ...]
    # `ClassPlan` or `RowPlan`: how rows that are correlated go in; None where they are not
    residual: Any = None

    sizes: ClassVar[dict[str, int]] = {}

    @functools.cached_property
    def generalised(self) -> Plan | None:
        """The plan for any number of levels and rows; see `Layout.generalised`."""
        if self.layout.generalised is None:
            return None
        return Plan(
            self.layout.generalised,
            ("n",) * len(self.codes),
            tuple(("n",) * len(r) for r in self.rows),
            None if self.residual is None else self.residual.generalised,
        )


def bucket(size: int) -> int:
    """The next size that shares an executable: at most an eighth larger."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def power_of_two(size: int) -> int:
    """The next power of two, at least 2: the coarsest sharing."""
    return 1 << max(size - 1, 1).bit_length()


def plan(
    codes,
    sizes,
    levels=None,
    pad: bool | Callable[[int], int] = False,
    covariances=None,
    memory=None,
    subject=None,
) -> Plan:
    """Lay out a model from the integer level codes of its factors.

    codes: per factor (n,) integers from 0. sizes: per factor the sizes of its mutually independent
    terms, `(2,)` for `(1 + x | g)` and `(1, 1)` for `(1 + x || g)`. levels: per factor the number
    of levels (default: largest code + 1).
    pad: round levels and list lengths up (to `bucket`, or by a function of your own), so that
    similar data share an executable; padded levels change nothing. covariances: per factor what
    `Block` calls (within, across). A factor whose levels covary is never eliminated level by level,
    and its levels are not padded. memory: bytes there are for the core; one that takes more is
    refused. subject (n,): codes of groups of correlated rows; a factor that parts one is not
    eliminated level by level.
    """
    covariances = [(None, None)] * len(codes) if covariances is None else list(covariances)
    codes = [np.asarray(c, np.int32) for c in codes]
    levels = [int(c.max()) + 1 for c in codes] if levels is None else list(levels)
    dims = [m * sum(s) for m, s in zip(levels, sizes, strict=True)]
    separable = _separable(codes, covariances, subject)
    chain, core = _elimination_order(codes, levels, dims, separable)
    places = chain + core
    rounded = pad if callable(pad) else bucket if pad else int

    def block(g):
        within, across = covariances[g]
        padded = rounded(levels[g]) if across is None else levels[g]
        return Block(padded, tuple(sizes[g]), within, across)

    blocks = tuple(block(g) for g in places)
    codes = tuple(codes[g] for g in places)
    order = tuple(places.index(g) for g in range(len(places)))
    parents = _parents_of_chain(codes[: len(chain)], blocks)
    dense = Layout(blocks, order, len(chain), parents, ())
    _require_room(dense.q, memory)
    entries, rows = _sparse_core(dense, codes, rounded) if core else ((), ())
    return Plan(Layout(blocks, order, len(chain), parents, entries), codes, rows)


def _separable(codes, covariances, subject):
    """Per factor whether its levels can be eliminated one by one: they do not covary, and none
    parts a subject.
    """
    free = [across is None for _, across in covariances]
    if subject is None:
        return free
    groups = int(subject.max()) + 1
    return [is_free and _nested(subject, c, groups) for is_free, c in zip(free, codes, strict=True)]


def _parents_of_chain(codes, blocks):
    """Per factor of a nested chain the parents of its levels in every factor after it."""
    return tuple(
        tuple(_parents(child, parent, block.levels) for parent in codes[j:])
        for j, (child, block) in enumerate(zip(codes, blocks, strict=False), 1)
    )


def _require_room(q, memory):
    """Refuse a core that cannot be held: trying would end the process."""
    needed = 8 * MATRICES * q**2
    if q > MOST_COLUMNS or needed > (memory or needed):
        raise ValueError(
            f"these random effects make a dense core of {q:,} columns, which takes "
            f"{needed / 1e9:,.0f} GB of memory"
            + (f", and there are {memory / 1e9:,.0f}" if memory else "")
            + '; fit models of crossed factors one by one with core="iterative", which needs '
            "no matrix"
        )


def _parents(child, parent, levels):
    """Parent level of every child level (0 for padding)."""
    found = np.zeros(levels, np.int32)
    found[child] = parent
    return found


def _nested(child, parent, levels):
    return np.array_equal(_parents(child, parent, levels)[child], parent)


def _elimination_order(codes, levels, dims, separable):
    """The nested chain of separable factors that leaves the smallest core, and the core's
    factors (largest first).
    """
    by_size = sorted(range(len(codes)), key=lambda g: -dims[g])
    links = [g for g in by_size if separable[g]]

    def is_within(g, h):
        return g != h and levels[g] >= levels[h] and _nested(codes[g], codes[h], levels[g])

    nested = {pair for pair in itertools.product(links, repeat=2) if is_within(*pair)}

    def chain_from(leaf):
        chain = [leaf]
        for h in sorted(by_size, key=lambda g: -levels[g]):
            if h not in chain and all((g, h) in nested for g in chain):
                chain.append(h)
        return chain

    def gain(chain):
        return sum(dims[g] for g in chain), -len(chain)

    chain = max(map(chain_from, links), key=gain, default=[])
    return chain, [g for g in by_size if g not in chain]


def eliminated_and_core(codes, sizes, levels) -> tuple[int, int]:
    """How many random effects `plan` eliminates level by level, and how many it leaves to the
    core.
    """
    dims = [m * sum(s) for m, s in zip(levels, sizes, strict=True)]
    chain, core = _elimination_order(codes, levels, dims, [True] * len(dims))
    return sum(dims[g] for g in chain), sum(dims[g] for g in core)


def _sparse_core(layout, codes, rounded):
    """Entry lists and the entries of every row; two empty tuples where dense columns are
    cheaper.
    """
    chain, blocks, q = layout.chain, layout.blocks, layout.q
    met = [_meetings(codes[j], codes[chain:], layout) for j in range(chain)]
    pairs = 0
    for (level, _, _), block in zip(met, blocks, strict=False):
        count = np.bincount(level, minlength=block.levels)
        pairs += block.k * (int(count @ (count + 1)) // 2)
    dense_flops = sum(b.levels * b.k for b in blocks[:chain]) * q**2
    if pairs * FLOPS_PER_PAIR > dense_flops:
        return (), ()
    entries = []
    for j, (level, column, _) in enumerate(met):
        e = rounded(len(level) + 1)  # at least one empty entry, for padding
        up = []
        for parent, (outer, theirs, _) in zip(layout.parents[j], met[j + 1 :], strict=True):
            wanted = parent[level] * np.int64(q) + column
            up.append(np.searchsorted(outer * q + theirs, wanted))
        columns = (_padded(places, e, 0) for places in (level, column))
        pairs = all_pairs(level, column, q, rounded)
        entries.append(Entries(*columns, tuple(_padded(u, e, 0) for u in up), pairs))
    return tuple(entries), tuple(rows for _, _, rows in met)


def _padded(a, size, fill):
    return np.concatenate([a, np.full(size - len(a), fill, a.dtype)]).astype(np.int32)


def _meetings(codes, core_codes, layout):
    """Every (level, core column) that rows share, in order, and for each core factor the first
    entry of every row.
    """
    keys, rows, start = [], [], 0
    for other, block, offset in zip(core_codes, layout.core, layout.offsets, strict=False):
        met, where = np.unique(codes.astype(np.int64) * block.levels + other, return_inverse=True)
        level, at = np.divmod(met, block.levels)
        first = level * layout.q + offset + at * block.k
        keys.append((first[:, None] + np.arange(block.k)).ravel())
        rows.append(start + where.ravel() * block.k)
        start += len(keys[-1])
    keys = np.concatenate(keys)
    order = np.argsort(keys, kind="stable")  # quick with runs that are ordered
    entry = np.empty(start, np.int32)
    entry[order] = np.arange(start)
    return *np.divmod(keys[order], layout.q), tuple(entry[r] for r in rows)


def pad_rows(arrays, rows: int):
    """Arrays (n, ...), in lists and tuples, with so many rows of zeros after them: zero weights
    change nothing.
    """
    if isinstance(arrays, list | tuple):
        return type(arrays)(pad_rows(a, rows) for a in arrays)
    return np.concatenate([arrays, np.zeros((rows, *arrays.shape[1:]), arrays.dtype)])
