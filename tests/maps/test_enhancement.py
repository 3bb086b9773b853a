"""Clusters, masses and TFCE against brute force on random graphs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.maps.enhancement import components, masses, signed, tfce
from interlace_jax.maps.neighbours import edges_of


def _graph(seed, n=30):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < 0.08, 1)
    values = rng.normal(size=n)
    values[rng.integers(0, n, 6)] = np.round(values[rng.integers(0, n, 6)], 1)  # ties
    values[:2] = values[2]
    return upper | upper.T, values


def _reached(adjacency, nodes, start):
    """Nodes that can be reached from one among some of them."""
    found, frontier = {start}, [start]
    while frontier:
        for other in np.flatnonzero(adjacency[frontier.pop()] & nodes):
            if other not in found:
                found.add(other)
                frontier.append(other)
    return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_components_and_masses_are_those_of_a_search(seed):
    adjacency, v = _graph(seed)
    edges = edges_of(adjacency, len(v))
    nodes = v > 0.4
    label, mass = components(nodes, edges), masses(v, edges, 0.4)
    for node in range(len(v)):
        if not nodes[node]:
            assert label[node] == -1 and mass[node] == 0
        else:
            members = _reached(adjacency, nodes, node)
            assert_array_equal(np.flatnonzero(label == label[node]), members)
            assert_allclose(mass[node], v[members].sum())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("E", "H"), [(0.5, 2.0), (1.0, 2.0), (0.7, 0.0)])
def test_tfce_is_the_integral_over_heights(seed, E, H):
    adjacency, v = _graph(seed)
    expected = np.zeros(len(v))
    heights = np.unique(np.append(np.maximum(v, 0.0), 0.0))
    for low, high in zip(heights[:-1], heights[1:], strict=True):  # extents change at values only
        nodes = v >= high
        for node in np.flatnonzero(nodes):
            extent = len(_reached(adjacency, nodes, node))
            expected[node] += extent**E * (high ** (H + 1) - low ** (H + 1)) / (H + 1)
    assert_allclose(tfce(v, edges_of(adjacency, len(v)), E, H), expected, rtol=1e-12, atol=1e-12)


def test_a_path_by_hand():
    v, path = np.array([0.0, 1.0, 2.0, 1.5, 3.0]), np.diag(np.ones(4), 1)
    found = tfce(v, edges_of(path + path.T, 5))
    assert_allclose(found[4], (3**3 - 1.5**3 + 3**0.5 * (1.5**3 - 1.0) + 2.0) / 3)


def test_maps_without_positive_values_and_without_edges():
    edges = edges_of(np.zeros((3, 3)), 3)
    assert_array_equal(tfce(np.array([-1.0, -2.0, 0.0]), edges), 0.0)
    assert_allclose(tfce(np.array([1.0, -2.0, 3.0]), edges), [1 / 3, 0.0, 9.0])
    assert_array_equal(masses(np.array([1.0, 2.0, 3.0]), edges, 1.5), [0.0, 2.0, 3.0])


def test_signs_are_kept_apart():
    t, path = np.array([2.0, -2.0, 3.0]), np.diag(np.ones(2), 1)
    edges = edges_of(path + path.T, 3)
    both = signed(lambda v: masses(v, edges, 1.0), t, 0)
    assert_array_equal(both, [2.0, -2.0, 3.0])
    assert_array_equal(signed(lambda v: v, t, 1), [2.0, 0.0, 3.0])
    assert_array_equal(signed(lambda v: v, t, -1), [0.0, -2.0, 0.0])
