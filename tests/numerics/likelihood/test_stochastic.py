"""The iterative deviance against the oracle, of factors with levels that have no data.

Random signs z estimate a trace from z'fz. The columns of sqrt(q) I do it exactly, so that
everything that is not chance is tested to rounding; what is chance, by its spread over many sets of
probes.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.crossproducts import cells
from interlace_jax.numerics.likelihood import coordinates, stochastic, stochastic_effects
from interlace_jax.runtime import calls

EMPTY = 2  # levels without data
KINDS = ["crossed_slopes", "weighted_three", "all_iterated"]  # the second has a small third factor


@pytest.fixture(autouse=True)
def narrow_chunks(monkeypatch):
    """Programs of half the size, and several chunks a level."""
    monkeypatch.setattr(cells, "WIDTHS", (2,))


@pytest.fixture(autouse=True)
def no_core(request, monkeypatch):
    if "all_iterated" in request.node.name:
        monkeypatch.setattr(cells, "FEW", 0)


def problem_of(kind):
    if kind == "weighted_three":
        weights = oracle.random_design(0, "weights").weights
        return replace(oracle.random_design(0, "crossed_three"), weights=weights)
    return oracle.random_design(0, "nested_crossed" if kind == "all_iterated" else kind)


def exact_probes(count):
    return np.sqrt(count) * np.eye(count)


def random_probes(rows, count, seed):
    return np.random.default_rng(seed).choice([-1.0, 1.0], (rows, count))


@arrays.quick_jit
def conditioned(theta, m):
    return coordinates.to_conditioned(theta, m.layout, m.A)


@arrays.quick_jit
def evaluate(theta, m, probes, reml, sigma):
    """The profiled deviance, or the joint one at a sigma > 0; its gradient in lme4's theta, and
    the noise of both.
    """
    t, pull = jax.vjp(lambda theta: coordinates.to_conditioned(theta, m.layout, m.A), theta)
    found = stochastic.evaluate(t, m, probes, reml, sigma)
    pull_rows = jax.vmap(lambda row: pull(row)[0])
    return (
        found.deviance,
        pull(found.gradient)[0],
        found.noise,
        pull_rows(pull_rows(found.gradient_cov).T),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_without_chance_deviance_and_gradient_are_the_oracles(kind):
    problem = problem_of(kind)
    m, theta = arrays.sparse(problem, EMPTY), oracle.random_theta(problem, 3)
    for reml in (True, False):
        value, gradient, *_ = calls.run(evaluate, theta, m, exact_probes(m.q), reml, 0.0)
        _, joint, *_ = calls.run(evaluate, theta, m, exact_probes(m.q), reml, 1.7)

        def expected(theta, reml=reml):
            return oracle.deviance(problem, theta, reml)

        # A relative residual of 1e-5 of the probes: its square in the quadrature, itself in the
        # gradient.
        assert_allclose(value, expected(theta), rtol=0, atol=1e-8)
        assert_allclose(gradient, oracle.gradient(expected, theta), rtol=1e-5, atol=1e-4)
        slopes = oracle.gradient(
            lambda x, reml=reml: oracle.joint_deviance(problem, x, 1.7, reml), theta
        )
        assert_allclose(joint, slopes, rtol=1e-5, atol=1e-4)


@arrays.quick_jit
def after(t, m, probes, eliminated):
    return stochastic_effects.modes(t, m), stochastic_effects.mode_covariances(
        t, m, probes, eliminated
    )


@pytest.mark.parametrize("kind", KINDS)
def test_without_chance_modes_and_their_covariances_are_the_oracles(kind):
    problem = problem_of(kind)
    m, theta = arrays.sparse(problem, EMPTY), oracle.random_theta(problem, 3)
    first = m.layout.blocks[0]
    probes = exact_probes(m.q), exact_probes(first.k * first.levels)
    b, (S, _) = calls.run(after, calls.run(conditioned, theta, m), m, *probes)
    for found, expected in zip(b, oracle.modes(problem, theta), strict=True):
        assert_allclose(found[:-EMPTY], expected, rtol=1e-7, atol=1e-9)
        assert_allclose(found[-EMPTY:], 0, atol=1e-9)
    for found, expected in zip(S, oracle.mode_covs(problem, theta, 1.0), strict=True):
        assert_allclose(found[:-EMPTY], expected, rtol=1e-4, atol=1e-5)


def test_the_spread_over_sets_of_probes_is_the_reported_noise():
    problem = problem_of("crossed_slopes")
    m, theta = arrays.sparse(problem, EMPTY), oracle.random_theta(problem, 3)
    sets = [
        calls.run(evaluate, theta, m, random_probes(m.q, m.q, seed), True, 0.0)
        for seed in range(100)
    ]
    values, gradients = np.array([s[0] for s in sets]), np.array([s[1] for s in sets])
    # 100 sets tell a variance to 14%, and a mean to a tenth of the standard deviation.
    assert_allclose(values.var(), np.mean([s[2] ** 2 for s in sets]), rtol=0.5)
    scale = np.outer(gradients.std(0), gradients.std(0))
    assert_allclose(np.mean([s[3] for s in sets], 0) / scale, np.cov(gradients.T) / scale, atol=0.5)
    exact = calls.run(evaluate, theta, m, exact_probes(m.q), True, 0.0)
    assert abs(values.mean() - exact[0]) < 4 * values.std() / 10
    assert np.all(np.abs(gradients.mean(0) - exact[1]) < 4 * gradients.std(0) / 10)


def test_the_noise_of_a_gradient_is_known_to_a_few_per_cent():
    rng, q, T = np.random.default_rng(0), 300, 8
    V = np.linalg.qr(rng.normal(size=(q, 10)))[0]
    # eight probes have 80 numbers to know C by
    C, other = 0.4 * V @ V.T, 0.005 * rng.normal(size=(q, q))
    M = np.array([C @ C + 0.1 * other, other])  # not symmetric

    @arrays.quick_jit
    def covariance_by(z):
        return stochastic._covariance(z.T @ M @ z, C @ z, ((C @ (C @ z)) ** 2).sum(0), z)

    found = np.array([calls.run(covariance_by, random_probes(q, T, seed)) for seed in range(200)])
    M = 0.5 * (M + M.swapaxes(1, 2)) * (1 - np.eye(q))
    # 200 sets know a mean of forms of 28 pairs to 2% of the standard deviations.
    scale = np.sqrt(np.sum(M**2, (1, 2)))
    expected = np.einsum("jab,kab->jk", M, M) / np.outer(scale, scale)
    assert_allclose(found.mean(0) * T / 2 / np.outer(scale, scale), expected, atol=0.06)
    noise = np.sqrt(found[:, 0, 0])
    # the standard deviation of eight numbers is known to a quarter
    assert noise.std() < 0.12 * noise.mean()


# far from 0 a slope is made of both conditioned columns
@pytest.mark.parametrize("shift", (0.0, 4.0))
def test_the_errors_of_conditional_variances_are_those_of_the_probes(shift):
    problem = problem_of("crossed_slopes")
    moved = [replace(f, Z=f.Z + shift * (f.Z.std(0) > 0)) for f in problem.factors]
    problem = replace(problem, factors=moved)
    m, theta = arrays.sparse(problem, EMPTY), oracle.random_theta(problem, 3)
    t, first = calls.run(conditioned, theta, m), m.layout.blocks[0]
    expected, off = oracle.mode_covs(problem, theta, 1.0), []
    for seed in range(20):
        probes = (random_probes(rows, rows, seed) for rows in (m.q, first.k * first.levels))
        _, (S, errors) = calls.run(after, t, m, *probes)
        rows = zip(S, expected, errors, strict=True)
        off.append(
            np.concatenate(
                [
                    np.mean((np.einsum("mkk->mk", a[:-EMPTY] - b) / e[:-EMPTY]) ** 2, 0)
                    for a, b, e in rows
                ]
            )
        )
    # By column, of 160 levels or more; 16 probes know their spread to a fifth.
    spread = np.sqrt(np.mean(off, 0))
    assert 0.8 < spread.min() < spread.max() < 1.4


def test_a_variance_far_below_the_others_is_known_in_proportion():
    problem = problem_of("crossed_slopes")
    m, theta = arrays.sparse(problem, EMPTY), oracle.random_theta(problem, 3)
    theta[:3] = [30.0, -1e-4, 0.0]  # a slope is the intercept times -3e-6
    first = m.layout.blocks[0]
    probes = (random_probes(rows, rows, 5) for rows in (m.q, first.k * first.levels))
    _, (S, errors) = calls.run(after, calls.run(conditioned, theta, m), m, *probes)
    variances, of_errors = (a[:-EMPTY].T for a in (np.einsum("mkk->mk", S[0]), errors[0]))
    ratio = (1e-4 / 30.0) ** 2
    assert np.all(variances > 0)
    rounding = np.finfo(float).eps / ratio  # of the large variances, seen by the small ones
    assert_allclose(variances[1], ratio * variances[0], rtol=rounding)
    assert_allclose(of_errors[1], ratio * of_errors[0], rtol=1e-6)


def test_the_deviance_has_the_gradient_as_its_derivative_and_differences_of_it_as_the_second():
    problem = oracle.random_design(0, "crossed")
    m = arrays.sparse(problem, EMPTY)
    theta = oracle.random_theta(problem, 3)

    @arrays.quick_jit
    def derivatives(theta, m, probes):
        def f(theta):
            return stochastic.deviance(
                coordinates.to_conditioned(theta, m.layout, m.A), m, probes, True
            )

        return jax.jacfwd(f)(theta), jax.hessian(f)(theta)

    def expected(theta):
        return oracle.deviance(problem, theta, True)

    gradient, hessian = calls.run(derivatives, theta, m, exact_probes(m.q))
    evaluated = calls.run(evaluate, theta, m, exact_probes(m.q), True, 0.0)[1]
    assert_allclose(gradient, evaluated, rtol=1e-13)
    # Differences over 1e-3 of theta are wrong by a part in a million; what probes leave unsolved,
    # 1e-5, hardly changes.
    assert_allclose(hessian, oracle.hessian(expected, theta), rtol=1e-3, atol=1e-3)


def test_what_conjugate_gradients_leave_unsolved_counts_squared(monkeypatch):
    problem = problem_of("weighted_three")
    m = arrays.sparse(problem, EMPTY)
    t = calls.run(conditioned, oracle.random_theta(problem, 3), m)

    def left():
        found = arrays.quick_jit(
            lambda t, m, probes: stochastic.solve(stochastic.factor(t, m), m, probes).S
        )
        return calls.run(found, t, m, exact_probes(m.q))

    exact = left()
    monkeypatch.setattr(stochastic, "TIGHT", 1e-3)
    monkeypatch.setattr(stochastic, "ROUGH", 0.1)
    # A part of 1e-3 unsolved changes the columns of X by y by 3e-5, where it counts once.
    assert_allclose(left(), exact, rtol=0, atol=1e-6 * np.abs(exact).max())


def test_a_factor_without_variance_costs_nothing():
    problem = problem_of("crossed_slopes")
    m, theta = arrays.sparse(problem, EMPTY), np.zeros(problem.d)
    value, gradient, *_ = calls.run(evaluate, theta, m, exact_probes(m.q), False, 0.0)
    assert_allclose(value, oracle.deviance(problem, theta, False), rtol=1e-12)
    assert_allclose(gradient, 0, atol=1e-9)
