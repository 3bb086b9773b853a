"""Curvature of models with residual covariances along straight cross-products: the same numbers."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.engines import dense, residual_packing


@pytest.mark.parametrize(
    ("formula", "rows"), [("y ~ x + (1 | id)", False), ("y ~ x", True)], ids=["by class", "by row"]
)
def test_it_is_the_curvature(formula, rows, monkeypatch):
    rng = np.random.default_rng(0)
    d = pd.DataFrame({"id": np.repeat(np.arange(20), 3), "t": np.tile(np.arange(3), 20)})
    d["x"], d["w"] = rng.normal(size=60), rng.uniform(0.5, 2, 60)
    d["y"] = rng.normal(size=60) + rng.normal(size=20)[d["id"]]
    d = d[rng.random(60) < 0.9]
    residual = "ar1h(t | id)" if "|" in formula else "us(t | id)"
    if rows:
        monkeypatch.setattr(residual_packing, "FEW", 0)
        monkeypatch.setattr(residual_packing, "ROWS_PER_CLASS", 0)
    model = interlace.compile(formula, d, residual=residual, weights="w")
    assert hasattr(model.engine.products.residual, "plan") == rows
    e = model.engine.estimate(True, None)
    expected = model.engine.curvature(e, True)
    monkeypatch.setattr(dense, "LARGE_CURVATURE", 0)
    found = model.engine.curvature(e, True)
    for a, b in zip(found, expected, strict=True):
        assert_allclose(a, b, rtol=1e-8, atol=1e-10 * np.abs(b).max())
