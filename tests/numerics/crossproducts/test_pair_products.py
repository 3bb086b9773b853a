"""Products of entries, pair by pair, are those of matrices with a column for every column of the
core.
"""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.numerics.crossproducts import layout, pair_products

Q, LEVELS = 9, 30

both_roundings = pytest.mark.parametrize("rounded", [int, layout.bucket], ids=["exact", "padded"])


def _entries(seed=0):
    """Levels and columns of entries in their order; the last level meets one column only."""
    met = np.random.default_rng(seed).random((LEVELS, Q)) < 0.5
    met[-1] = np.arange(Q) == 4
    return np.nonzero(met)


def _listed(rounded):
    level, column = _entries()
    return level, column, pair_products.all_pairs(level, column, Q, rounded)


def _values(k, level, seed):
    """One column for every entry, and an empty one."""
    U = np.random.default_rng(seed).standard_normal((k, len(level)))
    return np.concatenate([U, np.zeros((k, 1))], 1)


def _dense(U, level, column):
    """(levels, k, q)."""
    return jnp.zeros((LEVELS, U.shape[0], Q)).at[level, :, column].set(U[:, :-1].T)


def _plain(core, U, V, level, column):
    product = jnp.einsum("lka,lkb->ab", _dense(U, level, column), _dense(V, level, column))
    return core - 0.5 * (product + product.T)


def _ours(core, U, V, level, column, listed):
    S = pair_products.subtract_products(core, U, V, np.append(column, 0), listed)
    return 0.5 * (S + S.T)


def _scale(U, by):
    """V with V'U = U'V: the same rows, each times a number of its level."""
    level, _ = _entries()
    return U * jnp.append(by[level], 0.0)[None]


def _both(rounded, k):
    level, column, listed = _listed(rounded)
    U, by = jnp.asarray(_values(k, level, 3)), jnp.linspace(0.5, 2.0, LEVELS)
    core, weights = jnp.asarray(np.random.default_rng(2).standard_normal((2, Q, Q)))

    def ours(U, by):
        return jnp.sum(weights * _ours(core, U, _scale(U, by), level, column, listed) ** 2)

    def plain(U, by):
        return jnp.sum(
            weights * _plain(0.5 * (core + core.T), U, _scale(U, by), level, column) ** 2
        )

    return ours, plain, U, by


def _owned(chunks):
    """Every owner with each of its items."""
    return [
        (o, first + i)
        for o, first, count in zip(chunks.owner, chunks.start, chunks.count, strict=True)
        for i in range(count)
    ]


@both_roundings
def test_every_two_entries_of_a_level_are_listed_once_by_place_and_by_either(rounded):
    level, column, listed = _listed(rounded)
    expected = [(a, b) for a, b in combinations(range(len(level)), 2) if level[a] == level[b]]
    assert all(column[a] < column[b] for a, b in expected)
    places = [(column[a] * Q + column[b], a, b) for a, b in expected]
    by_place = [(o, listed.first[i], listed.second[i]) for o, i in _owned(listed.by_place)]
    assert sorted(by_place) == sorted(places) and [o for o, *_ in by_place] == sorted(
        o for o, *_ in places
    )
    assert sorted(_owned(listed.by_first)) == expected
    assert sorted(ab[::-1] for ab in _owned(listed.by_second)) == expected


def test_numbers_of_pairs_and_chunks_are_rounded():
    _, _, exact = _listed(int)
    _, _, padded = _listed(layout.power_of_two)
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(padded), strict=True):
        assert len(b) == layout.power_of_two(len(a))
    for a, b in ((exact.by_place, padded.by_place), (exact.by_first, padded.by_first)):
        assert_array_equal(b.owner[: len(a.owner)], a.owner)


def test_levels_that_meet_one_column_each_have_no_pairs():
    listed = pair_products.all_pairs(np.arange(3), np.array([1, 0, 1]), 2, int)
    U = jnp.array([[1.0, 2.0, 3.0, 0.0]])
    S = pair_products.subtract_products(jnp.zeros((2, 2)), U, U, np.array([1, 0, 1, 0]), listed)
    assert_array_equal(S, [[-4.0, 0.0], [0.0, -10.0]])


@both_roundings
@pytest.mark.parametrize("k", [1, 2])
def test_the_symmetric_part_is_that_of_dense_products(rounded, k):
    with jax.enable_x64(True):
        ours, plain, U, by = _both(rounded, k)
        assert_allclose(ours(U, by), plain(U, by), rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2])
def test_derivatives_of_every_order_and_direction_are_those_of_dense_products(k):
    def derivatives(f, U, by):
        of_entries = [d(f)(U, by)[:, :-1] for d in (jax.grad, jax.jacfwd)]
        of_levels = [d(f, 1)(U, by) for d in (jax.grad, jax.jacfwd)]
        slope = jax.grad(f, 1)
        return *of_entries, *of_levels, jax.jacfwd(slope, 1)(U, by), jax.jacrev(slope, 1)(U, by)

    with jax.enable_x64(True):
        ours, plain, U, by = _both(layout.bucket, k)
        found, expected = quick_jit(lambda *at: [derivatives(f, *at) for f in (ours, plain)])(U, by)
        for a, b in zip(found, expected, strict=True):
            assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_many_values_at_once_are_those_one_by_one():
    with jax.enable_x64(True):
        ours, _, U, by = _both(int, 1)
        lanes = jnp.stack([by, 2.0 * by])
        slope = jax.grad(ours, 1)
        together, one_by_one = quick_jit(
            lambda U, lanes: (
                jax.vmap(slope, (None, 0))(U, lanes),
                [slope(U, one) for one in lanes],
            )
        )(U, lanes)
        assert_allclose(together, one_by_one, rtol=1e-12)
