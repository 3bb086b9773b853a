"""Parameters of the search and those of the user."""

import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.likelihood import coordinates
from interlace_jax.runtime import calls


@arrays.quick_jit
def there_and_back(theta, m):
    t = coordinates.to_conditioned(theta, m.layout, m.A)
    return t, coordinates.to_user(t, m.layout, m.A)


@pytest.mark.parametrize("kind", ["slope", "crossed_slopes", "nested_crossed"])
def test_coordinates_lead_back(kind):
    problem = oracle.random_design(0, kind)
    m = arrays.condition(problem)
    theta = np.linspace(0.3, 1.1, sum(b.size for b in m.layout.blocks))
    _, back = calls.run(there_and_back, theta, m)
    assert_allclose(back, theta, rtol=1e-10)


def test_conditioned_factors_are_lambda_in_the_units_of_the_columns():
    problem = oracle.random_design(0, "slope")
    m = arrays.condition(problem)
    Lam = np.array([[0.9, 0.0], [0.2, 0.4]])
    t, _ = calls.run(there_and_back, Lam[np.tril_indices(2)][[0, 1, 2]], m)
    conditioned = m.A[0] @ Lam
    assert_allclose(t, conditioned[[0, 1, 1], [0, 0, 1]], rtol=1e-10)
