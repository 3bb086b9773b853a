"""Clusters on a map of statistics: connected components, their mass, and threshold-free cluster
enhancement.

TFCE(v) = integral over h from 0 to v of e(h)^E h^H dh, with e(h) the number of nodes in the
component of v among those whose value is at least h (Smith & Nichols 2009, NeuroImage 44). An edge
is there up to the smaller of its two values: the components at every height are those of a maximum
spanning forest, and e is constant between its merges. The integral is a sum of e^E (h1^(H+1) -
h0^(H+1)) / (H + 1), exact, without steps of height.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy

from .neighbours import Edges

EXTENT, HEIGHT = 0.5, 2.0  # Smith & Nichols' E and H


def components(nodes: np.ndarray, edges: Edges) -> np.ndarray:
    """A number for each connected component of some nodes (n,) bool: (n,), -1 elsewhere."""
    kept = edges.between(nodes)
    graph = scipy.sparse.coo_array(
        (np.ones(len(kept.first)), (kept.first, kept.second)), shape=(edges.n, edges.n)
    )
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    found = np.full(edges.n, -1)
    found[nodes] = np.unique(label[nodes], return_inverse=True)[1]
    return found


def masses(v: np.ndarray, edges: Edges, threshold: float) -> np.ndarray:
    """Sum of v (n,) over the cluster of every node among those above a threshold; 0 below it."""
    label = components(v > threshold, edges)
    inside = label >= 0
    total = np.bincount(label[inside], v[inside])
    found = np.zeros(len(v))
    found[inside] = total[label[inside]]
    return found


def tfce(v: np.ndarray, edges: Edges, E: float = EXTENT, H: float = HEIGHT) -> np.ndarray:
    """Threshold-free cluster enhancement (n,) of the positive values of v (n,)."""
    if v.max(initial=0.0) <= 0.0:
        return np.zeros(len(v))
    first, second, height = _forest(v, edges)
    parent, size, birth = _merged(v, first, second, height)
    death = np.where(parent >= 0, birth[parent], 0.0)
    gain = size**E * (birth ** (H + 1) - death ** (H + 1)) / (H + 1)
    return _handed_down(gain, parent)[: len(v)]


def _forest(v: np.ndarray, edges: Edges) -> tuple[list[int], list[int], np.ndarray]:
    """A maximum spanning forest of the edges above 0: its edges and their heights, the highest
    first.
    """
    height = np.minimum(v[edges.first], v[edges.second])
    above = height > 0.0
    cost = v.max() + 1.0 - height[above]  # positive, or SciPy takes it for no edge
    graph = scipy.sparse.csr_array(
        (cost, (edges.first[above], edges.second[above])), shape=(edges.n, edges.n)
    )
    tree = scipy.sparse.coo_array(scipy.sparse.csgraph.minimum_spanning_tree(graph))
    heights = np.minimum(v[tree.row], v[tree.col])
    order = np.argsort(-heights, kind="stable")
    return tree.row[order].tolist(), tree.col[order].tolist(), heights[order]


def _merged(
    v: np.ndarray, first: list[int], second: list[int], height: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parent, size and height of birth of every node and of every component that a merge makes."""
    n, total = len(v), len(v) + len(first)
    root, parent = list(range(total)), [-1] * total
    size = [1] * n + [0] * len(first)

    def find(x: int) -> int:
        while root[x] != x:
            root[x] = root[root[x]]
            x = root[x]
        return x

    for merged, (a, b) in enumerate(zip(first, second, strict=True), n):
        a, b = find(a), find(b)
        root[a] = root[b] = parent[a] = parent[b] = merged
        size[merged] = size[a] + size[b]
    return np.array(parent), np.array(size, float), np.append(np.maximum(v, 0.0), height)


def _handed_down(gain: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Sums over every component and those that it becomes a part of; parents come after their
    children.
    """
    sums, above = gain.tolist(), parent.tolist()
    for k in range(len(sums) - 1, -1, -1):
        if above[k] >= 0:
            sums[k] += sums[above[k]]
    return np.array(sums)


def signed(function: Callable[[np.ndarray], np.ndarray], t: np.ndarray, tail: int) -> np.ndarray:
    """A function of positive values applied to the positive and negative part of t (n,) apart, the
    latter with a minus.

    tail: 0 for both, 1 for the positive part only, -1 for the negative one.
    """
    up = function(np.maximum(t, 0.0)) if tail >= 0 else 0.0
    down = function(np.maximum(-t, 0.0)) if tail <= 0 else 0.0
    return up - down
