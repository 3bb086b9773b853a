"""A fit by sparse elimination is the fit by the dense core."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.engines.choice import engine_for


@pytest.fixture(scope="module")
def both():
    r = np.random.default_rng(1)
    a, stray = r.integers(0, 40, 120), r.random(120) < 0.1
    data = pd.DataFrame({"x": r.normal(size=120), "w": r.uniform(0.5, 2.0, 120), "a": a})
    data["b"] = np.where(stray, r.integers(0, 20, 120), a // 2)
    data["c"] = r.integers(0, 9, 120)
    effects = r.normal(size=40)[a] + 2.0 * r.normal(size=20)[data.b] + r.normal(size=9)[data.c]
    data["y"] = data.x + effects + r.normal(size=120)
    formula = "y ~ x + (1 | a) + (1 | b) + (1 | c)"
    return [interlace.fit(formula, data, weights="w", core=core) for core in ("sparse", "dense")]


def test_estimates_errors_and_effects_are_those_of_the_dense_core(both):
    sparse, dense = both
    # the same sums in another order; the searches stop within 1e-9 of the least deviance
    assert_allclose(sparse.deviance, dense.deviance, rtol=0, atol=1e-8)
    for name in ("theta", "fe_params", "fe_bse", "fe_df"):
        assert_allclose(getattr(sparse, name), getattr(dense, name), rtol=1e-5)
    for factor in "abc":
        for name in ("random_effects", "random_effects_se"):
            found, expected = (getattr(fit, name)[factor] for fit in both)
            assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_what_needs_a_matrix_says_so(both):
    with pytest.raises(ValueError, match='a profile needs the dense core.*core="sparse"'):
        both[0].confint(method="profile")


def test_one_factor_alone_is_refused():
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0] * 3, "g": list("aabbcc") * 2})
    with pytest.raises(ValueError, match='core="sparse" .*\'g\' is alone; use core="auto"'):
        interlace.fit("y ~ 1 + (1 | g)", data, core="sparse")


@pytest.mark.parametrize(("stray", "name"), [(0.01, "sparse"), (1.0, "iterative")])
def test_many_levels_go_to_the_sparse_core_where_few_meet_many_others(stray, name):
    r = np.random.default_rng(0)
    a = r.integers(0, 30_000, 60_000)
    many = pd.DataFrame({"y": r.normal(size=len(a)), "a": a})
    many["b"] = np.where(r.random(len(a)) < stray, r.integers(0, 15_000, len(a)), a // 2)
    design = build(parse("y ~ 1 + (1 | a) + (1 | b)"), many)
    assert engine_for(design, "auto").name == name
