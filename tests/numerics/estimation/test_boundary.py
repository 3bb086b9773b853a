"""Estimates at the boundary of the parameter space."""

from functools import partial

import jax
import numpy as np
from helpers import arrays, oracle
from helpers.estimates import solve
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.numerics.estimation import boundary
from interlace_jax.runtime import calls


def test_boundary_fits_end_in_lme4s_form(singular):
    _, found = singular
    on_boundary = found.theta[:, 2] == 0
    assert 4 <= on_boundary.sum() <= 12
    # A zero diagonal has a zero column below it; the others are positive.
    no_intercept = found.theta[:, 0] == 0
    assert_array_equal(found.theta[no_intercept, 1], 0)
    assert np.all(found.theta[:, [0, 2]] >= 0)
    # On the boundary exactly, or clearly off it: nothing in between.
    assert found.theta[~on_boundary, 2].min() > 1e-3


def test_boundary_fits_are_no_worse_than_the_best_found_without_derivatives(singular):
    problems, found = singular
    for i in range(0, 16, 3):
        best = oracle.deviance(problems[i], oracle.fit(problems[i], True, starts=2), True)
        assert found.deviance[i] < best + 1e-7


def test_settling_an_interior_optimum_changes_nothing(slope):
    m = arrays.condition(slope)
    t = solve(m).t
    settled = calls.run(arrays.quick_jit(boundary.settle), t, m, True)
    assert not settled.restart
    assert_allclose(settled.t, t, atol=1e-12)


def test_zero_columns_are_those_with_nothing_but_zeros(slope):
    blocks = arrays.plan(slope).layout.blocks
    with jax.enable_x64(True):
        zero = partial(boundary.zero_columns, blocks=blocks)
        assert_array_equal(zero(np.array([1.0, 0, 0]))[1], [False, False, True])
        assert_array_equal(zero(np.array([0.0, 1, 0]))[1], [False, False, True])
        assert_array_equal(zero(np.array([0.0, 0, 1]))[1], [True, True, False])
        within, _ = zero(np.zeros(3))
    assert_array_equal(within, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
