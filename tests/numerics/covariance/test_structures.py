"""Covariance structures in the kernels, against the dense oracle; each structure against its
definition.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import arrays, oracle
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.numerics.estimation import estimate, start
from interlace_jax.numerics.likelihood import coordinates
from interlace_jax.numerics.uncertainty import curvature, kenward_roger
from interlace_jax.runtime import calls

pytestmark = pytest.mark.usefixtures("x64")


@dataclass(frozen=True)
class Banded(interlace.Structure):
    """What a user writes: correlation rho between neighbours only."""

    def names(self, k):
        return ("rho",)

    def natural(self, x, k):
        return 0.5 * jnp.tanh(x)

    def matrix(self, x, k):
        rho = self.natural(x, k)[0]
        return jnp.eye(k) + rho * (jnp.eye(k, k=1) + jnp.eye(k, k=-1))


# The same by definition, without the library ------------------------------------------------------


def compound(k, rho):
    return np.eye(k) + rho * (1 - np.eye(k))


def rho_of(x, k):
    """x is the log of the ratio of the eigenvalues 1 + (k - 1) rho and 1 - rho."""
    return (np.exp(x) - 1) / (np.exp(x) + k - 1)


def lags(k):
    return np.abs(np.subtract.outer(np.arange(k), np.arange(k)))


SHAPES = {
    "homogeneous": (interlace.HomogeneousDiagonal(), lambda x, k: np.eye(k), []),
    "compound": (interlace.CompoundSymmetry(), lambda x, k: compound(k, rho_of(x[0], k)), [-0.9]),
    "heterogeneous": (
        interlace.CompoundSymmetry(heterogeneous=True),
        lambda x, k: (
            compound(k, rho_of(x[-1], k)) * np.exp(np.add.outer(np.r_[0, x[:-1]], np.r_[0, x[:-1]]))
        ),
        [0.3, -0.2, 1.2],
    ),
    "autoregressive": (interlace.AR1(), lambda x, k: np.tanh(x[0]) ** lags(k), [0.8]),
    "own": (Banded(), lambda x, k: np.eye(k) + 0.5 * np.tanh(x[0]) * (lags(k) == 1), [-1.0]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_factor_is_lower_triangular_and_a_root_of_the_definition(name):
    structure, matrix, x = SHAPES[name]
    k = 3
    L = structure.factor(jnp.asarray(x, float), k)
    assert_allclose(L, np.tril(L), atol=0)
    assert_allclose(L @ L.T, matrix(x, k), atol=1e-14)
    assert len(structure.names(k)) == len(structure.start(k)) == len(x)


@pytest.mark.parametrize("structure", [interlace.CompoundSymmetry(), interlace.AR1()])
@pytest.mark.parametrize("x", [-40.0, 0.0, 40.0])
def test_at_perfect_correlations_factors_and_derivatives_stay_finite(structure, x):
    found = (
        structure.factor(jnp.array([x]), 4),
        jax.jacfwd(lambda x: structure.factor(x, 4))(jnp.array([x])),
    )
    assert all(np.isfinite(a).all() for a in found)


@pytest.mark.parametrize("name", ["homogeneous", "compound"])
def test_a_basis_spans_the_covariances(name):
    structure, matrix, x = SHAPES[name]
    basis = structure.basis(3).reshape(-1, 9)
    S = matrix(x, 3).ravel()
    assert_allclose(basis.T @ np.linalg.lstsq(basis.T, S, rcond=None)[0], S, atol=1e-14)


# Models -------------------------------------------------------------------------------------------


def kinship(m, seed=0, rank=None):
    """A covariance of m levels, of a size that is none of 1, singular if rank < m."""
    B = np.random.default_rng(seed).normal(size=(m, rank or 2 * m))
    return 3.0 * B @ B.T / B.shape[1]


def distances(m):
    xy = np.random.default_rng(1).uniform(size=(m, 2))
    return np.linalg.norm(xy[:, None] - xy, axis=-1)


def exponential(D, length):
    return jnp.exp(-D / length)


def tied(factor, name=None, K=None, D=None):
    """A factor of the oracle with a structure within levels, and K across them: known, or of
    distances D.
    """
    k, ridge = factor.Z.shape[1], 1e-8
    _, matrix, x = SHAPES[name] if name else (None, None, [])
    scales = [1.0] if name else list(factor.start)

    def build(theta):
        own = len(scales) + len(x)
        if name:
            L = theta[0] * np.linalg.cholesky(matrix(theta[1:own], k))
        else:
            L = factor.matrices(theta[:own])[0]
        if D is not None:
            return L, np.exp(-D / np.exp(theta[own])) + ridge * np.eye(len(D))
        return L, np.eye(factor.m) if K is None else K

    basis = {"homogeneous": (np.eye(k),), "compound": (np.eye(k), 1 - np.eye(k))}.get(name)
    theta0 = (*scales, *x, *([np.log(0.5)] if D is not None else []))
    return replace(factor, theta0=theta0, build=build, basis=basis)


def given(name=None, K=None, D=None):
    """The same as the library takes it."""
    parts = [SHAPES[name][0]] if name else []
    parts += [interlace.Known(K)] if K is not None else []
    parts += [interlace.Kernel(exponential, D, {"length": 0.5})] if D is not None else []
    return tuple(parts)


MODELS = {
    "homogeneous": ("weights", [dict(name="homogeneous")]),
    "compound": ("three_columns", [dict(name="compound")]),
    "heterogeneous": ("three_columns", [dict(name="heterogeneous")]),
    "autoregressive crossed": ("crossed_slopes", [dict(name="autoregressive"), None]),
    "own nested": ("nested_slopes", [dict(name="own"), None]),
    "known with slopes, crossed": ("crossed_slopes", [dict(K=kinship(9)), None]),
    "known and singular": ("weights", [dict(K=kinship(8, rank=5))]),
    "kernel with a structure": ("slope", [dict(name="compound", D=distances(8))]),
    "kernel on the outer of nested": ("nested_chain", [None, None, dict(D=distances(5))]),
}


def model(name):
    """The problem, and its moments by the array-level door."""
    kind, wanted = MODELS[name]
    problem = oracle.random_design(0, kind)
    plain = problem.factors
    factors = tuple(
        f if how is None else tied(f, **how) for f, how in zip(plain, wanted, strict=True)
    )
    groups = [
        (f.codes, f.Z, tuple(map(len, f.terms)) if how is None else given(**how))
        for f, how in zip(plain, wanted, strict=True)
    ]
    m = calls.run(
        quick_jit(lambda *a: interlace.moments(a[0], a[1], groups, a[3], a[4])),
        *arrays.rows(problem),
    )
    return replace(problem, factors=factors), m


@pytest.mark.parametrize("name", MODELS)
def test_everything_at_a_theta_is_the_oracles(name):
    problem, m = model(name)
    theta = problem.theta0 * np.random.default_rng(2).uniform(0.6, 1.1, problem.d)
    reml = name != "compound"
    found = arrays.kernel(theta, m, reml)

    def expected(theta):
        return oracle.deviance(problem, theta, reml)

    assert_allclose(found["deviance"], expected(theta), rtol=0, atol=1e-9)
    assert_allclose(found["gradient"], oracle.gradient(expected, theta), rtol=1e-7, atol=1e-7)
    assert_allclose(
        found["joint"], oracle.joint_deviance(problem, theta, 1.7, reml), rtol=0, atol=1e-9
    )
    sigma = oracle.sigma(problem, theta, reml)
    assert_allclose(found["sigma"], sigma, rtol=1e-10)
    assert_allclose(found["beta"], oracle.gls(problem, theta).beta, rtol=1e-8, atol=1e-9)
    assert_allclose(found["vcov"], oracle.beta_cov(problem, theta, sigma), rtol=1e-8, atol=1e-11)
    modes = oracle.modes(problem, theta), oracle.mode_covs(problem, theta, sigma)
    for ours, ours_cov, b, S in zip(found["modes"], found["mode_covariances"], *modes, strict=True):
        assert_allclose(ours, b, rtol=1e-7, atol=1e-8)
        assert_allclose(sigma**2 * ours_cov, S, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_coordinates_of_the_search_are_those_of_the_user_and_back(name):
    problem, m = model(name)
    theta = jnp.asarray(problem.theta0 + 0.1)
    t = coordinates.to_conditioned(theta, m.layout, m.A)
    assert_allclose(coordinates.to_user(t, m.layout, m.A), theta, rtol=1e-13)


ESTIMATED = ("compound", "autoregressive crossed", "kernel with a structure")
CONTRASTS = np.array([[1.0, 0, 0], [0, 1, 0], [1, 2, -1]])


@quick_jit
def _fit(m):
    found = estimate.search(m, True, start.begin(None, m))
    e = estimate.finish(
        found.x, m, True, found.g, found.predicted_decrease, found.steps, found.status
    )
    return e, curvature.satterthwaite(e.t, jnp.log(e.sigma), jnp.asarray(CONTRASTS), m, True)


@pytest.fixture(scope="module", params=ESTIMATED)
def estimated(request):
    """A response with large random effects, its fit, and Satterthwaite's df."""
    problem, m = model(request.param)
    rng = np.random.default_rng(4)
    theta = problem.theta0 * np.where(np.abs(problem.theta0) == 1.0, 2.0, 1.0)
    y = np.linalg.cholesky(problem.V(theta)) @ rng.standard_normal(len(problem.y)) + problem.X.sum(
        1
    )
    problem = replace(problem, y=y)
    kind, wanted = MODELS[request.param]
    groups = [
        (f.codes, f.Z, tuple(map(len, f.terms)) if how is None else given(**how))
        for f, how in zip(problem.factors, wanted, strict=True)
    ]
    with jax.enable_x64(True):
        m = interlace.moments(y, problem.X, groups, problem.w, problem.shift)
    return problem, m, *calls.run(_fit, m)


def test_the_optimum_is_the_best_that_a_search_without_derivatives_finds(estimated):
    problem, _, e, _ = estimated
    assert e.converged
    best = oracle.deviance(problem, oracle.fit_freely(problem, True, start=e.theta), True)
    assert_allclose(e.deviance, oracle.deviance(problem, e.theta, True), rtol=0, atol=1e-9)
    assert e.deviance < best + 1e-7


@pytest.mark.parametrize("estimated", ["compound"], indirect=True)
def test_a_scale_of_zero_is_left_although_it_is_stationary(estimated):
    _, m, e, _ = estimated
    found = calls.run(quick_jit(estimate.estimate), m, True, np.zeros_like(e.t))
    assert_allclose(found.deviance, e.deviance, rtol=0, atol=1e-8)
    assert_allclose(found.theta, e.theta, atol=1e-5)


def test_degrees_of_freedom_are_the_oracles(estimated):
    problem, _, e, df = estimated
    # The oracle's Hessian is good to 1e-7, its inverse somewhat less.
    assert_allclose(df, oracle.satterthwaite(problem, e.theta, CONTRASTS, True), rtol=1e-4)


@pytest.mark.parametrize("name", ["compound", "known with slopes, crossed"])
def test_kenward_roger_is_the_dense_one_where_the_covariance_is_linear(name):
    problem, m = model(name)
    theta = problem.theta0 * 0.8
    t = coordinates.to_conditioned(jnp.asarray(theta), m.layout, m.A)
    sigma = oracle.sigma(problem, theta, True)
    ours = calls.run(quick_jit(kenward_roger.kenward_roger), t, np.log(sigma), m)
    dense = oracle.kenward_roger(problem, theta, [np.eye(3)])
    assert_allclose(ours.adjusted, dense.cov, rtol=1e-6, atol=1e-9)
    assert_allclose(
        kenward_roger.f_approximation(np.eye(3), ours), [dense.df[0], dense.scale[0]], rtol=1e-6
    )


# Derivatives of the fit ---------------------------------------------------------------------------

STEP = 2e-3


def test_the_fit_is_differentiable_in_k_and_in_the_coordinates_of_a_kernel():
    problem = oracle.random_design(0, "crossed")
    rng = np.random.default_rng(8)
    factors = tied(problem.factors[0], K=kinship(9)), tied(problem.factors[1], D=distances(6))
    true = replace(problem, factors=factors)
    y = np.linalg.cholesky(true.V(np.array([1.5, 1.5, np.log(0.5)]))) @ rng.standard_normal(60)

    def fit(K, D):
        first, second = problem.factors
        known, kernel = (
            interlace.Known(K),
            interlace.Kernel(exponential, D, {"length": 0.5}, prior=lengths),
        )
        groups = [(first.codes, first.Z, known), (second.codes, second.Z, kernel)]
        m = interlace.moments(y, problem.X, groups)
        e = interlace.estimate(m)
        return e.theta, e.sigma, e.beta, interlace.random_effects(e, m)

    at = jnp.asarray(kinship(9)), jnp.asarray(distances(6))
    B = 0.2 * rng.standard_normal((9, 9))
    along = jnp.asarray(B @ B.T), at[1] * (0.2 + 0.1 * np.add.outer(np.arange(6), np.arange(6)) / 6)
    both = quick_jit(lambda at: jax.jvp(fit, at, along))
    _, tangent = both(at)
    moved = {
        s: both(tuple(a + s * STEP * v for a, v in zip(at, along, strict=True)))[0]
        for s in (-2, -1, 1, 2)
    }
    differences = jax.tree.map(
        lambda a, b, c, d: (a - 8 * b + 8 * c - d) / (12 * STEP),
        *(moved[s] for s in (-2, -1, 1, 2)),
    )
    assert np.abs(tangent[0]).min() > 0.01
    # Refits are off their optimum by up to 1e-8, which the step turns into 5e-6.
    for found, expected in zip(jax.tree.leaves(tangent), jax.tree.leaves(differences), strict=True):
        assert_allclose(found, expected, rtol=1e-5, atol=5e-6)


def lengths(parameters):
    return -0.5 * jnp.sum(jnp.log(parameters / 0.5) ** 2)
