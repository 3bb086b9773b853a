"""Residuals and influence as they are drawn."""

import numpy as np
from helpers.fits import fitted
from helpers.plots import SLEEP, influence_table, many_groups

from interlace_jax import plot
from interlace_jax.plot import data as data_module
from interlace_jax.plot import diagnostics


def test_residual_plot_shows_weighted_residuals():
    fit = many_groups()
    drawn = plot.residuals(fit).data
    np.testing.assert_array_equal(drawn["x"], fit.fittedvalues)
    np.testing.assert_allclose(
        drawn["y"], fit.resid * np.sqrt(fit.model.design.weights), rtol=1e-14
    )


def test_very_many_rows_are_drawn_as_a_sample(monkeypatch):
    monkeypatch.setattr(diagnostics, "DRAWN", 100)
    drawn = plot.residuals(fitted(SLEEP))
    assert len(drawn.data) == 100
    assert drawn.labels.title == "Residuals against fitted values, 100 of 180 rows"
    monkeypatch.setattr(data_module, "ENDS", 10)
    table = data_module.quantiles(fitted(SLEEP), 0.95)
    shown, r = (
        table.loc[table["panel"] == "residuals", "y"].to_numpy(),
        np.sort(fitted(SLEEP).resid),
    )
    assert len(shown) < 45
    np.testing.assert_allclose(shown[[0, 9, -10, -1]], r[[0, 9, -10, -1]] / r.std())


def test_influence_of_rows_with_equal_labels_is_drawn():
    table = influence_table(10).set_axis([1] * 10)
    drawn = plot.influence(table)
    assert len(drawn.data) == drawn.data["key"].nunique() == 10
    assert drawn.labels.title == "Influence of each observation: Cook's distance"


def test_influence_colours_what_is_far_out():
    drawn = plot.influence(influence_table(10), "covratio").data
    assert drawn.loc[drawn["outside"] == "yes", "name"].tolist() == ["g3"]
