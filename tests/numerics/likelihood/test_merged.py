"""Elimination by classes of levels against the elimination level by level, which has the oracle's
numbers.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.crossproducts import merged


def few_meetings():
    """60 rows of 40 levels, most of which meet one or two of 20."""
    r = np.random.default_rng(0)
    problem = oracle.random_design(0, "crossed")
    inner = np.append(np.arange(40), r.integers(0, 40, 20))
    outer = np.where(r.random(60) < 0.1, r.integers(0, 20, 60), inner // 2)
    one = problem.factors[0]
    factors = tuple(replace(one, codes=codes, m=m) for codes, m in ((inner, 40), (outer, 20)))
    return replace(problem, factors=factors)


@pytest.mark.parametrize("kind", ["intercept", "crossed", "few meetings"])
def test_classes_give_the_numbers_of_levels(kind):
    problem = few_meetings() if kind == "few meetings" else oracle.random_design(0, kind)
    m = arrays.condition(problem)
    by_class = merged.by_class(m)
    assert len(set(by_class.classes.G)) < m.G[0].shape[2]
    assert bool(by_class.rounds.rounds) == (kind == "few meetings")
    theta = oracle.random_theta(problem, 3)
    with jax.enable_x64(True):
        for reml in (True, False):
            value, gradient = _value_and_gradient(theta, by_class, reml)
            expected = oracle.deviance(problem.used(), theta, reml)
            assert_allclose(value, expected, rtol=0, atol=1e-10)
            assert_allclose(gradient, _value_and_gradient(theta, m, reml)[1], rtol=1e-9, atol=1e-9)


_value_and_gradient = arrays.quick_jit(jax.value_and_grad(arrays.of_theta))
