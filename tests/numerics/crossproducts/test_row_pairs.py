"""Correlated rows by classes of pairs and by whitening: both give the deviance of the dense
model.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import arrays, oracle, residual_oracle
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose

from interlace_jax.numerics.covariance import correlations
from interlace_jax.numerics.covariance.residual import ResidualCovariance, precisions
from interlace_jax.numerics.covariance.structures import AR1, CompoundSymmetry
from interlace_jax.numerics.crossproducts import layout
from interlace_jax.numerics.crossproducts.moments import moments
from interlace_jax.numerics.crossproducts.row_layout import class_layout, row_layout, row_pairs
from interlace_jax.numerics.crossproducts.row_pairs import ClassPlan
from interlace_jax.numerics.crossproducts.whitening import RowPlan
from interlace_jax.numerics.likelihood.coordinates import to_conditioned
from interlace_jax.numerics.likelihood.gaussian import deviance
from interlace_jax.numerics.likelihood.random_effects import modes
from interlace_jax.runtime.calls import run

M = 4  # visits
STRUCTURES = {
    "us": correlations.FreeCorrelations(),
    "cs": CompoundSymmetry(),
    "ar1": AR1(),
    "toep": correlations.Toeplitz(),
    "ad": correlations.Antedependence(),
    "arma11": correlations.ARMA11(),
}
# Every structure, and every kind of random effects, with the other varied as it comes.
CASES = [(name, kind) for name in ("us", "ad") for kind in residual_oracle.KINDS]
CASES += [(name, kind) for name in ("cs", "ar1", "toep", "arma11") for kind in ("none", "slope")]

_moments = quick_jit(moments)
_precisions = quick_jit(precisions)


def plan_of(problem, subject):
    sizes = [tuple(len(term) for term in f.terms) for f in problem.factors]
    return layout.plan(
        [f.codes for f in problem.factors], sizes, [f.m for f in problem.factors], subject=subject
    )


def layout_of(rows):
    return row_layout(rows.subject, rows.visit, rows.group, rows.visit, rows.visit)


def by_class(rows, structure, merged=()):
    made = layout_of(rows)
    classes = class_layout(made.patterns.seen, merged)
    pairs = row_pairs(made, classes)
    residual = ClassPlan(structure, made.patterns, made.pattern, made.place, classes.classes, pairs)
    plan = replace(plan_of(rows.problem, rows.subject), residual=residual)
    return run(_moments, plan, *arrays.rows(rows.problem))


def by_row(rows, structure):
    made = layout_of(rows)
    residual = RowPlan(structure, made.patterns, made.pattern, made.place)
    plan = replace(plan_of(rows.problem, rows.subject), residual=residual)
    return run(_moments, plan, *arrays.rows(rows.problem))


@quick_jit
def _value(theta, m, reml):
    return deviance(to_conditioned(theta, m.layout, m.A), m, reml)


_slope = quick_jit(jax.grad(_value.__wrapped__))
_hessian = quick_jit(jax.hessian(_value.__wrapped__))
_modes = quick_jit(lambda theta, m: modes(to_conditioned(theta, m.layout, m.A), m))


def drawn(name, rows, seed=3):
    """psi of a heterogeneous structure with parameters by group, theta, and R entry by entry."""
    rng = np.random.default_rng(seed)
    structure = ResidualCovariance(STRUCTURES[name], M, M, 2)
    psi = 0.4 * rng.normal(size=structure.size)
    own = np.append(0.0, psi).reshape(2, -1)
    sds = np.exp(own[:, :1] + np.column_stack([np.zeros(2), own[:, 1:M]]))
    with jax.enable_x64(True):
        natural = [
            np.asarray(STRUCTURES[name].shape_natural(jnp.asarray(x), M)) for x in own[:, M:]
        ]
    R = residual_oracle.covariance(rows, name, sds, np.array(natural))
    theta = oracle.random_theta(rows.problem, seed) if rows.problem.factors else np.zeros(0)
    return structure, psi, theta, residual_oracle.Repeated(rows.problem, R)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_deviance_is_the_dense_models(name, kind):
    rows = residual_oracle.rows(kind, weighted=kind in ("none", "nested"))
    structure, psi, theta, dense = drawn(name, rows)
    made = [by_class(rows, structure)] + ([by_row(rows, structure)] if kind != "crossed" else [])
    for m in made:
        for reml in (True, False):
            found = run(_value, np.append(theta, psi), m, reml)
            # Rounding of a sum of 40 logarithms and quadratic forms of size 1 to 100.
            assert_allclose(found, dense.deviance(theta, reml), rtol=0, atol=1e-10)
        effects = (
            zip(run(_modes, np.append(theta, psi), m), dense.modes(theta), strict=True)
            if len(theta)
            else ()
        )
        for b, expected in effects:
            assert_allclose(b, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["none", "nested"])
def test_both_ways_agree_in_derivatives(kind):
    rows = residual_oracle.rows(kind)
    structure, psi, theta, _ = drawn("us", rows)
    x = np.append(theta, psi)
    a, b = by_class(rows, structure), by_row(rows, structure)
    assert_allclose(run(_slope, x, a, True), run(_slope, x, b, True), rtol=1e-9, atol=1e-9)
    assert_allclose(run(_hessian, x, a, True), run(_hessian, x, b, True), rtol=1e-8, atol=1e-8)
    expected = oracle.gradient(lambda x: float(run(_value, x, a, True)), x)
    assert_allclose(run(_slope, x, a, True), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("name", "most"), [("ar1", 17), ("ad", 20), ("cs", 7)])
def test_entries_of_the_inverse_that_are_one_function_are_one_class(name, most):
    """Markov structures: the diagonal by neighbours (or gaps) before and after, and pairs of
    neighbours. Compound symmetry: the diagonal and the rest by the number of visits seen.
    """
    rows = residual_oracle.rows("intercept")
    structure, psi, theta, dense = drawn(name, rows)
    structure = replace(structure, visits=1, groups=1)
    rows = replace(rows, group=np.zeros(14, int))
    made = row_layout(rows.subject, rows.visit, rows.group, rows.visit, np.zeros_like(rows.visit))
    rng = np.random.default_rng(0)
    probes = [
        run(_precisions, structure, 0.5 + rng.random(structure.size), made.patterns)
        for _ in range(3)
    ]
    merged = class_layout(made.patterns.seen, probes)
    assert merged.size <= most < class_layout(made.patterns.seen).size
    x = np.append(theta, psi[: structure.size])
    plan = plan_of(rows.problem, rows.subject)
    values = []
    for classes in (merged, class_layout(made.patterns.seen)):
        pairs = row_pairs(made, classes)
        residual = ClassPlan(
            structure, made.patterns, made.pattern, made.place, classes.classes, pairs
        )
        m = run(_moments, replace(plan, residual=residual), *arrays.rows(rows.problem))
        values.append(run(_value, x, m, True))
    assert_allclose(*values, rtol=0, atol=1e-10)


def test_a_factor_that_parts_a_subject_is_not_eliminated_level_by_level():
    rows = residual_oracle.rows("crossed")
    assert plan_of(rows.problem, rows.subject).layout.chain == 1
    assert plan_of(rows.problem, np.zeros_like(rows.subject)).layout.chain == 0
    assert layout.plan([f.codes for f in rows.problem.factors], [(1,), (1,)]).layout.chain == 1


def test_pairs_in_chunks_add_up(monkeypatch):
    rows = residual_oracle.rows("slope")
    structure, psi, theta, dense = drawn("toep", rows)
    monkeypatch.setattr("interlace_jax.numerics.crossproducts.row_layout.CHUNK", 16)
    found = run(_value, np.append(theta, psi), by_class(rows, structure), True)
    assert_allclose(found, dense.deviance(theta, True), rtol=0, atol=1e-10)
