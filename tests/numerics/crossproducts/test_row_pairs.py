"""Correlated rows by classes of pairs and by whitening: both give the deviance of the dense
model.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import arrays, oracle, residual_oracle
from helpers.arrays import quick_jit
from helpers.row_pairs import _moments, _value, drawn, plan_of
from numpy.testing import assert_allclose

from interlace_jax.numerics.crossproducts.row_layout import class_layout, row_layout, row_pairs
from interlace_jax.numerics.crossproducts.row_pairs import ClassPlan
from interlace_jax.numerics.crossproducts.whitening import RowPlan
from interlace_jax.numerics.likelihood.coordinates import to_conditioned
from interlace_jax.numerics.likelihood.random_effects import modes
from interlace_jax.runtime.calls import run

# Every structure, and every kind of random effects, with the other varied as it comes.
CASES = [(name, kind) for name in ("us", "ad") for kind in residual_oracle.KINDS]
CASES += [(name, kind) for name in ("cs", "ar1", "toep", "arma11") for kind in ("none", "slope")]


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


_slope = quick_jit(jax.grad(_value.__wrapped__))
_hessian = quick_jit(jax.hessian(_value.__wrapped__))
_modes = quick_jit(lambda theta, m: modes(to_conditioned(theta, m.layout, m.A), m))


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


def test_pairs_in_chunks_add_up(monkeypatch):
    rows = residual_oracle.rows("slope")
    structure, psi, theta, dense = drawn("toep", rows)
    monkeypatch.setattr("interlace_jax.numerics.crossproducts.row_layout.CHUNK", 16)
    found = run(_value, np.append(theta, psi), by_class(rows, structure), True)
    assert_allclose(found, dense.deviance(theta, True), rtol=0, atol=1e-10)
