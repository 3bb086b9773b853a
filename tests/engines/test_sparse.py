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


def test_intervals_of_predictions_are_those_of_the_dense_formula_and_the_dense_core(both):
    """New pairs of levels, some of them unseen; ends of intervals need degrees of freedom too."""
    r = np.random.default_rng(2)
    new = pd.DataFrame({name: r.integers(0, m, 30) for name, m in dict(a=41, b=21, c=10).items()})
    new["x"] = r.normal(size=30)
    found, expected = (fit.predict(new, interval="confidence") for fit in both)
    assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert_allclose(found["se"], _standard_errors(both[0], new), rtol=1e-8)
    old = pd.DataFrame({f.name: f.levels[f.codes] for f in both[0].design.factors})
    old["x"], weights = both[0].design.X[:, 1], both[0].design.w
    se = both[0].predict(interval="prediction")["se"]
    of_mean = _standard_errors(both[0], old)
    assert_allclose(se**2, of_mean**2 + both[0].scale / weights, rtol=1e-8)


def _standard_errors(fit, new):
    """By Henderson's equations, with a column for every level, seen or not."""
    lengths = 41, 21, 10
    scales = dict(zip([f.name for f in fit.design.factors], fit.theta, strict=True))

    def rows(x, codes):
        hot = [scales[k] * np.eye(m)[codes[k]] for k, m in zip("abc", lengths, strict=True)]
        return np.column_stack([np.ones(len(x)), x, *hot])

    codes = {f.name: f.levels.to_numpy()[f.codes] for f in fit.design.factors}
    h, a = rows(fit.design.X[:, 1], codes), rows(new["x"], new)
    H = h.T @ (fit.design.w[:, None] * h) + np.diag(np.append([0.0, 0.0], np.ones(sum(lengths))))
    return fit.sigma * np.sqrt(np.einsum("ni,in->n", a, np.linalg.solve(H, a.T)))


def test_profiles_are_those_of_the_dense_core(both):
    found, expected = (fit.confint(method="profile", parm=["sd_(Intercept)|b"]) for fit in both)
    assert_allclose(found, expected, rtol=1e-5)


def test_what_needs_a_matrix_says_so(both):
    with pytest.raises(ValueError, match='a leverage needs the dense core.*core="sparse"'):
        both[0].leverage()


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
