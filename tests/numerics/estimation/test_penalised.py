"""Coefficients estimated beside the random effects, against dense matrices and differences."""

import numpy as np
import pytest
from helpers import generalized as helper
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose

from interlace_jax.numerics.estimation import penalised
from interlace_jax.numerics.families import family as F
from interlace_jax.runtime import calls

_deviance_gradient = quick_jit(penalised.deviance_gradient)


def dense(x, data):
    """d_0 and c^ by Newton's method on all coefficients as one dense vector."""
    A, p = helper.dense_effects(x, data), data.X.shape[1]
    whole, free = np.hstack([A, data.X]), np.zeros(p)
    penalty = np.append(np.ones(A.shape[1]), free)
    v = np.append(np.zeros(A.shape[1]), x.c)
    for _ in range(50):
        score, W = calls.run(helper.derivatives, data, data.offset + whole @ v, x.g)
        curvature = np.diag(penalty) + whole.T @ (W[:, None] * whole)
        step = np.linalg.solve(curvature, whole.T @ score - penalty * v)
        v = v + step / max(1.0, np.abs(step).max())
    eta = data.offset + whole @ v
    _, W = calls.run(helper.derivatives, data, eta, x.g)
    M = np.eye(A.shape[1]) + A.T @ (W[:, None] * A)
    value = calls.run(quick_jit(helper.log_densities), data, eta, x.g).sum()
    u, c = np.split(v, [A.shape[1]])
    return -2.0 * value + u @ u + np.linalg.slogdet(M)[1], c


@pytest.fixture(scope="module")
def begun():
    """Counts with a slope by one factor, and an intercept by another that crosses it."""
    rng = np.random.default_rng(0)
    a, b, x = rng.integers(0, 6, 120), rng.integers(0, 5, 120), rng.normal(size=120)
    X, one = np.column_stack([np.ones(120), x]), np.ones((120, 1))
    return helper.begun(helper.case(F.Poisson(), rng.poisson(2.0, 120), X, [a, b], [X, one]))


def test_the_deviance_and_its_gradient_are_those_of_dense_matrices(begun):
    data, x = begun.data, begun.x._replace(t=begun.x.t + [0.2, 0.1, 0.3, 0.25])
    found = calls.run(_deviance_gradient, x, helper.zero_modes(data), data)
    value, c = dense(x, data)
    assert found[0] == pytest.approx(value, abs=1e-9)
    assert_allclose(found[2].c, c, atol=1e-8)  # where h is flat to rounding

    def along(direction):
        ahead, behind = (dense(x._replace(t=x.t + s * direction), data)[0] for s in (1.0, -1.0))
        return (ahead - behind) / 2e-4

    # central differences: rounding 1e-13 of a few hundred over the step, and its square
    differences = [along(direction) for direction in 1e-4 * np.eye(4)]
    assert_allclose(found[1], differences, atol=1e-5)
