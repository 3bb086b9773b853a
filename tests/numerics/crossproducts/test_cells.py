"""Sparse cross-products against the same as dense matrices."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.crossproducts import cells as cells_module
from interlace_jax.numerics.crossproducts import layout
from interlace_jax.runtime import calls

KINDS = ["crossed", "crossed_slopes", "weighted_three"]


@pytest.fixture(autouse=True)
def no_core(monkeypatch):
    """Every factor is large enough for cells."""
    monkeypatch.setattr(cells_module, "FEW", 0)


def problem_of(kind):
    """A design of the oracle; "crossed" without any pair of levels that occurs twice."""
    if kind == "weighted_three":
        weights = oracle.random_design(0, "weights").weights
        return replace(oracle.random_design(0, "crossed_three"), weights=weights)
    problem = oracle.random_design(0, kind)
    if kind == "crossed":
        first, second = (f.codes for f in problem.factors)
        keep = np.unique(first * 100 + second, return_index=True)[1]
        return problem.rows(keep)
    return problem


def dense_columns(problem, m):
    """Conditioned Z of every block of m, (n, k, levels)."""
    found = [None] * len(problem.factors)
    for g, f in enumerate(problem.factors):
        j = m.layout.order[g]
        Z = np.linalg.solve(m.A[j].T, f.Z.T).T
        wide = np.zeros((len(Z), Z.shape[1], f.m))
        wide[np.arange(len(Z)), :, f.codes] = Z
        found[j] = wide
    return found


def pairs(m):
    count = len(m.G)
    return [(g, h) for g in range(count) for h in range(count) if g != h]


@pytest.mark.parametrize("kind", KINDS)
def test_products_and_congruences_are_those_of_the_dense_blocks(kind):
    problem = problem_of(kind)
    m = arrays.sparse(problem)
    Z, rng = dense_columns(problem, m), np.random.default_rng(1)
    for g, h in pairs(m):
        K = np.einsum("nam,n,nbl->ambl", Z[g], problem.w, Z[h])
        V = rng.normal(size=(*Z[h].shape[1:], 3))
        found = calls.run(_product, m, g, h, V)
        assert_allclose(found, np.einsum("ambl,blc->amc", K, V), rtol=1e-12, atol=1e-12)
        W = rng.normal(size=(Z[h].shape[1], *Z[h].shape[1:]))
        expected = np.einsum("ambl,bdl,emdl->aem", K, W, K)
        assert_allclose(calls.run(_congruence, m, g, h, W), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_both_are_transposed_by_the_other_order_of_the_cells(kind):
    m, rng = arrays.sparse(problem_of(kind)), np.random.default_rng(2)
    for g, h in pairs(m):
        (k, _, left), (j, _, right) = m.G[g].shape, m.G[h].shape
        for function, a, b in [
            (_transposed_product, (k, left, 2), (j, right, 2)),
            (_transposed_congruence, (k, k, left), (j, j, right)),
        ]:
            U, V = rng.normal(size=a), rng.normal(size=b)
            image, back = calls.run(function, m, g, h, U, V)
            assert_allclose(np.sum(U * image), np.sum(back * V), rtol=1e-12)


@pytest.mark.parametrize("few", [0, 64], ids=["cells", "core"])
def test_what_is_kept_dense_is_the_sum_over_the_rows(few, monkeypatch):
    monkeypatch.setattr(cells_module, "FEW", few)
    problem = problem_of("weighted_three")
    m = arrays.sparse(problem)
    y = (problem.y - problem.shift - problem.X @ m.beta0) / m.scale
    Z, chain = dense_columns(problem, m), m.layout.chain
    assert chain == (2 if few else 3)
    core = [np.swapaxes(z, 1, 2).reshape(len(y), -1) for z in Z[chain:]]
    C = np.hstack([*core, problem.X @ np.linalg.inv(m.R)])
    for z, G, ZX, Zy in zip(Z[:chain], m.G, m.ZX, m.Zy, strict=True):
        wz = problem.w[:, None, None] * z
        assert_allclose(G, np.einsum("nam,nbm->abm", wz, z), rtol=1e-12, atol=1e-12)
        assert_allclose(ZX, np.einsum("nam,np->apm", wz, C), rtol=1e-10, atol=1e-12)
        assert_allclose(Zy, np.einsum("nam,n->am", wz, y), rtol=1e-10, atol=1e-12)
    assert_allclose(m.XX, C.T @ (problem.w[:, None] * C), rtol=1e-10, atol=1e-12)
    assert_allclose(m.Xy, C.T @ (problem.w * y), rtol=1e-10, atol=1e-12)
    assert_allclose(m.log_weights, np.log(problem.w).sum())


def test_pairs_of_levels_that_occur_once_with_unit_columns_need_no_values():
    m = arrays.sparse(problem_of("crossed"))
    assert m.cells[0][1].value.ndim == m.cells[1][0].value.ndim == 0
    repeated = arrays.sparse(oracle.random_design(0, "crossed"))
    assert repeated.cells[0][1].value.ndim == 4


def test_a_level_with_many_cells_has_several_chunks_and_empty_places_point_past_the_end():
    m = arrays.sparse(problem_of("crossed"))
    for g, h in pairs(m):
        cells = m.cells[g][h]
        assert np.all(np.diff(cells.owner) >= 0)
        assert np.count_nonzero(cells.level < m.layout.blocks[h].levels) == len(
            problem_of("crossed").y
        )
        assert cells.level.max() <= m.layout.blocks[h].levels


def test_the_number_of_chunks_is_one_that_similar_data_share():
    m = arrays.sparse(oracle.random_design(0, "crossed"))
    for g, h in pairs(m):
        chunks = len(m.cells[g][h].owner)
        assert chunks == layout.bucket(chunks)
        assert m.cells[g][h].owner.max() < m.layout.blocks[g].levels


def _vjp(function):
    def both(m, g, h, U, V):
        image, back = jax.vjp(lambda V: function(m, g, h, V), V)
        return image, back(U)[0]

    return both


def jitted(function):
    return arrays.quick_jit(function, static_argnums=(1, 2))


_product, _congruence = jitted(cells_module.product), jitted(cells_module.congruence)
_transposed_product, _transposed_congruence = (
    jitted(_vjp(f)) for f in (cells_module.product, cells_module.congruence)
)
