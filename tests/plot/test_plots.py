"""Every plot is built and drawn, and shows the numbers of the fit."""

import importlib
import io
import sys

import matplotlib.pyplot as plt
import pytest
from helpers.fits import fitted
from helpers.plots import (
    PLACES,
    SLEEP,
    crossed,
    influence_table,
    intercepts,
    many,
    many_groups,
    means,
    profiled,
    serial,
)

from interlace_jax import plot
from interlace_jax.plot import diagnostics

PLOTS = {
    "caterpillar": lambda: plot.caterpillar(fitted(SLEEP)),
    "caterpillar of another factor": lambda: plot.caterpillar(crossed(), "item", level=0.9),
    "caterpillar without names": lambda: plot.caterpillar(many_groups()),
    "fitted lines": lambda: plot.fitted_lines(fitted(SLEEP)),
    "fitted lines of categories": lambda: plot.fitted_lines(crossed()),
    "fitted lines of a sample": lambda: plot.fitted_lines(many_groups()),
    "shrinkage of two effects": lambda: plot.shrinkage(fitted(SLEEP)),
    "shrinkage of one": lambda: plot.shrinkage(fitted(SLEEP), terms="Days"),
    "shrinkage of one in many groups": lambda: plot.shrinkage(many_groups()),
    "residuals": lambda: plot.residuals(many_groups()),
    "residuals that covary": lambda: plot.residuals(serial()),
    "correlation by lag": lambda: plot.correlation_by_lag(serial()),
    "SD by visit": lambda: plot.sd_by_visit(serial()),
    "qq": lambda: plot.qq(crossed()),
    "profile": lambda: plot.profile(profiled()),
    "density": lambda: plot.density(profiled()),
    "influence": lambda: plot.influence(influence_table(10)),
    "influence of many": lambda: plot.influence(influence_table(200), "Days"),
    "variance components": lambda: plot.variance_components(crossed()),
    "coefficients": lambda: plot.coefficients(many_groups()),
    "coefficients of two": lambda: plot.coefficients(fitted(SLEEP), intercepts(), intercept=True),
    "effect of a number": lambda: plot.effects(fitted(SLEEP), "Days", points=True),
    "effect of a factor by numbers": lambda: plot.effects(many_groups(), "kind", "x", points=True),
    "effect of a number by a factor": lambda: plot.effects(many_groups(), "x", "kind", points=True),
    "marginal means": lambda: plot.emmeans(means("kind")),
    "marginal means over a number": lambda: plot.emmeans(means("x", "kind", at={"x": [0, 3]})),
    "volcano": lambda: plot.volcano(many(), "Days"),
    "heat map": lambda: plot.heatmap(many()),
    "heat map of places": lambda: plot.heatmap(many(), "Days", PLACES),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plot_is_drawn_without_warnings(name):
    picture = io.BytesIO()
    PLOTS[name]().save(picture, format="png", dpi=40, verbose=False)
    plt.close("all")
    assert len(picture.getvalue()) > 2000


@pytest.mark.parametrize("name", PLOTS)
def test_plot_has_a_title_and_can_be_added_to(name):
    drawn = PLOTS[name]()
    assert drawn.labels.title
    assert (drawn + diagnostics.p9.labs(title="Mine")).labels.title == "Mine"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plot.caterpillar(fitted(SLEEP), "Days"), "factor must be 'Subject', not 'Days'"),
        (lambda: plot.fitted_lines(fitted(SLEEP), "day"), "x must be 'Days', not 'day'"),
        (lambda: plot.fitted_lines(fitted(SLEEP), groups=["S1"]), "'Subject' has no level 'S1'"),
        (
            lambda: plot.shrinkage(fitted(SLEEP), terms=["day"]),
            "terms must be one or two of '(Intercept)', 'Days'",
        ),
        (
            lambda: plot.influence(influence_table(10), "cook"),
            "measure must be one of 'cooksd', 'covratio', 'Days'",
        ),
        (
            lambda: plot.volcano(many(), "days"),
            "coefficient must be 'Intercept' or 'Days', not 'days'",
        ),
        (
            lambda: plot.heatmap(many(), where=PLACES),
            "where= needs a coefficient, one of 'Intercept', 'Days'",
        ),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)


def test_a_missing_plotnine_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotnine", None)
    monkeypatch.delitem(sys.modules, "interlace_jax.plot")
    with pytest.raises(ImportError, match="pip install plotnine"):
        importlib.import_module("interlace_jax.plot")


OF_FITS = [
    "caterpillar",
    "shrinkage",
    "fitted_lines",
    "residuals",
    "qq",
    "profile",
    "density",
    "variance_components",
]


@pytest.mark.parametrize("name", OF_FITS)
def test_plots_of_a_fit_say_so_of_anything_else(name):
    for given in (many(), fitted(SLEEP).model, fitted(SLEEP).model.data):
        with pytest.raises(
            TypeError, match=r"takes a fit, as interlace_jax.fit\(...\) gives it, not"
        ):
            getattr(plot, name)(given)


@pytest.mark.parametrize(
    ("draw", "source"),
    [
        (plot.influence, r"fit.influence\(...\)"),
        (plot.emmeans, r"interlace_jax.emmeans\(fit, ...\)"),
        (plot.heatmap, r"interlace_jax.fit_many\(...\)"),
        (lambda fit: plot.volcano(fit, "Days"), r"interlace_jax.fit_many\(...\)"),
    ],
)
def test_plots_of_something_made_from_a_fit_say_how_it_is_made(draw, source):
    with pytest.raises(TypeError, match=f"{source} gives .*, not Fit"):
        draw(fitted(SLEEP))


# Coefficients and effects
