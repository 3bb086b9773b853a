"""Clusters on a map of statistics: connected components, their mass, and threshold-free cluster
enhancement.

TFCE(v) = integral over h from 0 to v of e(h)^E h^H dh, with e(h) the number of nodes in the
component of v among those whose value is at least h (Smith & Nichols 2009, NeuroImage 44). Every
node is uphill of a peak; the nodes of a peak above any height are connected, and components of
several peaks meet at saddles. Between saddles a component, a branch of the tree of peaks, grows by
one node after another, so that the integral is a sum of e^E (h1^(H+1) - h0^(H+1)) / (H + 1), exact,
without steps of height. Only the tree of peaks is walked through one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    inside = np.flatnonzero(v > 0.0)
    found = np.zeros(len(v))
    if len(inside):
        order = inside[np.argsort(-v[inside], kind="stable")]
        rank = np.full(len(v), -1)
        rank[order] = np.arange(len(order))
        found[order] = _of_ranks(v[order], rank[edges.first], rank[edges.second], E, H)
    return found


def _of_ranks(
    heights: np.ndarray, first: np.ndarray, second: np.ndarray, E: float, H: float
) -> np.ndarray:
    """Enhancement (k,) of heights (k,) that fall; edges between their ranks, -1 for other nodes.

    Exact to the rounding of the largest: sums within branches are differences of running sums.
    """
    both = (first >= 0) & (second >= 0)
    lower, upper = np.maximum(first, second)[both], np.minimum(first, second)[both]
    peak = _peaks(lower, upper, len(heights))
    tree = _tree(peak, lower, upper)
    branch = tree.at(peak)
    order = np.argsort(branch, kind="stable")
    entered = np.bincount(branch, minlength=len(tree.parent))
    ends = np.cumsum(entered)
    size = np.arange(1, len(order) + 1) + (tree.grown(entered) - ends)[branch[order]]
    power = np.append(heights, 0.0) ** (H + 1.0)
    until = np.append(order[1:], 0)
    until[ends[entered > 0] - 1] = tree.died[entered > 0]
    gain = size**E * (power[order] - power[until]) / (H + 1.0)
    summed = np.append(np.cumsum(gain[::-1])[::-1], 0.0)
    total = summed[ends - entered] - summed[ends]
    below = tree.handed_down(total) - total
    found = np.empty(len(heights))
    found[order] = summed[:-1] + (below - summed[ends])[branch[order]]
    return found


def _peaks(lower: np.ndarray, upper: np.ndarray, k: int) -> np.ndarray:
    """The peak (k,) that is reached from every node by its highest neighbours."""
    uphill = np.arange(k)
    np.minimum.at(uphill, lower, upper)
    while True:
        further = uphill[uphill]
        if np.array_equal(further, uphill):
            return uphill
        uphill = further


@dataclass(frozen=True, eq=False)
class _Tree:
    """Branches: first every peak's, then one for each saddle that joins two; parents come after
    their children.
    """

    number: np.ndarray
    "(k,) of the branch that begins at a node, for peaks."
    born: np.ndarray
    "Rank of the first node, a peak or a saddle."
    died: np.ndarray
    "Rank of the saddle at which it becomes a part of its parent; k, all nodes, for roots."
    parent: np.ndarray
    "Itself for roots."

    def at(self, peak: np.ndarray) -> np.ndarray:
        """The branch (k,) in which every node enters: the last of its peak's that begins before."""
        ancestors = [self.parent]
        while not np.array_equal(further := ancestors[-1][ancestors[-1]], ancestors[-1]):
            ancestors.append(further)
        branch, rank = self.number[peak], np.arange(len(peak))
        for above in reversed(ancestors):
            candidate = above[branch]
            branch = np.where(self.born[candidate] <= rank, candidate, branch)
        return branch

    def grown(self, entered: np.ndarray) -> np.ndarray:
        """Nodes of every branch and its children at its end."""
        sums = entered.tolist()
        for child, parent in enumerate(self.parent.tolist()):
            if parent != child:
                sums[parent] += sums[child]
        return np.array(sums)

    def handed_down(self, total: np.ndarray) -> np.ndarray:
        """Sums over every branch and those that it becomes a part of."""
        sums, parents = total.tolist(), self.parent.tolist()
        for child in range(len(sums) - 1, -1, -1):
            if parents[child] != child:
                sums[child] += sums[parents[child]]
        return np.array(sums)


def _tree(peak: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> _Tree:
    """The tree of peaks (k,), from the highest saddles between them."""
    k = len(peak)
    peaks = np.flatnonzero(peak == np.arange(k))
    number = np.full(k, -1)
    number[peaks] = np.arange(len(peaks))
    saddle, first, second = _saddles(number[peak[lower]], number[peak[upper]], lower, len(peaks))
    total = len(peaks) + len(saddle)
    root, parent = list(range(total)), list(range(total))

    def find(x: int) -> int:
        while root[x] != x:
            root[x] = root[root[x]]
            x = root[x]
        return x

    for joined, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True), len(peaks)):
        a, b = find(a), find(b)
        root[a] = root[b] = parent[a] = parent[b] = joined
    born, parents = np.append(peaks, saddle), np.array(parent)
    died = np.where(parents == np.arange(total), k, born[parents])
    return _Tree(number, born, died, parents)


def _saddles(
    a: np.ndarray, b: np.ndarray, lower: np.ndarray, peaks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks of the saddles of a spanning forest of the peaks, the highest first, and the peaks that
    each joins.
    """
    between = np.flatnonzero(a != b)
    between = between[np.argsort(lower[between], kind="stable")]
    pair = np.minimum(a, b)[between] * peaks + np.maximum(a, b)[between]
    _, highest = np.unique(pair, return_index=True)  # SciPy would add the edges of a pair
    kept = between[highest]
    # a rank of 0 would be no edge; no saddle is the highest of all nodes
    graph = scipy.sparse.csr_array((lower[kept], (a[kept], b[kept])), shape=(peaks, peaks))
    tree = scipy.sparse.coo_array(scipy.sparse.csgraph.minimum_spanning_tree(graph))
    order = np.argsort(tree.data, kind="stable")
    return tree.data[order].astype(int), tree.row[order], tree.col[order]


def signed(function: Callable[[np.ndarray], np.ndarray], t: np.ndarray, tail: int) -> np.ndarray:
    """A function of positive values applied to the positive and negative part of t (n,) apart, the
    latter with a minus.

    tail: 0 for both, 1 for the positive part only, -1 for the negative one.
    """
    up = function(np.maximum(t, 0.0)) if tail >= 0 else 0.0
    down = function(np.maximum(-t, 0.0)) if tail <= 0 else 0.0
    return up - down
