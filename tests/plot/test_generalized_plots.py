"""Plots of generalised models are drawn, and show what the fit says on the scale that they name."""

import functools
import io
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, special

import interlace_jax as interlace
from interlace_jax import plot
from interlace_jax.plot import data, generalized, style

GROUPS, SIZE = 9, 12


@functools.cache
def rows():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(GROUPS), SIZE)
    x = rng.normal(size=len(g)).round(2)
    eta = 0.4 * x + rng.normal(size=GROUPS)[g]
    return pd.DataFrame(
        {
            "g": [f"ward {i}" for i in g],
            "x": x,
            "kind": np.where(rng.random(len(g)) < 0.5, "old", "new"),
            "answer": np.where(rng.random(len(g)) < special.expit(eta), "yes", "no"),
            "count": rng.poisson(np.exp(eta + 1.0)),
            "rating": pd.Categorical.from_codes(
                np.digitize(eta + rng.logistic(size=len(g)), [-1, 1]), ["low", "mid", "high"], True
            ),
        }
    )


@functools.cache
def binary():
    return quiet("answer ~ x + kind + (1 | g)", "binomial")


@functools.cache
def counts():
    return quiet("count ~ x + kind + (1 + x | g)", "poisson")


@functools.cache
def ratings():
    return quiet("rating ~ x + kind + (1 | g)", "ordinal")


def quiet(formula, family):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return interlace.fit(formula, rows(), family=family)


PLOTS = {
    "residuals": lambda: plot.residuals(binary()),
    "residuals of ratings": lambda: plot.residuals(ratings()),
    "qq": lambda: plot.qq(counts()),
    "rootogram": lambda: plot.rootogram(counts(), 50),
    "caterpillar": lambda: plot.caterpillar(counts()),
    "effects": lambda: plot.effects(binary(), "x", "kind", points=True),
    "effects of a factor": lambda: plot.effects(counts(), "kind", points=True),
    "effects of ratings": lambda: plot.effects(ratings(), "x"),
    "lines": lambda: plot.fitted_lines(binary()),
    "shrinkage of two effects": lambda: plot.shrinkage(counts()),
    "shrinkage of one": lambda: plot.shrinkage(ratings()),
    "odds ratios": lambda: plot.coefficients(binary(), exponentiate=True),
    "variance components": lambda: plot.variance_components(binary()),
    "marginal means": lambda: plot.emmeans(interlace.emmeans(binary(), "kind", type="response")),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plot_is_drawn_without_warnings(name):
    picture = io.BytesIO()
    PLOTS[name]().save(picture, format="png", dpi=30, verbose=False)
    plt.close("all")
    assert len(picture.getvalue()) > 1500


def test_means_are_probabilities_and_coefficients_log_odds():
    means = plot.effects(binary(), "x").data
    new = pd.DataFrame({"x": means["x"], "kind": "old"})
    both = [
        binary().predict(new.assign(kind=k), type="link", include_re=False) for k in ("old", "new")
    ]
    assert_allclose(means["emmean"], special.expit(np.mean(both, 0)))
    assert 'probability of answer = "yes"' in plot.effects(binary(), "x").labels.y
    assert 'log odds of answer = "yes"' in plot.coefficients(binary()).labels.y
    ratios = plot.coefficients(binary(), exponentiate=True)
    assert ratios.labels.y.startswith("odds ratio")
    assert_allclose(
        ratios.data.set_index("term").loc["x", "estimate"], np.exp(binary().fe_params["x"])
    )
    assert list(plot.caterpillar(counts()).data["panel"].cat.categories) == [
        "(Intercept) [log count]",
        "x [log count / x]",
    ]
    assert plot.effects(ratings(), "x").labels.y.startswith("mean log odds of rating")


def test_lines_are_predictions_and_end_with_the_data_of_their_group():
    drawn = plot.fitted_lines(counts(), "x")
    curves = drawn.layers[2]._data
    assert_allclose(
        curves["fitted"],
        counts().predict(
            curves.rename(columns={"group": "g"}).assign(kind=data._middle(rows()["kind"]))
        ),
    )
    ends = curves.groupby("group", observed=True)["x"].agg(["min", "max"])
    own = rows().groupby("g")["x"].agg(["min", "max"])
    assert_allclose(ends.to_numpy(), own.loc[ends.index].to_numpy())
    with pytest.raises(ValueError, match="ordinal response has no line of means"):
        plot.fitted_lines(ratings())


def test_own_estimates_are_by_maximum_likelihood_in_the_level_alone():
    fit = binary()
    own = generalized.own_estimates(fit, 0)
    rest = (fit.linear_predictor - fit.random_effects["g"].loc[rows()["g"]].to_numpy()).to_numpy()
    y = (rows()["answer"] == "yes").to_numpy()
    for i, level in enumerate(fit.design.factors[0].levels):
        here = (rows()["g"] == level).to_numpy()

        def score(b, here=here):
            return np.sum(y[here] - special.expit(rest[here] + b))

        if 0 < y[here].sum() < here.sum():
            assert own[i, 0] == pytest.approx(optimize.brentq(score, -20, 20), abs=1e-6)
        else:
            assert np.isnan(own[i, 0])
    assert np.isfinite(own).sum() >= 5


def test_a_rootogram_has_every_row_once():
    table = generalized.frequencies(counts(), 40, 0.9, 1)
    y = rows()["count"]
    assert table["observed"].sum() == len(y) and table["expected"].sum() == pytest.approx(len(y))
    assert_allclose(table["observed"].iloc[:10], [(y == k).sum() for k in range(10)])
    assert (table["lower"] <= table["upper"]).all()
    hanging = plot.rootogram(counts(), 40).data
    assert_allclose(hanging["expected"] - hanging["bottom"], np.sqrt(hanging["observed"]))
    with pytest.raises(ValueError, match="a rootogram is for counts"):
        plot.rootogram(ratings())


def test_names_that_differ_in_their_middle_can_be_told_apart():
    long = [f"the subject called number {i} of the eastern ward" for i in (1, 2)]
    assert style._shortened(long) == ["…1…", "…2…"]
    assert style._shortened(["a", "b"]) == ["a", "b"]
    assert style._shortened(long[:1]) == [style._short(long[0])]
