"""Classes of pairs of rows whose entries of R^-1 are one function."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import arrays, residual_oracle
from helpers.arrays import quick_jit
from helpers.row_pairs import _moments, _value, drawn, plan_of
from numpy.testing import assert_allclose

from interlace_jax.numerics.covariance.residual import precisions
from interlace_jax.numerics.crossproducts import layout
from interlace_jax.numerics.crossproducts.row_layout import class_layout, row_layout, row_pairs
from interlace_jax.numerics.crossproducts.row_pairs import ClassPlan
from interlace_jax.runtime.calls import run

_precisions = quick_jit(precisions)


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
