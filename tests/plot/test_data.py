"""What plots show, as tables."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers.cells import an_empty_cell
from helpers.fits import fitted, quiet_fit
from helpers.plots import SLEEP, many_groups, means
from scipy import stats
from statsmodels.nonparametric.smoothers_lowess import lowess

import interlace_jax as interlace
from interlace_jax import plot
from interlace_jax.plot import data as data_module


def test_smooth_line_is_a_local_linear_regression():
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 3, 200)
    y = np.sin(x) + 0.1 * rng.standard_normal(200)
    ours = data_module.smooth(x, y)
    theirs = lowess(y, x, frac=data_module.SPAN, it=0, xvals=ours["x"].to_numpy())
    # they leave out weights below 1e-9, and widen h otherwise
    np.testing.assert_allclose(ours["y"], theirs, atol=1e-3)


def test_qq_bands_are_those_of_order_statistics():
    table = data_module.quantiles(fitted(SLEEP), 0.9)
    effects = table[table["panel"] == "Subject: Days"]
    i, m = np.arange(1, 19), 18
    np.testing.assert_allclose(
        effects["upper"], stats.norm.ppf(stats.beta.ppf(0.95, i, m + 1 - i)), rtol=1e-9
    )
    # standardised by the SD of the predictions, they vary about as much as normal values do
    assert 0.7 < effects["y"].std() < 1.3


def test_a_mean_that_is_not_known_has_its_place_and_no_point():
    fit = quiet_fit("y ~ e * h + (1 | g)", an_empty_cell())
    with pytest.warns(interlace.RankWarning, match="cells without rows"):
        means = interlace.emmeans(fit, "e")
    figure = plot.emmeans(means).draw()  # what plotnine warns of is an error here
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list("abcd")
    assert len(axes.collections[-1].get_offsets()) == 3
    plt.close(figure)


def test_numbers_beside_another_variable_are_in_order_of_size():
    drawn = plot.emmeans(means(["x", "kind"], at={"x": [2, 10, 1]}))
    assert list(drawn.data["x"].cat.categories) == ["1", "2", "10"]
    # quartiles
    assert list(plot.effects(many_groups(), "kind", "x").data["x"].cat.categories) == ["1", "2"]
