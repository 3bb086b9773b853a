"""Where a search begins."""

import numpy as np
from helpers import arrays, oracle
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.numerics.covariance import parameters
from interlace_jax.numerics.estimation import start
from interlace_jax.runtime import calls


def test_moment_starts_are_positive_and_in_the_neighbourhood():
    problem = oracle.random_design(0, "nested_crossed")
    m = arrays.condition(problem)
    t = calls.run(arrays.quick_jit(start.moment_start), m)
    diagonals = [c[0] for c in parameters.columns(m.layout.blocks)]
    assert np.all(t[diagonals] > 0) and np.all(t[diagonals] < 5)
    assert_array_equal(np.delete(t, diagonals), 0)


def test_moment_starts_of_a_large_one_way_layout_are_nearly_the_estimates():
    rng = np.random.default_rng(0)
    m, r = 400, 5
    codes = np.repeat(np.arange(m), r)
    y = 1.5 * rng.normal(size=m)[codes] + rng.normal(size=m * r)
    factor = oracle.Factor(codes, np.ones((m * r, 1)), m, ((0,),))
    moments = arrays.condition(oracle.Problem(y, np.ones((m * r, 1)), (factor,)))
    t = calls.run(arrays.quick_jit(start.moment_start), moments)
    between, within = y.reshape(m, r).mean(1).var(ddof=1), y.reshape(m, r).var(1, ddof=1).mean()
    # the method of moments of a textbook
    assert_allclose(t, np.sqrt(between / within - 1 / r), rtol=0.02)
