"""theta and Lambda: both coordinates, and the canonical form."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.numerics.covariance import parameters
from interlace_jax.numerics.covariance.block import Block
from interlace_jax.numerics.likelihood import coordinates

pytestmark = pytest.mark.usefixtures("x64")

KINDS = ("three_columns", "several_terms", "nested_chain", "crossed_slopes", "nested_crossed")


@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_filled_as_by_the_oracle_and_read_back(kind):
    problem = oracle.random_design(0, kind)
    theta = oracle.random_theta(problem, 1)
    blocks = [Block(f.m, tuple(len(t) for t in f.terms)) for f in problem.factors]
    Lams = parameters.factors(jnp.asarray(theta), blocks)
    for ours, theirs in zip(Lams, problem.Lambdas(theta), strict=True):
        assert_array_equal(ours, theirs)
    read = [parameters.read(Lam, block) for Lam, block in zip(Lams, blocks, strict=True)]
    assert_array_equal(np.concatenate(read), theta)


@pytest.mark.parametrize("kind", KINDS)
def test_conditioned_factors_are_a_times_lambda_and_back(kind):
    problem = oracle.random_design(0, kind)
    theta = oracle.random_theta(problem, 1)
    m = arrays.condition(problem)
    A = [jnp.asarray(a) for a in m.A]
    t = coordinates.to_conditioned(jnp.asarray(theta), m.layout, A)
    conditioned = parameters.conditioned_factors(t, m.layout.blocks, A)
    for i, Lam in enumerate(problem.Lambdas(theta)):
        j = m.layout.order[i]
        assert_allclose(conditioned[j], m.A[j] @ Lam, atol=1e-13)
    assert_allclose(coordinates.to_user(t, m.layout, A), theta, atol=1e-12)


def test_zero_columns_stay_zero_in_both_coordinates():
    problem = oracle.random_design(0, "three_columns")
    theta = oracle.random_theta(problem, 1)
    theta[[3, 4]] = 0  # the second column of a 3 x 3 lower triangle
    m = arrays.condition(problem)
    t = coordinates.to_conditioned(jnp.asarray(theta), m.layout, m.A)
    assert_array_equal(parameters.conditioned_factors(t, m.layout.blocks, m.A)[0][:, 1], 0)


def test_columns_list_the_entries_of_each_column_with_the_diagonal_first():
    blocks = [Block(4, (2, 1)), Block(3, (1,))]
    found = [c.tolist() for c in parameters.columns(blocks)]
    assert found == [[0, 1], [2], [3], [4]]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_canonical_keeps_the_covariance_and_has_a_positive_diagonal(k):
    Lam = jnp.asarray(np.tril(np.random.default_rng(k).normal(size=(k, k))))
    L = parameters.canonical(Lam)
    assert_allclose(L @ L.T, Lam @ Lam.T, atol=1e-13)
    assert_array_equal(L, np.tril(L))
    assert np.all(np.diag(L) > 0)
    # for a regular Lambda only signs change
    assert_allclose(L, Lam * np.sign(np.diag(Lam))[None], atol=1e-12)


def test_canonical_turns_a_zero_diagonal_into_a_zero_column():
    Lam = jnp.asarray([[0.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.3, 0.1, 0.5]])
    L = parameters.canonical(Lam)
    assert_array_equal(L[:, 0], 0)
    assert_allclose(L @ L.T, Lam @ Lam.T, atol=1e-14)
    perfect = jnp.asarray([[1.0, 0.0], [-0.5, 0.0]])  # correlation -1
    assert_allclose(parameters.canonical(perfect), perfect, atol=1e-15)


def test_canonical_of_zero_is_zero():
    assert_array_equal(parameters.canonical(jnp.zeros((3, 3))), np.zeros((3, 3)))
