"""Leverages, variances of predictions and derivatives by weights, against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from helpers.arrays import condition, plan, quick_jit, rows
from numpy.testing import assert_allclose

from interlace_jax.numerics.likelihood import coordinates
from interlace_jax.numerics.uncertainty import sensitivity
from interlace_jax.runtime import calls

KINDS = ["nested_slopes", "crossed_slopes", "zero_weights"]

_leverages = quick_jit(sensitivity.leverages)
_row_variances = quick_jit(sensitivity.row_variances)
_prediction_variances = quick_jit(sensitivity.prediction_variances)
_deletion_gradients = quick_jit(sensitivity.deletion_gradients)
_case_pull = quick_jit(sensitivity.case_pull)


def dense(problem, theta):
    """Z Lambda (n, q) of all factors."""
    pairs = zip(problem.factors, problem.Lambdas(theta), strict=True)
    return np.hstack([f.dense() @ np.kron(np.eye(f.m), L) for f, L in pairs])


def henderson(problem, theta):
    """H of the mixed model equations, and its row for every row of the data."""
    h = np.hstack([problem.X, dense(problem, theta)])
    p = problem.X.shape[1]
    return h.T @ (problem.w[:, None] * h) + np.diag(np.repeat([0.0, 1.0], [p, h.shape[1] - p])), h


def no_K(problem):
    return [None] * len(problem.factors)


@pytest.fixture(params=KINDS)
def problem(request):
    return oracle.random_design(3, request.param)


def test_variances_of_rows_are_those_of_hendersons_equations_also_for_rows_of_weight_zero(problem):
    theta = oracle.random_theta(problem, 3)
    _, X, Z, w, _ = rows(problem)
    H, h = henderson(problem, theta)
    found = calls.run(_row_variances, theta, plan(problem, pad=True), X, Z, w, no_K(problem))
    assert_allclose(found, np.einsum("ni,ni->n", h, np.linalg.solve(H, h.T).T), rtol=1e-9)


def test_leverages_are_the_diagonals_of_the_hat_matrices(problem):
    theta = oracle.random_theta(problem, 4)
    _, X, Z, w, _ = rows(problem)
    found = calls.run(_leverages, theta, plan(problem, pad=True), X, Z, w, no_K(problem))
    used = w > 0
    part = problem.used()
    Vi, ZL = np.linalg.inv(part.V(theta)), dense(part, theta)
    VXC = Vi @ part.X @ np.linalg.inv(part.X.T @ Vi @ part.X)
    fixed = part.X @ VXC.T
    random = ZL @ ZL.T @ Vi @ (np.eye(len(Vi)) - fixed)
    assert_allclose(found.fixed[used], np.diag(fixed), rtol=1e-9)
    assert_allclose(found.overall[used], np.diag(fixed + random), rtol=1e-9)
    assert_allclose(found.VXC[used], VXC, rtol=1e-8, atol=1e-12)
    assert not found.overall[~used].any()


def test_variances_of_predictions_are_those_of_rows_without_weight_and_differentiated_by_theta():
    problem = oracle.random_design(5, "nested_slopes")
    m, theta = condition(problem), oracle.random_theta(problem, 5)
    _, X, Z, w, _ = rows(problem)
    known = len(w) // 2
    with jax.enable_x64(True):
        t = np.asarray(coordinates.to_conditioned(theta, m.layout, m.A))

    def variances(t):
        return calls.run(
            _prediction_variances, t, m.layout, m.A, plan(problem), X, Z, w[:known], no_K(problem)
        )

    weightless = np.where(np.arange(len(w)) < known, w, 0.0)
    of_rows = calls.run(_row_variances, theta, plan(problem), X, Z, weightless, no_K(problem))
    assert_allclose(variances(t)[0], of_rows[known:], rtol=1e-9)
    assert_allclose(
        variances(t)[1], oracle.gradient(lambda t: variances(t)[0], t).T, rtol=1e-6, atol=1e-9
    )


# Derivatives, against autodiff of the textbook criterion ------------------------------------------


def textbook(problem, x, c, reml):
    """Joint deviance at x = (theta, log sigma), and beta, where row i counts c_i times as part of
    its group.

    V is block diagonal, and so is its Cholesky factor: every sum over groups is a sum over rows.
    """
    V, entries = jnp.diag(1.0 / problem.w), iter(x[:-1])
    for f in problem.factors:
        Lam = jnp.zeros((f.Z.shape[1],) * 2)
        for at in f.pattern:
            Lam = Lam.at[at].set(next(entries))
        V = V + f.Z @ Lam @ Lam.T @ f.Z.T * (f.codes[:, None] == f.codes)
    L, X, y = jnp.linalg.cholesky(V), problem.X, problem.y - problem.shift
    U = jnp.linalg.solve(V, jnp.hstack([X, y[:, None]])) * c[:, None]
    XVX = X.T @ U[:, :-1]
    beta = jnp.linalg.solve(XVX, X.T @ U[:, -1])
    r = y - X @ beta
    r2 = r @ (jnp.linalg.solve(V, r) * c)
    logdet = 2.0 * jnp.sum(c * jnp.log(jnp.diagonal(L))) + reml * jnp.linalg.slogdet(XVX)[1]
    nu = jnp.sum(c) - reml * X.shape[1]
    return logdet + nu * (jnp.log(2.0 * jnp.pi) + 2.0 * x[-1]) + r2 * jnp.exp(-2.0 * x[-1]), beta


def setting(kind):
    """A problem, theta, log sigma, what the pure functions take, and d t / d theta, as t is
    linear in theta.
    """
    problem = oracle.random_design(6, kind)
    theta, m = oracle.random_theta(problem, 6), condition(problem)
    y, X, Z, w, shift = rows(problem)
    with jax.enable_x64(True):
        to_t = jax.jacfwd(lambda theta: coordinates.to_conditioned(theta, m.layout, m.A))(
            jnp.asarray(theta)
        )
    to_t = np.asarray(to_t)
    return (
        problem,
        theta,
        0.3,
        (np.append(to_t @ theta, 0.3), plan(problem), y - shift, X, Z, w, no_K(problem)),
        to_t,
    )


def by_theta(gradient, to_t):
    """The chain rule, for gradients (n, d + 1) by (t, log sigma)."""
    return np.hstack([gradient[:, :-1] @ to_t, gradient[:, -1:]])


@pytest.mark.parametrize(("kind", "reml"), [("nested_slopes", True), ("weights", False)])
def test_derivatives_by_the_counts_of_groups_are_those_of_the_textbook_criterion(kind, reml):
    problem, theta, s, arguments, to_t = setting(kind)

    @quick_jit
    def derivatives(x, c):
        def both(c):
            return jnp.concatenate([jax.grad(lambda x: at(x, c)[0])(x), at(x, c)[1]])

        def at(x, c):
            return textbook(problem, x, c, reml)

        return jax.jacrev(both)(c).T

    expected = calls.run(derivatives, np.append(theta, s), np.ones(len(problem.y)))
    found = calls.run(_case_pull, *arguments, reml)
    parts = np.eye(problem.factors[-1].m)[problem.factors[-1].codes]
    found = np.hstack([by_theta(found.gradient, to_t), found.beta])
    assert_allclose(parts.T @ found, parts.T @ expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("kind", "reml"), [("crossed_slopes", True), ("zero_weights", False)])
def test_gradients_of_the_deviance_without_a_row_are_those_of_the_other_rows(kind, reml):
    problem, theta, s, arguments, to_t = setting(kind)
    found = by_theta(calls.run(_deletion_gradients, *arguments, reml), to_t)
    full = deviance_gradient(problem.used(), theta, s, reml)
    for i in np.flatnonzero(problem.w > 0)[:3]:
        less = deviance_gradient(
            problem.rows(np.arange(len(problem.y)) != i).used(), theta, s, reml
        )
        assert_allclose(found[i], less - full, rtol=1e-5, atol=1e-7)


def deviance_gradient(problem, theta, s, reml):
    """By differences of the dense joint deviance."""
    return oracle.gradient(
        lambda x: oracle.joint_deviance(problem, x[:-1], np.exp(x[-1]), reml), np.append(theta, s)
    )
