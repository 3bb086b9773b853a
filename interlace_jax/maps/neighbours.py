"""Which models are neighbours: sensors, times, voxels and surface points as sparse adjacency
matrices.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy


class Edges(NamedTuple):
    """Pairs of neighbours among n nodes: each pair once, first < second."""

    n: int
    first: np.ndarray
    second: np.ndarray

    def between(self, nodes: np.ndarray) -> Edges:
        """The pairs of which both nodes are among some (n,) bool."""
        kept = nodes[self.first] & nodes[self.second]
        return Edges(self.n, self.first[kept], self.second[kept])


def edges_of(adjacency: Any, n: int) -> Edges:
    """Pairs of neighbours of an adjacency matrix (n, n), sparse or dense; its diagonal and values
    do not matter.

    Raises ValueError for another shape, or where one node is a neighbour of another but not the
    other way round.
    """
    matrix = scipy.sparse.coo_array(adjacency)
    if matrix.shape != (n, n):
        raise ValueError(
            f"adjacency has the shape {matrix.shape}, but there are {n} models: it needs a row "
            "for each"
        )
    matrix = scipy.sparse.csr_array(
        (matrix.data != 0, (matrix.row, matrix.col)), shape=(n, n), dtype=np.int8
    )
    matrix.eliminate_zeros()
    if abs(matrix - matrix.T).sum() != 0:
        raise ValueError("adjacency is not symmetric: if a is a neighbour of b, b must be one of a")
    upper = scipy.sparse.coo_array(scipy.sparse.triu(matrix, 1))
    order = np.lexsort((upper.col, upper.row))
    return Edges(n, upper.row[order].astype(np.intp), upper.col[order].astype(np.intp))


def product(places: Any, times: int) -> scipy.sparse.csr_array:
    """Neighbours in space and time: places at the same time, and each place before and after.

    places: adjacency (m, m) of sensors, voxels or points. Nodes are ordered place by place, times
    within, as an array (..., place, time) is in memory.

    >>> import numpy as np
    >>> from interlace_jax.maps.neighbours import product
    >>> product(np.array([[0, 1], [1, 0]]), 3).shape
    (6, 6)
    """
    places = scipy.sparse.csr_array(places)
    line = scipy.sparse.diags_array([np.ones(max(times - 1, 0))], offsets=[1], shape=(times, times))
    in_space = scipy.sparse.kron(places, scipy.sparse.eye_array(times))
    in_time = scipy.sparse.kron(scipy.sparse.eye_array(places.shape[0]), line + line.T)
    return scipy.sparse.csr_array(in_space + in_time)


def grid(mask: Any, corners: bool = False) -> scipy.sparse.csr_array:
    """Neighbours among the points of a grid that a mask (bool, any dimension) has, in C order.

    Neighbours share a face; with corners=True an edge or a corner is enough (26 of a voxel in place
    of 6).

    >>> import numpy as np
    >>> from interlace_jax.maps.neighbours import grid
    >>> grid(np.ones((2, 2), bool)).toarray().astype(int)
    array([[0, 1, 1, 0],
           [1, 0, 0, 1],
           [1, 0, 0, 1],
           [0, 1, 1, 0]])
    """
    mask = np.asarray(mask, bool)
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    steps = itertools.product((-1, 0, 1), repeat=mask.ndim)
    later = [step for step in steps if step > (0,) * mask.ndim]
    pairs = [_shifted(number, step) for step in later if corners or np.abs(step).sum() == 1]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return _symmetric(first, second, int(mask.sum()))


def _shifted(number: np.ndarray, step: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the points of a grid, and of those a step away, where both are there."""
    here = tuple(
        slice(max(-s, 0), size - max(s, 0)) for s, size in zip(step, number.shape, strict=True)
    )
    there = tuple(
        slice(max(s, 0), size - max(-s, 0)) for s, size in zip(step, number.shape, strict=True)
    )
    first, second = number[here].ravel(), number[there].ravel()
    both = (first >= 0) & (second >= 0)
    return first[both], second[both]


def mesh(faces: Any, n: int | None = None) -> scipy.sparse.csr_array:
    """Neighbours of the n points of a surface, those that share a side of a triangle. faces (f,
    3): its points.

    >>> from interlace_jax.maps.neighbours import mesh
    >>> mesh([[0, 1, 2], [1, 2, 3]]).toarray().astype(int)
    array([[0, 1, 1, 0],
           [1, 0, 1, 1],
           [1, 1, 0, 1],
           [0, 1, 1, 0]])
    """
    faces = np.asarray(faces, np.intp)
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(
            f"faces must have three points each, an array (faces, 3), not {faces.shape}"
        )
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return _symmetric(*sides.T, int(faces.max()) + 1 if n is None else n)


def _symmetric(first: np.ndarray, second: np.ndarray, n: int) -> scipy.sparse.csr_array:
    ones = np.ones(2 * len(first), np.int8)
    matrix = scipy.sparse.csr_array(
        (ones, (np.r_[first, second], np.r_[second, first])), shape=(n, n)
    )
    matrix.data[:] = 1
    return matrix
