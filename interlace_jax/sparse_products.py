"""Cross-products of crossed factors, kept sparse: one small block for each pair of levels that meet.

    G_g = Z_g'WZ_g  per level,    K_gh = Z_g'WZ_h  per pair of levels,    Z_g'W[X y],    [X y]'W[X y]

conditioned as in `crossproducts`. The pairs are listed in chunks of a few *cells* of one level: a product with K_gh is
then a fixed number of gathers added up, which fuse into one parallel loop, and one short scatter. On a CPU that is 10
to 20 times as fast as scattering cell by cell, and needs no memory of the size of the cells.

Index lists and values are host NumPy; `product` and `congruence` are what the likelihood does with them.
"""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import linear_call

from .crossproducts import Basis, Response, condition, respond
from .structure import Block, Layout, Plan

FEW = 64  # columns of small factors that are solved for exactly
WIDTHS = (4, 8, 16)  # cells of a chunk
SCATTER = 6  # adding the sum of a chunk to its level takes as long as gathering so many cells


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cells:
    """The levels of one factor (rows of K) and the levels of another that they meet, in chunks of W cells."""

    owner: np.ndarray  # (c,) level whose cells the chunk holds, increasing
    level: np.ndarray  # (c, W) level of the other factor; one past its last where there are fewer than W
    value: np.ndarray  # (k, k', c, W) blocks of K, or () where all of them are one number


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Products:
    """Conditioned sparse cross-products of a model: what `Moments` is to a core that fits in memory as a matrix.

    Blocks are ordered by size: the first is eliminated level by level, the others of the `chain` are what iterations
    work on, and the small ones of the `core` are columns beside those of X.
    """

    layout: Layout
    G: tuple[np.ndarray, ...]  # per block of the chain (k, k, m): Z'WZ
    cells: tuple[tuple[Cells | None, ...], ...]  # cells[g][h]: Z_g'W Z_h, None for g = h
    ZX: tuple[np.ndarray, ...]  # per block of the chain (k, c, m): Z'W[Z_core X], c = columns of the core + p
    Zy: tuple[np.ndarray, ...]  # per block of the chain (k, m): Z'Wy
    XX: np.ndarray  # (c, c): [Z_core X]'W[Z_core X]
    Xy: np.ndarray  # (c,)
    yy: np.ndarray  # ()
    n: np.ndarray  # () rows of positive weight
    log_weights: np.ndarray  # () sum of log w
    A: tuple[np.ndarray, ...]  # per block (k, k), lower triangular
    R: np.ndarray  # (p, p) upper triangular
    beta0: np.ndarray  # (p,)
    scale: np.ndarray  # () s

    @property
    def p(self) -> int:
        """Fixed-effect columns."""
        return self.R.shape[-1]

    @property
    def K(self) -> tuple[None, ...]:
        """Covariances across levels, as in `Moments`: there are none."""
        return (None,) * len(self.layout.blocks)

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

    From the third on, factors of few levels are the plan's core: columns to be solved for exactly, like those of X. As
    many other levels depend on one of theirs, probes would say little of them.
    """
    places = sorted(range(len(codes)), key=lambda g: -blocks[g].levels * blocks[g].k)
    order = tuple(places.index(g) for g in range(len(places)))
    codes, blocks = ([a[g] for g in places] for a in (codes, blocks))
    few = np.cumsum([b.levels * b.k for b in blocks[::-1]])[::-1] <= FEW
    chain = next((j for j in range(2, len(blocks)) if few[j]), len(blocks))
    return Plan(Layout(tuple(blocks), order, chain, (), ()), tuple(codes), ())


def conditioned(plan: Plan, y, X, Z, weights, offset) -> tuple[Basis, Response]:
    """Conditioned rows, and a response to them; arguments as in `crossproducts.moments`, all of them arrays."""
    basis = condition(plan, X, Z, weights)
    return basis, jax.tree.map(lambda a: a[0], respond(plan, basis, (y - offset)[:, None]))


def assemble(plan: Plan, basis: Basis, response: Response) -> Products:
    """Sum the conditioned rows of `conditioned`, as NumPy arrays, over levels and over cells."""
    layout, codes, chain = plan.layout, plan.codes, plan.layout.chain
    weighted = [basis.w[:, None] * z for z in basis.Z]
    few = [_Columns(*part) for part in zip(codes[chain:], basis.Z[chain:], layout.core, strict=True)]
    columns = [*few, _Columns(np.zeros(len(basis.w), np.int32), basis.X, Block(1, (basis.X.shape[1],)))]
    G, ZX = [], []
    for code, z, wz, block in zip(codes[:chain], basis.Z, weighted, layout.blocks, strict=False):
        G.append(_sum_by_level(code, wz, z, block.levels))
        ZX.append(np.concatenate([_crossed(code, wz, block.levels, c) for c in columns], 1))
    cells = [[None] * chain for _ in range(chain)]
    for g, h in itertools.combinations(range(chain), 2):
        shape = layout.blocks[g].levels, layout.blocks[h].levels
        cells[g][h], cells[h][g] = _meetings(codes[g], codes[h], weighted[g], basis.Z[h], shape)
    XX = np.concatenate([_gram_rows(c, basis.w, columns) for c in columns])
    constants = dict(n=basis.n, log_weights=np.sum(np.log(basis.w)), A=basis.A, R=basis.R)
    return Products(layout, tuple(G), tuple(map(tuple, cells)), tuple(ZX), XX=XX, **response._asdict(), **constants)


class _Columns(NamedTuple):
    """Columns that are solved for exactly: those of one small factor, or X as a factor of one level."""

    code: np.ndarray
    Z: np.ndarray
    block: Block


def _crossed(code, wz, levels, other):
    """Z'W of the rows with other columns, level by level of the first: (k, columns, m)."""
    many, k = other.block.levels, other.Z.shape[1]
    sums = _sum_by_level(code * np.int64(many) + other.code, wz, other.Z, levels * many)
    return sums.reshape(len(sums), k, levels, many).transpose(0, 3, 1, 2).reshape(len(sums), many * k, levels)


def _gram_rows(one, w, columns):
    """Rows of [Z_core X]'W[Z_core X] that belong to one of its parts."""
    wz, levels = w[:, None] * one.Z, one.block.levels
    rows = np.concatenate([_crossed(one.code, wz, levels, c) for c in columns], 1)
    return np.moveaxis(rows, 2, 0).reshape(levels * rows.shape[0], rows.shape[1])


def _sum_by_level(code, left, right, levels):
    """Sum of the outer products of the rows of left (n, a) and right (n, b) by level: (a, b, m)."""
    sums = [[np.bincount(code, u * v, levels) for v in right.T] for u in left.T]
    return np.array(sums).reshape(left.shape[1], right.shape[1], levels)


def _meetings(first, second, left, right, shape):
    """K and its transpose: the cells of two factors by the level of either, from their codes and columns (n, k)."""
    order = np.argsort(first * np.int64(shape[1]) + second)
    a, b = first[order], second[order]
    starts = np.flatnonzero(np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1])))
    constant = left.shape[1] == right.shape[1] == 1 and np.ptp(left) == 0 and np.ptp(right) == 0
    if constant and len(starts) == len(a):
        value = left[0, 0] * right[0, 0]
    else:
        value = np.array([[np.add.reduceat((u * v)[order], starts) for v in right.T] for u in left.T])
        a, b = a[starts], b[starts]
    del order, starts
    back = np.argsort(b, kind="stable")
    transposed = np.swapaxes(value, 0, 1)[:, :, back] if value.ndim else value
    return _cells(a, b, value, *shape), _cells(b[back], a[back], transposed, *shape[::-1])


def _cells(owner, other, value, owners, others):
    """Chunks of cells that are sorted by owner."""
    degree = np.bincount(owner, minlength=owners)
    width = min(WIDTHS, key=lambda W: int(np.sum(-(-degree // W))) * (W + SCATTER))
    chunks = -(-degree // width)
    total = int(chunks.sum())
    shift = (np.cumsum(chunks) - chunks) * width - (np.cumsum(degree) - degree)
    slot = np.arange(len(owner)) + shift[owner]
    level = np.full(total * width, others, np.int32)
    level[slot] = other
    if value.ndim:
        spread = np.zeros((*value.shape[:2], total * width))
        spread[:, :, slot] = value
        value = spread.reshape(*value.shape[:2], total, width)
    return Cells(np.repeat(np.arange(owners, dtype=np.int32), chunks), level.reshape(total, width), value)


def product(m: Products, g: int, h: int, V):
    """K_gh V of V (k_h, m_h, c): (k_g, m_g, c). Linear in V; its transpose is the product with K_hg."""
    ahead, back = (partial(_product, levels=m.layout.blocks[i].levels) for i in (g, h))
    return linear_call(lambda K, V: ahead(K[0], V), lambda K, V: back(K[1], V), (m.cells[g][h], m.cells[h][g]), V)


def _product(cells, V, levels):
    V = _with_empty_level(V, 1)
    places = range(cells.level.shape[1])
    if not cells.value.ndim:
        return _by_owner(cells.value * sum(V[:, cells.level[:, c]] for c in places), cells.owner, levels)
    pairs = itertools.product(places, range(V.shape[0]))
    met = sum(cells.value[:, j, :, c, None] * V[j][cells.level[:, c]][None] for c, j in pairs)
    return _by_owner(met, cells.owner, levels)


def congruence(m: Products, g: int, h: int, W):
    """Diagonal blocks of K_gh W K_hg for a block diagonal W (k_h, k_h, m_h): (k_g, k_g, m_g). Linear in W."""
    ahead, back = (partial(_congruence, levels=m.layout.blocks[i].levels) for i in (g, h))
    return linear_call(lambda K, W: ahead(K[0], W), lambda K, W: back(K[1], W), (m.cells[g][h], m.cells[h][g]), W)


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
    rows = [jnp.zeros((levels, s.shape[1]), s.dtype).at[owner].add(s, indices_are_sorted=True) for s in sums]
    return jnp.stack(rows)
