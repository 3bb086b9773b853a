"""What a search evaluates may be other sums of the same products."""

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.numerics.crossproducts import merged


def test_a_search_by_classes_of_levels_ends_where_one_by_levels_does(monkeypatch):
    r = np.random.default_rng(0)
    data = pd.DataFrame({"x": r.normal(size=200), "a": r.permutation(200) % 80})
    data["b"] = np.where(r.random(200) < 0.1, r.integers(0, 30, 200), data.a % 30)
    data["y"] = data.x + r.normal(size=80)[data.a] + r.normal(size=30)[data.b] + r.normal(size=200)
    formula = "y ~ x + (1 | a) + (1 | b)"
    expected = interlace.fit(formula, data)
    monkeypatch.setattr(merged, "WIDE", 0)
    monkeypatch.setattr(merged, "FEWER", 1)
    found = interlace.fit(formula, data)
    assert isinstance(found.model.engine.searched, merged.MergedMoments)
    # the same sums in another order; both searches stop within 1e-9 of the least deviance
    assert_allclose(found.deviance, expected.deviance, rtol=0, atol=1e-8)
    for name in ("theta", "fe_params", "fe_bse", "fe_df"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
    for factor in "ab":
        for name in ("random_effects", "random_effects_se"):
            one, other = (getattr(fit, name)[factor] for fit in (found, expected))
            assert_allclose(one, other, rtol=1e-5, atol=1e-7)
