"""Cross-products of crossed factors, kept sparse: one small block for each pair of levels that
meet.

    K_gh = Z_g'WZ_h  per pair of levels

beside the `Moments`, which are sums by level. The pairs are listed in chunks of a few *cells* of
one level: a product with K_gh is then a fixed number of gathers added up, which fuse into one
parallel loop, and one short scatter. On a CPU that is 10 to 20 times as fast as scattering cell by
cell, and needs no memory of the size of the cells.

Every device holds an equal share of the chunks. It gathers and scatters for its own, and what they
make of them is added up between devices; everything else is of the size of the levels, and every
device has all of it. The lists are made by host NumPy; `product` and `congruence` are what the
likelihood does with them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import linear_call
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...support.containers import container
from ..covariance.block import Block
from .layout import STATIC, Layout, Plan, bucket
from .moments import Moments
from .pair_products import chunked

FEW = 64  # columns of small factors that are solved for exactly
WIDTHS = (4, 8, 16)  # cells of a chunk
SCATTER = 6  # adding the sum of a chunk to its level takes as long as gathering so many cells
PART = 1 << 20  # cells whose rows are summed at once
AXIS = "chunks"  # of a mesh of devices
WHOLE, SHARED, BLOCKS = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, None, AXIS)


@container
class Cells:
    """The levels of one factor (rows of K) and the levels of another that they meet, in chunks
    of W cells.
    """

    owner: Any  # (c,) level whose cells the chunk holds, increasing
    level: Any  # (c, W) level of the other factor; one past its last where there are fewer than W
    value: Any  # (k, k', c, W) blocks of K, or () where all of them are one number
    mesh: Mesh = field(metadata=STATIC)  # devices that share the chunks

    @property
    def split(self) -> "Cells":
        """Along which axis each array is shared."""
        return replace(self, owner=SHARED, level=SHARED, value=BLOCKS if self.value.ndim else WHOLE)


@container
class Products(Moments):
    """Conditioned sparse cross-products of a model: the `Moments` of a plan that `by_size` makes,
    and its cells.

    Blocks are ordered by size: the first is eliminated level by level, the others of the `chain`
    are what iterations work on, and the small ones of the `core` are columns beside those of X.
    """

    generalised = None  # its cells are made for one size

    cells: tuple[tuple[Cells | None, ...], ...]  # cells[g][h]: Z_g'W Z_h, None for g = h

    @property
    def rest(self) -> tuple[Block, ...]:
        """Blocks that iterations work on."""
        return self.layout.blocks[1 : self.layout.chain]

    @property
    def q(self) -> int:
        """Random effects that iterations work on."""
        return sum(b.levels * b.k for b in self.rest)


def by_size(codes, blocks) -> Plan:
    """A plan without lists, from the codes and the `Block` of every factor, largest first.

    From the third on, factors of few levels are the plan's core: columns to be solved for exactly,
    like those of X. As many other levels depend on one of theirs, probes would say little of them.
    """
    places = sorted(range(len(codes)), key=lambda g: -blocks[g].levels * blocks[g].k)
    order = tuple(places.index(g) for g in range(len(places)))
    codes, blocks = ([a[g] for g in places] for a in (codes, blocks))
    few = np.cumsum([b.levels * b.k for b in blocks[::-1]])[::-1] <= FEW
    chain = next((j for j in range(2, len(blocks)) if few[j]), len(blocks))
    return Plan(Layout(tuple(blocks), order, chain, (), ()), tuple(codes), ())


def assemble(
    plan: Plan, m: Moments, Z: Sequence[np.ndarray], weights: np.ndarray | None, devices
) -> Products:
    """The moments of a plan, with the cells of its factors on some devices.

    Z, weights: rows, as in `moments`.
    """
    layout, mesh = plan.layout, Mesh(np.array(devices), (AXIS,))
    columns = [
        _Columns(Z[layout.order.index(j)], np.linalg.inv(m.A[j])) for j in range(layout.chain)
    ]
    cells: list[list[Cells | None]] = [[None] * layout.chain for _ in columns]
    for g, h in itertools.combinations(range(layout.chain), 2):
        shape = layout.blocks[g].levels, layout.blocks[h].levels
        pair = plan.codes[g], plan.codes[h]
        cells[g][h], cells[h][g] = _meetings(pair, shape, weights, columns[g], columns[h], mesh)
    return Products(**vars(m) | dict(B=()), cells=tuple(map(tuple, cells)))


class _Columns(NamedTuple):
    """Columns (n, k) of a factor, and the matrix that conditions them."""

    Z: np.ndarray
    back: np.ndarray

    def __getitem__(self, rows):
        return self.Z[rows] @ self.back


def _meetings(codes, shape, w, left, right, mesh):
    """K and its transpose: the cells of two factors by the level of either, from their codes and
    columns.
    """
    key = codes[0].astype(np.int64) << 32
    key |= codes[1]
    one = left.Z.shape[1] == right.Z.shape[1] == 1
    constant = one and all(a is None or np.ptp(a) == 0 for a in (left.Z, right.Z, w))
    key, order = _sorted(key, not constant)
    new = np.append(True, key[1:] != key[:-1])
    value = left[:1].T @ right[:1] * (1.0 if w is None else w[0])
    if constant and new.all():
        value = value.reshape(())
    else:
        starts = np.flatnonzero(new)
        rows = np.diff(starts, append=len(key))
        value = value[:, :, None] * rows if constant else _blocks(order, starts, w, left, right)
        key = key[starts]
    del order, new
    ahead = _cells(key, value, shape, mesh)
    key, order = _sorted((key << 32) | (key >> 32), bool(value.ndim))
    value = np.swapaxes(value, 0, 1)[:, :, order] if value.ndim else value
    return ahead, _cells(key, value, shape[::-1], mesh)


def _sorted(key, ordered):
    """Sorted keys, which may be those given, and where each of them was; or None where nobody
    asks.
    """
    if not ordered:
        key.sort()
        return key, None
    order = np.argsort(key)
    return key[order], order


def _blocks(order, starts, w, left, right):
    """Sums of w z z' (k, k', cells) over the rows of each cell; order lists the rows cell by
    cell.
    """
    ends = np.append(starts, len(order))
    value = np.empty((left.Z.shape[1], right.Z.shape[1], len(starts)))
    for first in range(0, len(starts), PART):
        part = slice(first, first + PART)
        bounds = ends[first : first + PART + 1]
        rows = order[bounds[0] : bounds[-1]]
        u, v = left[rows] if w is None else w[rows, None] * left[rows], right[rows]
        for i, j in np.ndindex(value.shape[:2]):
            value[i, j, part] = np.add.reduceat(u[:, i] * v[:, j], bounds[:-1] - bounds[0])
    return value


def _cells(key, value, shape, mesh):
    """Chunks of cells, as many for each device; key: owner and level in 32 bits each, sorted.

    Of several processes, each makes only those that its own devices hold.
    """
    chunks = _chunked(key, value, shape, mesh.size)
    size = chunks.owner.shape[0], chunks.width

    def send(split, shape, part):
        return jax.make_array_from_callback(shape, NamedSharding(mesh, split), part)

    if value.ndim:
        K = send(BLOCKS, (*value.shape[:2], *size), lambda at: chunks.blocks(at[2]))
    else:
        K = send(WHOLE, (), value.__getitem__)
    owner = send(SHARED, chunks.owner.shape, chunks.owner.__getitem__)
    level = send(SHARED, size, lambda at: chunks.levels(at[0]))
    return Cells(owner, level, K, mesh)


def _chunked(key, value, shape, devices):
    """Cells in chunks of the width that takes least work, each of one owner."""
    owners, others = shape
    degree = np.diff(np.searchsorted(key, np.arange(owners + 1) << 32))
    width = min(WIDTHS, key=lambda W: int(np.sum(-(-degree // W))) * (W + SCATTER))
    owner, before = chunked(degree, width, lambda total: bucket(-(-total // devices)) * devices)
    return _Chunked(
        key, value, others, width, owner, before, degree[owner], (np.cumsum(degree) - degree)[owner]
    )


class _Chunked(NamedTuple):
    """Cells in order, and which of them stand in each of c chunks; parts of it are made when a
    device asks.
    """

    key: np.ndarray  # (cells,) owner and level in 32 bits each
    value: np.ndarray  # (k, k', cells), or ()
    others: int  # levels of the other factor
    width: int
    owner: np.ndarray  # (c,)
    before: np.ndarray  # (c,) cells of the owner in chunks before
    degree: np.ndarray  # (c,) cells of the owner in all
    start: np.ndarray  # (c,) first cell of the owner

    def _held(self, chunks: slice):
        """Which places of some consecutive chunks have a cell (c, W), and which cells these are."""
        left = self.degree[chunks] - self.before[chunks]
        filled = np.arange(self.width) < left[:, None]
        first = (self.start + self.before)[chunks][0]
        return filled, slice(first, first + np.count_nonzero(filled))

    def levels(self, chunks: slice):
        """Levels (c, W) of the cells of some chunks, one past the last where there is none."""
        filled, cells = self._held(chunks)
        found = np.full(filled.shape, self.others, np.int32)
        found[filled] = self.key[cells] & 0xFFFFFFFF
        return found

    def blocks(self, chunks: slice):
        """Values (k, k', c, W) of the cells of some chunks, 0 where there is none."""
        filled, cells = self._held(chunks)
        found = np.zeros((*self.value.shape[:2], *filled.shape))
        found[:, :, filled] = self.value[:, :, cells]
        return found


def product(m: Products, g: int, h: int, V):
    """K_gh V of V (k_h, m_h, c): (k_g, m_g, c).

    Linear in V; its transpose is the product with K_hg.
    """
    ahead, back = (partial(_shared, _product, levels=m.layout.blocks[i].levels) for i in (g, h))
    return linear_call(
        lambda K, V: ahead(K[0], V), lambda K, V: back(K[1], V), (m.cells[g][h], m.cells[h][g]), V
    )


def _shared(function, cells, V, levels):
    """Add up what every device makes of its share of the cells."""

    def own(cells, V):
        return lax.psum(function(cells, V, levels), AXIS)

    # fails where JAX must not trace
    split = dict(in_specs=(cells.split, WHOLE), out_specs=WHOLE, check_vma=False)
    return jax.shard_map(own, mesh=cells.mesh, **split)(cells, V)


def _product(cells, V, levels):
    V = _with_empty_level(V, 1)
    places = range(cells.level.shape[1])
    if not cells.value.ndim:
        return _by_owner(
            cells.value * sum(_at(V, cells.level[:, c]) for c in places), cells.owner, levels
        )

    def row(i):
        """Of every block; each gathers for itself: a gather that two sums share would be written
        to memory.
        """
        i, level, U = lax.optimization_barrier((i, cells.level, V))
        pairs = itertools.product(places, range(V.shape[0]))
        met = sum(
            cells.value[i, j, :, c, None] * _at(U[j : j + 1], level[:, c])[0] for c, j in pairs
        )
        return _by_owner(met[None], cells.owner, levels)[0]

    return lax.map(row, jnp.arange(cells.value.shape[0]))


def _at(V, levels):
    """V (k, m, c) at some levels. They exist: nothing has to be checked."""
    return V.at[:, levels].get(mode="promise_in_bounds", wrap_negative_indices=False)


def congruence(m: Products, g: int, h: int, W):
    """Diagonal blocks of K_gh W K_hg for a block diagonal W (k_h, k_h, m_h): (k_g, k_g, m_g).

    Linear in W.
    """
    ahead, back = (partial(_shared, _congruence, levels=m.layout.blocks[i].levels) for i in (g, h))
    return linear_call(
        lambda K, W: ahead(K[0], W), lambda K, W: back(K[1], W), (m.cells[g][h], m.cells[h][g]), W
    )


def _congruence(cells, W, levels):
    W = _with_empty_level(W, 2)
    found = 0.0
    for c in range(cells.level.shape[1]):
        met = W[:, :, cells.level[:, c]]
        if cells.value.ndim:
            K = cells.value[..., c]
            half = sum(K[:, j, None] * met[j][None] for j in range(len(met)))
            met = sum(half[:, None, j] * K[None, :, j] for j in range(len(met)))
        found = found + met
    k = found.shape[0]
    found = found if cells.value.ndim else cells.value**2 * found
    return _by_owner(found.reshape(k * k, -1, 1), cells.owner, levels).reshape(k, k, levels)


def _with_empty_level(V, axis):
    """V with one more level, all zero, for the empty places of chunks."""
    return jnp.pad(V, [(0, int(a == axis)) for a in range(V.ndim)])


def _by_owner(sums, owner, levels):
    """Sum chunks (k, chunks, c) into their levels."""
    rows = [
        jnp.zeros((levels, s.shape[1]), s.dtype).at[owner].add(s, indices_are_sorted=True)
        for s in sums
    ]
    return jnp.stack(rows)
