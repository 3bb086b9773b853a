"""The deviance and its derivatives against the dense oracle: every kind of design, both cores,
padded or not.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.covariance import parameters
from interlace_jax.numerics.crossproducts import layout, moments
from interlace_jax.numerics.likelihood import coordinates, elimination, gaussian
from interlace_jax.runtime import calls

# One of each kind of code: unrolled and LAPACK blocks, a chain, a dense core. Other files
# differentiate the rest.
HESSIANS = (
    "slope",
    "weights",
    "zero_weights",
    "offset",
    "unbalanced",
    "several_terms",
    "nested",
    "crossed_slopes",
)

every_kind = pytest.mark.parametrize("kind", oracle.KINDS)
crossed_kinds = pytest.mark.parametrize("kind", [k for k in oracle.KINDS if "crossed" in k])


def check(problem, pad=False, m=None):
    """Everything that follows from theta, by ML and REML, against the oracle."""
    m = arrays.condition(problem, pad) if m is None else m
    used, theta = problem.used(), oracle.random_theta(problem, 3)
    for reml in (True, False):
        found = arrays.kernel(theta, m, reml)

        def expected(theta, reml=reml):
            return oracle.deviance(used, theta, reml)

        # Rounding of a sum of 60 logarithms of size 1 to 10; the oracle's differences are good to
        # 1e-10 and 1e-7.
        assert_allclose(found["deviance"], expected(theta), rtol=0, atol=1e-10)
        gradient = oracle.gradient(expected, theta)
        assert_allclose(found["gradient"], gradient, rtol=1e-8, atol=1e-8)
        assert_allclose(
            found["joint"], oracle.joint_deviance(used, theta, 1.7, reml), rtol=0, atol=1e-10
        )
        sigma = oracle.sigma(used, theta, reml)
        assert_allclose(found["sigma"], sigma, rtol=1e-11)
        assert_allclose(found["beta"], oracle.gls(used, theta).beta, rtol=1e-9, atol=1e-10)
        assert_allclose(found["vcov"], oracle.beta_cov(used, theta, sigma), rtol=1e-9, atol=1e-12)
    check_modes(found, used, theta, sigma)


def check_modes(found, used, theta, sigma):
    for i, (b, S) in enumerate(
        zip(oracle.modes(used, theta), oracle.mode_covs(used, theta, sigma), strict=True)
    ):
        m = used.factors[i].m
        assert_allclose(found["modes"][i][:m], b, rtol=1e-9, atol=1e-10)
        assert_allclose(sigma**2 * found["mode_covariances"][i][:m], S, rtol=1e-8, atol=1e-10)
        if len(found["modes"][i]) > m:
            assert_allclose(found["modes"][i][m:], 0, atol=1e-14)


@every_kind
def test_everything_at_a_theta_is_the_oracles(kind):
    check(oracle.random_design(0, kind))


@pytest.mark.parametrize("kind", HESSIANS)
@pytest.mark.parametrize("reml", [True, False])
def test_the_hessian_is_the_oracles(kind, reml):
    problem = oracle.random_design(0, kind)
    used, theta = problem.used(), oracle.random_theta(problem, 3)
    expected = oracle.hessian(lambda theta: oracle.deviance(used, theta, reml), theta)
    found = calls.run(arrays.hessian, theta, arrays.condition(problem), reml)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_hessian_of_a_sparse_core_is_the_oracles(monkeypatch):
    monkeypatch.setattr(layout, "FLOPS_PER_PAIR", 0)
    problem = oracle.random_design(0, "crossed_slopes")
    theta = oracle.random_theta(problem, 3)
    expected = oracle.hessian(lambda theta: oracle.deviance(problem, theta, True), theta)
    assert_allclose(
        calls.run(arrays.hessian, theta, arrays.condition(problem), True),
        expected,
        rtol=1e-6,
        atol=1e-6,
    )


@crossed_kinds
@pytest.mark.parametrize("flops", [0, 1e9], ids=["sparse", "dense"])
def test_both_cores_give_the_oracles_numbers(kind, flops, monkeypatch):
    problem = oracle.random_design(0, kind)
    chosen = bool(arrays.plan(problem).layout.entries)
    monkeypatch.setattr(layout, "FLOPS_PER_PAIR", flops)
    if bool(arrays.plan(problem).layout.entries) == chosen:
        pytest.skip("is what the plan chooses anyway")
    check(problem)


@pytest.mark.parametrize("kind", ["slope", "nested_crossed"])
@pytest.mark.parametrize("flops", [0, 1e9], ids=["sparse", "dense"])
def test_padding_changes_nothing(kind, flops, monkeypatch):
    if kind == "slope" and flops:
        pytest.skip("there is no core")
    monkeypatch.setattr(layout, "FLOPS_PER_PAIR", flops)
    # 17 levels go into a bucket of 18.
    rng = np.random.default_rng(0)
    problem = oracle.random_design(0, kind)
    codes = rng.permutation(np.arange(60) % 17)
    factors = (replace(problem.factors[0], codes=codes, m=17), *problem.factors[1:])
    problem = replace(problem, factors=factors)
    assert arrays.plan(problem, pad=True).layout.blocks != arrays.plan(problem).layout.blocks
    theta = oracle.random_theta(problem, 3)
    both = arrays.condition(problem), arrays.condition(problem, pad=True)
    exact, padded = (calls.run(_value_and_gradient, theta, m, True) for m in both)
    # The padded levels add log 1 and 0; only the order of summation may differ.
    assert_allclose(padded[0], exact[0], rtol=1e-12)
    assert_allclose(padded[1], exact[1], rtol=1e-12, atol=1e-12)


_value_and_gradient = arrays.quick_jit(jax.value_and_grad(arrays.of_theta))


def test_five_columns_on_one_factor_are_the_oracles():
    problem = oracle.random_design(0, "four_columns")
    Z = np.column_stack([problem.factors[0].Z, problem.factors[0].Z[:, 1] ** 2])
    problem = replace(
        problem, factors=(replace(problem.factors[0], Z=Z, terms=((0, 1, 2, 3, 4),)),)
    )
    theta, m = oracle.random_theta(problem, 3), arrays.condition(problem)
    value, gradient = calls.run(_value_and_gradient, theta, m, True)
    assert_allclose(value, oracle.deviance(problem, theta, True), atol=1e-10, rtol=0)
    assert_allclose(
        gradient,
        oracle.gradient(lambda x: oracle.deviance(problem, x, True), theta),
        rtol=1e-8,
        atol=1e-8,
    )


def test_theta_zero_is_ordinary_least_squares():
    problem = oracle.random_design(0, "slope")
    m, theta = arrays.condition(problem), np.zeros(3)
    found = arrays.kernel(theta, m, False)
    _, (r2,), *_ = np.linalg.lstsq(problem.X, problem.y)
    assert_allclose(found["deviance"], 60 * (1 + np.log(2 * np.pi * r2 / 60)), rtol=1e-12)
    assert_allclose(found["gradient"], 0, atol=1e-12)
    assert_allclose(found["modes"][0], 0, atol=0)


def test_the_deviance_is_even_in_every_column_of_lambda():
    problem = oracle.random_design(0, "several_terms")
    m, theta = arrays.condition(problem), oracle.random_theta(problem, 3)
    for column in ([0, 1], [2], [3, 4], [5]):
        flipped = theta.copy()
        flipped[column] *= -1
        assert_allclose(
            *(calls.run(_value_and_gradient, x, m, True)[0] for x in (theta, flipped)), rtol=1e-12
        )


@pytest.mark.parametrize("kind", ["slope", "crossed_slopes"])
def test_derivatives_in_the_data_are_exact_although_the_conditioning_is_held_constant(kind):
    problem = replace(
        oracle.random_design(0, kind), weights=oracle.random_design(0, "weights").weights
    )
    theta, plan = oracle.random_theta(problem, 3), arrays.plan(problem)
    y, X, Z, w, _ = arrays.rows(problem)
    rng = np.random.default_rng(0)
    along = [rng.normal(size=np.shape(a)) for a in (y, X, *Z)] + [rng.uniform(size=w.shape) * w]

    def moved(x):
        """The problem with each array moved x[i] along its own random direction."""
        y_, X_, *Z_, w_ = (a + step * v for a, step, v in zip((y, X, *Z, w), x, along, strict=True))
        factors = tuple(replace(f, Z=z) for f, z in zip(problem.factors, Z_, strict=True))
        return replace(problem, y=y_, X=X_, factors=factors, weights=w_)

    @arrays.quick_jit
    def slopes(plan, theta):
        def f(x):
            return arrays.of_theta(theta, moments.moments(plan, *_arrays_of(moved(x))), True)

        return jax.grad(f)(jnp.zeros(len(along))), jax.jacfwd(f)(jnp.zeros(len(along)))

    expected = oracle.gradient(
        lambda x: oracle.deviance(moved(x), theta, True), np.zeros(len(along)), step=0.01
    )
    reverse, forward = calls.run(slopes, plan, theta)
    assert_allclose(reverse, expected, rtol=1e-6, atol=1e-6)
    assert_allclose(forward, expected, rtol=1e-6, atol=1e-6)


def _arrays_of(problem):
    return problem.y, problem.X, [f.Z for f in problem.factors], problem.weights


def test_float32_moments_give_the_deviance_to_float32_accuracy():
    problem = oracle.random_design(0, "slope")
    theta = oracle.random_theta(problem, 3)
    with jax.enable_x64(False):
        y, X, Z, w, shift = (
            jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), part)
            for part in arrays.rows(problem)
        )
        m = jax.jit(moments.moments)(arrays.plan(problem), y, X, Z, w, shift)
        value = _value_and_gradient(jnp.asarray(theta, jnp.float32), m, True)[0]
    assert value.dtype == jnp.float32
    # Thanks to the conditioning: 60 rows of order 1, one part in 10^7 each.
    assert_allclose(value, oracle.deviance(problem, theta, True), rtol=1e-5)


def test_an_impossible_residual_is_nan():
    m = arrays.condition(oracle.random_design(0, "slope"))
    broken = replace(m, yy=np.float64(-1.0))
    assert np.isnan(calls.run(arrays.quick_jit(gaussian.deviance), np.ones(3), broken, True))


def dense_inverse(plan, basis, Lams, Ls, r):
    """M^-1 r by one dense matrix, r per block (k, m)."""
    blocks, n = plan.layout.blocks, len(basis.w)
    Ls = [None] * plan.layout.chain + list(Ls)
    wide = []
    for z, code, block, Lam, L in zip(basis.Z, plan.codes, blocks, Lams, Ls, strict=True):
        Z = np.zeros((n, block.levels, block.k))
        Z[np.arange(n), np.asarray(code)] = np.asarray(z)
        Z = Z @ np.asarray(Lam) if L is None else np.einsum("nmk,kj,ml->nlj", Z, Lam, L)
        wide.append(Z.reshape(n, -1))
    whole = np.hstack(wide)
    M = np.eye(whole.shape[1]) + whole.T @ (np.asarray(basis.w)[:, None] * whole)
    found = np.linalg.solve(M, np.concatenate([b.T.ravel() for b in r]))
    parts = np.split(found, np.cumsum([a.size for a in r])[:-1])
    return [part.reshape(b.T.shape).T for part, b in zip(parts, r, strict=True)]


@jax.jit
def solved(t, m, plan, rows, r):
    Lams, Ls = parameters.conditioned_factors(t, m.layout.blocks, m.A), coordinates.roots(t, m)
    y, X, Z, w, _ = rows
    return (
        elimination.solve(elimination.eliminate(Lams, Ls, m), r),
        Lams,
        Ls,
        moments.condition(plan, X, Z, w),
    )


@pytest.mark.parametrize("kind", [k for k in oracle.KINDS if k not in ("zero_weights",)])
@pytest.mark.parametrize("flops", [0, 1e9], ids=["sparse", "dense"])
def test_solve_is_the_inverse_of_m(kind, flops, monkeypatch):
    monkeypatch.setattr(layout, "FLOPS_PER_PAIR", flops)
    problem, rng = oracle.random_design(0, kind), np.random.default_rng(5)
    theta, plan = oracle.random_theta(problem, 3), arrays.plan(problem, True)
    m = arrays.condition(problem, True)
    t = calls.run(
        jax.jit(lambda theta, m: coordinates.to_conditioned(theta, m.layout, m.A)), theta, m
    )
    r = [rng.normal(size=(b.k, b.levels)) for b in m.layout.blocks]
    found, Lams, Ls, basis = calls.run(solved, t, m, plan, arrays.rows(problem), r)
    for mine, theirs in zip(found, dense_inverse(plan, basis, Lams, Ls, r), strict=True):
        assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)
