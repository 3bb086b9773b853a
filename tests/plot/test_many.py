"""Many fits as they are drawn."""

import numpy as np
from helpers.plots import PLACES, many

from interlace_jax import plot
from interlace_jax.plot import many as many_module


def test_powers_of_ten_are_short():
    assert many_module._powers([0.0, 0.5, 2.0, 4.5, 300.0]) == [
        "1",
        "0.32",
        "0.01",
        "3.2e-05",
        "1e-300",
    ]


def test_volcano_and_heat_map_show_estimates_and_discoveries():
    fit, drawn = many(), plot.volcano(many(), "Days")
    np.testing.assert_array_equal(drawn.data["x"], fit.fe_params["Days"])
    np.testing.assert_allclose(10.0 ** -drawn.data["y"], fit.fe_pvalues["Days"])
    found = fit.adjusted_pvalues()["Days"] <= 0.05
    assert 4 <= found.sum() < 12
    assert drawn.labels.subtitle.startswith(f"Orange: {found.sum()} models")
    tiles = plot.heatmap(fit, "Days", PLACES).data
    np.testing.assert_array_equal(tiles["t"], fit.fe_tvalues["Days"])
    np.testing.assert_array_equal(tiles["found"], found)
    np.testing.assert_array_equal(tiles["y"], PLACES["electrode"])
