"""Adjacency matrices against neighbours found by distance."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from interlace_jax.maps import neighbours


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (3, 2, 4)])
def test_points_of_a_grid_are_neighbours_by_distance(shape, corners):
    mask = np.random.default_rng(0).random(shape) < 0.7
    points = np.argwhere(mask)
    apart = np.abs(points[:, None] - points[None])
    expected = (apart.max(-1) == 1) if corners else (apart.sum(-1) == 1)
    assert_array_equal(neighbours.grid(mask, corners).toarray(), expected)


def test_places_and_times_are_joined():
    places = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    found = neighbours.product(places, 4).toarray()
    for (a, s), (b, t) in itertools.product(itertools.product(range(3), range(4)), repeat=2):
        expected = (a == b and abs(s - t) == 1) or (s == t and places[a, b])
        assert bool(found[a * 4 + s, b * 4 + t]) == bool(expected)
    assert neighbours.product(places, 1).sum() == 4


def test_points_of_a_surface_share_a_side():
    found = neighbours.mesh([[0, 1, 2], [1, 2, 3]], 5).toarray()
    expected = np.zeros((5, 5))
    for a, b in [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]:
        expected[a, b] = expected[b, a] = 1
    assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="three points each"):
        neighbours.mesh([[0, 1]])


def test_every_pair_is_there_once():
    edges = neighbours.edges_of(sp.csr_array(np.ones((4, 4))), 4)
    assert list(zip(edges.first, edges.second, strict=True)) == list(
        itertools.combinations(range(4), 2)
    )
    inside = edges.between(np.array([True, False, True, True]))
    assert list(zip(inside.first, inside.second, strict=True)) == [(0, 2), (0, 3), (2, 3)]


def test_what_is_no_adjacency_is_refused():
    with pytest.raises(ValueError, match="shape \\(3, 3\\), but there are 4 models"):
        neighbours.edges_of(np.eye(3), 4)
    with pytest.raises(ValueError, match="not symmetric"):
        neighbours.edges_of(np.array([[0, 1], [0, 0]]), 2)
