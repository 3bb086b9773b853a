"""Satterthwaite's degrees of freedom against the oracle's numerical derivatives."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.likelihood import coordinates
from interlace_jax.numerics.uncertainty import curvature
from interlace_jax.runtime import calls


@arrays.quick_jit
def satterthwaite(theta, sigma, contrasts, m, reml):
    t = coordinates.to_conditioned(theta, m.layout, m.A)
    return curvature.satterthwaite(t, jnp.log(sigma), contrasts, m, reml)


def optimum(kind, reml=True):
    problem = oracle.random_design(0, kind)
    return problem, oracle.fit(problem, reml, starts=1)


CONTRASTS = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, -1]])


@pytest.mark.parametrize("kind", ["intercept", "slope", "weights", "crossed"])
@pytest.mark.parametrize("reml", [True, False])
def test_degrees_of_freedom_are_the_oracles(kind, reml):
    problem, theta = optimum(kind, reml)
    theta = np.where(np.abs(theta) < 1e-4, 0.0, theta)
    ours = calls.run(
        satterthwaite,
        theta,
        oracle.sigma(problem, theta, reml),
        CONTRASTS,
        arrays.condition(problem),
        reml,
    )
    # The oracle's Hessian is good to 1e-7, its inverse somewhat less.
    assert_allclose(ours, oracle.satterthwaite(problem, theta, CONTRASTS, reml), rtol=1e-5)


def test_zero_columns_are_left_out():
    problem = oracle.random_design(0, "slope")
    theta = np.array([0.8, 0.3, 0.0])
    sigma = oracle.sigma(problem, theta, True)
    ours = calls.run(satterthwaite, theta, sigma, CONTRASTS, arrays.condition(problem), True)
    assert_allclose(ours, oracle.satterthwaite(problem, theta, CONTRASTS, True), rtol=1e-5)


def test_without_random_effects_they_are_those_of_least_squares():
    problem = oracle.random_design(0, "slope")
    theta = np.zeros(3)
    sigma = oracle.sigma(problem, theta, True)
    ours = calls.run(satterthwaite, theta, sigma, CONTRASTS, arrays.condition(problem), True)
    assert_allclose(ours, 60 - 3, rtol=1e-9)
