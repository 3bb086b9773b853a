"""Rows to cross-products: the same as from dense matrices, conditioned, and blind to the units
of the data.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.crossproducts import layout

KINDS = (
    "several_terms",
    "nested_chain",
    "crossed_slopes",
    "nested_crossed",
    "zero_weights",
    "offset",
)


def dense(problem, m):
    """Conditioned Z by block (n, m, k), X~ (n, p) and y~ (n,), all by NumPy from the constants
    in m.
    """
    order = m.layout.order
    Z = [None] * len(order)
    for factor, j in zip(problem.factors, order, strict=True):
        z = factor.Z @ np.linalg.inv(m.A[j])
        Z[j] = np.zeros((len(z), m.layout.blocks[j].levels, z.shape[1]))
        Z[j][np.arange(len(z)), factor.codes] = z
    y = (problem.y - problem.shift - problem.X @ m.beta0) / m.scale
    return Z, problem.X @ np.linalg.inv(m.R), y


@pytest.mark.parametrize("core", ["dense", "sparse"])
@pytest.mark.parametrize("kind", KINDS)
def test_moments_are_the_cross_products_of_the_conditioned_columns(kind, core, monkeypatch):
    if core == "sparse" and "crossed" not in kind:
        pytest.skip("there is no core")
    monkeypatch.setattr(layout, "FLOPS_PER_PAIR", 0 if core == "sparse" else 1e9)
    problem = oracle.random_design(0, kind)
    m = arrays.condition(problem)
    Z, X, y = dense(problem, m)
    t, q, n = m.layout.chain, m.layout.q, len(y)
    core_columns = np.concatenate([z.reshape(n, -1) for z in Z[t:]] + [np.zeros((n, 0))], 1)
    tail = np.concatenate([core_columns, X], 1)
    w = problem.w
    close = dict(rtol=0, atol=1e-11 * n)
    assert_allclose(m.XX, tail.T @ (w[:, None] * tail), **close)
    assert_allclose(m.Xy, tail.T @ (w * y), **close)
    assert_allclose(m.yy, w @ y**2, **close)
    for j in range(t):
        assert_allclose(m.G[j], np.einsum("nma,n,nmb->abm", Z[j], w, Z[j]), **close)
        assert_allclose(m.Zy[j], np.einsum("nma,n,n->am", Z[j], w, y), **close)
        met = np.einsum("nma,n,nc->acm", Z[j], w, tail)
        if m.E:
            entries = m.layout.entries[j]
            assert_allclose(m.ZX[j], met[:, q:], **close)
            assert_allclose(
                m.E[j][:, :-1], met[:, entries.column[:-1], entries.level[:-1]], **close
            )
            assert_allclose(m.E[j][:, -1], 0, atol=0)
            assert np.count_nonzero(np.abs(met[:, :q]).max(0).T) <= len(entries.level) - 1
        else:
            assert_allclose(m.ZX[j], met, **close)
        for h in range(j + 1, t):
            parents = m.layout.parents[j][h - j - 1]
            full = np.einsum("nma,n,nlb->abml", Z[j], w, Z[h])
            assert_allclose(
                m.B[j][h - j - 1], np.einsum("abmm->abm", full[:, :, :, parents]), **close
            )


@pytest.mark.parametrize("kind", ["slope", "weights", "zero_weights", "several_terms"])
def test_conditioned_columns_are_orthonormal_within_each_term(kind):
    problem = oracle.random_design(0, kind)
    m = arrays.condition(problem)
    Z, X, y = dense(problem, m)
    n = np.sum(problem.w > 0)
    assert m.n == n
    rows = [z.sum(1) for z in Z]
    for z, block in zip(rows, m.layout.blocks, strict=True):
        gram, start = np.einsum("na,n,nb->ab", z, problem.w, z) / n, 0
        for size in block.sizes:
            part = slice(start, start + size)
            assert_allclose(gram[part, part], np.eye(size), atol=1e-12)
            start += size
    assert_allclose(X.T @ (problem.w[:, None] * X), np.eye(3), atol=1e-12)
    assert_allclose(problem.w @ y**2 / n, 1, rtol=1e-12)


def moved(problem, shift, scale):
    """The slope variable in another unit and from another origin."""
    X, Z = problem.X.copy(), problem.factors[0].Z.copy()
    X[:, 1], Z[:, 1] = scale * X[:, 1] + shift, scale * Z[:, 1] + shift
    return replace(problem, X=X, factors=(replace(problem.factors[0], Z=Z),))


@pytest.mark.parametrize("scale", [1e6, 1e-3])
def test_the_unit_of_a_slope_leaves_the_moments_as_they_are(scale):
    problem = oracle.random_design(0, "slope")
    a, b = arrays.condition(problem), arrays.condition(moved(problem, 0, scale))
    for name in ("G", "ZX", "Zy", "XX", "Xy", "yy"):
        jax.tree.map(
            lambda x, y: assert_allclose(x, y, atol=1e-12), getattr(a, name), getattr(b, name)
        )


def test_the_origin_of_a_slope_only_rotates_the_conditioned_columns():
    problem = oracle.random_design(0, "slope")
    a, b = arrays.condition(problem), arrays.condition(moved(problem, 2000, 1))
    # 2000 standard deviations off, columns are parallel to 1e-7: that many digits of sixteen are
    # lost.
    close = dict(rtol=0, atol=1e-8)
    for m in (a, b):
        assert_allclose(m.G[0].sum(-1) / 60, np.eye(2), **close)
    assert_allclose(*(np.linalg.eigvalsh(m.G[0].T) for m in (a, b)), **close)
    assert_allclose(*(np.linalg.norm(m.Zy[0], axis=0) for m in (a, b)), **close)
    assert_allclose(a.yy, b.yy, **close)


def test_rows_of_zero_weight_are_as_if_absent():
    problem = oracle.random_design(0, "zero_weights")
    full, used = arrays.condition(problem), arrays.condition(problem.used())
    jax.tree.map(lambda a, b: assert_allclose(a, b, atol=1e-12), full, used)


def test_collinear_columns_of_a_term_are_scaled_only_and_stay_finite():
    problem = oracle.random_design(0, "slope")
    Z = problem.factors[0].Z.copy()
    Z[:, 1] = 3
    m = arrays.condition(replace(problem, factors=(replace(problem.factors[0], Z=Z),)))
    assert_allclose(m.A[0], np.diag([1.0, 3.0]), atol=1e-12)
    Z[:, 1] = 0
    m = arrays.condition(replace(problem, factors=(replace(problem.factors[0], Z=Z),)))
    assert_allclose(m.A[0], np.eye(2), atol=1e-12)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(m))
