"""Conditional modes and covariances beyond what test_deviance compares with the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

# These are the shapes of test_deviance, so that nothing is compiled anew.


def test_a_level_without_rows_has_mode_zero_and_the_prior_covariance():
    problem = oracle.random_design(0, "slope")
    codes = np.where(problem.factors[0].codes == 3, 2, problem.factors[0].codes)
    problem = replace(problem, factors=(replace(problem.factors[0], codes=codes),))
    theta = oracle.random_theta(problem, 3)
    found = arrays.kernel(theta, arrays.condition(problem), True)
    (Lam,) = problem.Lambdas(theta)
    assert_allclose(found["modes"][0][3], 0, atol=1e-14)
    assert_allclose(found["mode_covariances"][0][3], Lam @ Lam.T, rtol=1e-12)


@pytest.mark.parametrize("kind", ["three_columns", "nested_crossed"])
def test_covariances_are_symmetric_positive_and_below_the_prior(kind):
    problem = oracle.random_design(0, kind)
    theta = oracle.random_theta(problem, 3)
    found = arrays.kernel(theta, arrays.condition(problem), True)
    for S, Lam in zip(found["mode_covariances"], problem.Lambdas(theta), strict=True):
        assert_allclose(S, S.mT, atol=1e-15)
        assert np.linalg.eigvalsh(S).min() > -1e-12
        assert np.linalg.eigvalsh(Lam @ Lam.T - S).min() > -1e-10


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_modes_follow_the_unit_of_their_column(scale):
    problem = oracle.random_design(0, "slope")
    theta = oracle.random_theta(problem, 3)
    Z = problem.factors[0].Z * np.array([1.0, scale])
    other = replace(problem, factors=(replace(problem.factors[0], Z=Z),))
    a = arrays.kernel(theta, arrays.condition(problem), True)
    b = arrays.kernel(theta / np.array([1, scale, scale]), arrays.condition(other), True)
    assert_allclose(b["modes"][0] * np.array([1, scale]), a["modes"][0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["slope", "crossed_slopes"])
def test_zero_columns_give_zero_modes_and_variances(kind):
    problem = oracle.random_design(0, kind)
    found = arrays.kernel(np.zeros(problem.d), arrays.condition(problem), True)
    for b, S in zip(found["modes"], found["mode_covariances"], strict=True):
        assert_allclose(b, 0, atol=0)
        assert_allclose(S, 0, atol=0)
