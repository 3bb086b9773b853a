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
from interlace_jax.numerics.likelihood.coordinates import to_conditioned
from interlace_jax.numerics.likelihood.random_effects import (
    mode_covariances_by_level,
    modes_by_class,
)
from interlace_jax.runtime import calls, compilation


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


@pytest.mark.parametrize("kind", ["intercept", "crossed", "few meetings"])
def test_classes_give_the_effects_and_their_covariances(kind):
    problem = few_meetings() if kind == "few meetings" else oracle.random_design(0, kind)
    theta = oracle.random_theta(problem, 3)
    m = arrays.condition(problem)
    with jax.enable_x64(True):
        t = np.asarray(to_conditioned(theta, m.layout, m.A))
    effects = calls.run(_modes, t, merged.by_class(m), m.ZX, m.E)
    covariances = calls.run(_covariances, t, merged.by_level(m))
    for b, expected in zip(effects, oracle.modes(problem.used(), theta), strict=True):
        assert_allclose(b, expected, rtol=1e-9, atol=1e-11)
    for S, expected in zip(covariances, oracle.mode_covs(problem.used(), theta, 1.0), strict=True):
        assert_allclose(S, expected, rtol=1e-9, atol=1e-11)


_modes = compilation.jit(modes_by_class)
_covariances = compilation.jit(mode_covariances_by_level)
_value_and_gradient = arrays.quick_jit(jax.value_and_grad(arrays.of_theta))
