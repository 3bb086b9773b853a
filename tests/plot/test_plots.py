"""Every plot is built and drawn, and shows the numbers of the fit."""

import importlib
import io
import sys
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.cells import an_empty_cell
from helpers.fits import fitted, quiet_fit, sleepstudy
from scipy import stats
from statsmodels.nonparametric.smoothers_lowess import lowess

import interlace_jax as interlace
from interlace_jax import plot
from interlace_jax.plot import data as data_module
from interlace_jax.plot import diagnostics, style
from interlace_jax.plot import many as many_module

SLEEP = "sleepstudy_slope_REML"


@cache
def many_groups() -> interlace.Fit:
    """More groups than names can be shown for, a random intercept, a weight and an offset."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(70), 4), np.tile(np.arange(4.0), 70)
    y = x + rng.standard_normal(70)[g] + rng.standard_normal(280)
    frame = pd.DataFrame(
        {
            "y": y,
            "x": x,
            "kind": np.where(g % 2, "odd", "even"),
            "g": g,
            "w": 1.0 + g % 3,
            "o": 0.1 * g,
        }
    )
    return quiet_fit("y ~ x * kind + (1 | g)", frame, weights="w", offset="o")


@cache
def intercepts() -> interlace.Fit:
    return quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy())


@cache
def crossed() -> interlace.Fit:
    return quiet_fit(
        "rt ~ condition + (1 + condition | subject) + (1 | item)", interlace.load_dataset("crossed")
    )


@cache
def serial() -> interlace.Fit:
    return quiet_fit(
        "Reaction ~ Days + (1 | Subject)", sleepstudy(), residual="ar1h(Days | Subject)"
    )


@cache
def many() -> interlace.Many:
    """Twelve models; the first four have an effect."""
    y = fitted(SLEEP).simulate(12, seed=1).to_numpy() - 10.467 * sleepstudy()[["Days"]].to_numpy()
    responses = pd.DataFrame(
        y + np.where(np.arange(12) < 4, 30.0, 0.0) * sleepstudy()[["Days"]].to_numpy()
    )
    responses = responses.rename(columns=lambda i: f"cell {i}")
    return interlace.fit_many(
        "~ Days + (1 + Days | Subject)", sleepstudy(), responses=responses, progress=False
    )


@cache
def influence_table(rows: int) -> pd.DataFrame:
    values = np.random.default_rng(1).uniform(0.0, 0.1, (rows, 2))
    values[3] = 5.0
    names = pd.Index([f"g{i}" for i in range(rows)], name="Subject")
    return pd.DataFrame(values, columns=["cooksd", "covratio"], index=names).assign(
        Days=values[:, 0] - 0.05
    )


def means(specs, by=None, **arguments):
    return interlace.emmeans(many_groups(), specs, by, **arguments)


PLACES = pd.DataFrame(
    {"time (ms)": np.tile([0, 20, 40, 60], 3), "electrode": np.repeat(["Fz", "Cz", "Pz"], 4)}
)
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


@cache
def profiled() -> pd.DataFrame:
    return fitted(SLEEP).profile()


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


def test_caterpillar_shows_random_effects_in_order_of_size():
    fit, table = fitted(SLEEP), plot.caterpillar(fitted(SLEEP), level=0.9).data
    for column, panel in zip(("(Intercept)", "Days"), table["panel"].cat.categories, strict=True):
        shown = table[table["panel"] == panel].set_index("level")
        np.testing.assert_array_equal(
            shown["estimate"], fit.random_effects["Subject"].loc[shown.index, column]
        )
        bounds = fit.random_effects_ci(0.9)["Subject"].loc[shown.index, column]
        np.testing.assert_array_equal(shown[["lower", "upper"]], bounds)
        assert shown.sort_values("key")["estimate"].is_monotonic_increasing
        excludes = (bounds["lower"] > 0) | (bounds["upper"] < 0)
        assert list(shown["clear"] == "yes") == list(excludes)


def test_units_of_random_effects_are_those_of_the_slope():
    panels = plot.caterpillar(fitted(SLEEP)).data["panel"].cat.categories
    assert list(panels) == ["(Intercept) [Reaction]", "Days [Reaction / Days]"]
    panels = plot.caterpillar(crossed()).data["panel"].cat.categories
    assert list(panels) == ["(Intercept) [rt]", "condition[T.incongruent] [rt]"]


@pytest.mark.parametrize(
    "fit", [lambda: fitted(SLEEP), crossed, many_groups], ids=["sleep", "crossed", "many groups"]
)
def test_fitted_lines_are_predictions(fit):
    fit = fit()
    frame = data_module.used_data(fit)
    f, x = fit.model.design.factors[0], data_module.predictor(fit, 0, frame, None)
    shown = data_module.shown_levels(fit, 0, None, 30)
    data, curves, held = data_module.lines(fit, 0, frame, x, shown)
    np.testing.assert_array_equal(data["y"], fit.model.design.y[np.isin(f.codes, shown)])
    level = dict(zip(f.levels.astype(str), f.levels, strict=True))
    first = fit.model.data.drop_duplicates(f.name).set_index(f.name)
    new = pd.DataFrame(
        {f.name: [level[name] for name in curves["group"]], x: curves["x"].to_numpy()}
    )
    new = new.join(first.drop(columns=x), on=f.name)
    if x == "condition":  # other random effects are left at 0
        new = new.assign(item="none")
    assert held == []  # other predictors, if any, do not vary within groups
    np.testing.assert_allclose(curves["fitted"], fit.predict(new), rtol=1e-12)
    np.testing.assert_allclose(curves["average"], fit.predict(new, include_re=False), rtol=1e-12)


def test_fitted_lines_take_ordered_categories_and_polars():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {"g": np.repeat(np.arange(9), 6), "dose": np.tile(["low", "mid", "high"], 18)}
    )
    frame["y"], frame["c"] = rng.standard_normal(54) + frame["g"], rng.standard_normal(54)
    ordered = frame.assign(dose=pd.Categorical(frame["dose"], ["low", "mid", "high"]))
    for data in (ordered, pl.from_pandas(frame)):
        fit = quiet_fit("y ~ c + dose + (1 + dose | g)", data)
        drawn = plot.fitted_lines(fit)
        # which has the slope; c is part of "(Intercept)" only as a letter
        assert drawn.labels.x == "dose"
        _, curves, held = data_module.lines(
            fit, 0, data_module.used_data(fit), "dose", np.arange(9)
        )
        assert len(curves) == 27
        first = curves[curves["x"] == "high"].iloc[0]
        middle = np.sort(frame["c"])[27]
        assert held == [f"c = {middle:g}"]
        alone = pd.DataFrame({"g": [0], "dose": ["high"], "c": [middle]})
        assert first["fitted"] == pytest.approx(fit.predict(alone)[0])
    shown = plot.fitted_lines(quiet_fit("y ~ c + dose + (1 + dose | g)", ordered)).data["x"]
    assert list(shown.cat.categories) == ["low", "mid", "high"]


def test_fitted_lines_have_levels_in_the_order_of_the_model():
    frame = interlace.load_dataset("sleepstudy").assign(late=lambda f: f["Days"].rsub(9) > 4)
    assert frame["late"].iloc[0]  # the later level comes first in the rows
    drawn = plot.fitted_lines(quiet_fit("Reaction ~ late + (1 | Subject)", frame))
    assert list(drawn.data["x"].cat.categories) == ["False", "True"]


def test_powers_of_ten_are_short():
    assert many_module._powers([0.0, 0.5, 2.0, 4.5, 300.0]) == [
        "1",
        "0.32",
        "0.01",
        "3.2e-05",
        "1e-300",
    ]


def test_fitted_lines_say_how_many_groups_they_leave_out():
    drawn = plot.fitted_lines(many_groups(), most=12)
    assert drawn.data["group"].nunique() == 12
    assert "12 of 70 levels of g" in drawn.labels.title
    assert list(plot.fitted_lines(many_groups(), groups=[7, 3]).data["group"].cat.categories) == [
        "7",
        "3",
    ]


def test_shrinkage_starts_at_least_squares_in_the_group_and_ends_at_the_mixed_model():
    fit, table = fitted(SLEEP), plot.shrinkage(fitted(SLEEP)).data.set_index("level")
    for level, rows in (
        sleepstudy().assign(Subject=lambda d: d["Subject"].astype(str)).groupby("Subject")
    ):
        slope, intercept = np.polyfit(rows["Days"], rows["Reaction"], 1)
        np.testing.assert_allclose(
            table.loc[level, ["a0", "a1"]].to_numpy(float), [intercept, slope], rtol=1e-9
        )
    ends = fit.random_effects["Subject"].to_numpy() + fit.fe_params.to_numpy()
    np.testing.assert_allclose(table[["b0", "b1"]], ends, rtol=1e-12)


def test_shrinkage_uses_weights_and_leaves_out_groups_that_do_not_determine_their_own_line():
    fit = many_groups()
    own, _, _ = data_module.own_and_shrunk(fit, 0)
    design = fit.model.design
    left = design.y - design.offset - design.X[:, 1:] @ fit.fe_params.to_numpy()[1:]
    rows = design.factors[0].codes == 5
    np.testing.assert_allclose(
        own[5, 0], np.average(left[rows], weights=design.weights[rows]), rtol=1e-9
    )
    frame = sleepstudy()
    alone = quiet_fit("Reaction ~ Days + (1 + Days | Subject)", frame.drop(range(1, 10)))
    drawn = plot.shrinkage(alone)
    assert len(drawn.data) == 17
    assert drawn.labels.subtitle.endswith("left out as too small for an own estimate: 1")


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


def test_profile_marks_the_ends_of_the_profile_intervals():
    curves = data_module.curves(profiled())
    ends = pd.concat(c.at([-1.959964, 1.959964]) for c in curves)
    intervals = fitted(SLEEP).confint("profile").loc[[c.name[0] for c in curves]].to_numpy()
    # a spline through 13 points, half a unit of zeta apart
    np.testing.assert_allclose(
        ends["value"].to_numpy().reshape(-1, 2), intervals, rtol=2e-3, atol=2e-3
    )


def test_profile_density_of_a_straight_profile_is_normal():
    value = np.linspace(-3, 3, 7)
    profile = pd.DataFrame({"parameter": "x", "value": 5 + 2 * value, "zeta": value})
    (curve,) = data_module.curves(profile)
    found = curve.density
    np.testing.assert_allclose(found["density"], stats.norm.pdf(found["value"], 5, 2), rtol=1e-9)
    np.testing.assert_allclose(curve.wald["value"], [-1, 11])


def test_variance_components_are_those_of_varcorr():
    drawn = plot.variance_components(fitted(SLEEP)).data
    table = fitted(SLEEP).varcorr
    np.testing.assert_array_equal(
        drawn[["sdcor", "lower", "upper"]], table[["sdcor", "lower", "upper"]]
    )
    assert list(drawn["panel"]) == [
        "standard deviation [Reaction]",
        "standard deviation [Reaction / Days]",
        "correlation",
        "standard deviation [Reaction]",
    ]


def test_influence_of_rows_with_equal_labels_is_drawn():
    table = influence_table(10).set_axis([1] * 10)
    drawn = plot.influence(table)
    assert len(drawn.data) == drawn.data["key"].nunique() == 10
    assert drawn.labels.title == "Influence of each observation: cooksd"


def test_influence_colours_what_is_far_out():
    drawn = plot.influence(influence_table(10), "covratio").data
    assert drawn.loc[drawn["outside"] == "yes", "name"].tolist() == ["g3"]


def test_emmeans_shows_means_and_the_unit():
    drawn = plot.emmeans(means("kind"))
    np.testing.assert_array_equal(drawn.data["emmean"], means("kind").frame["emmean"])
    assert drawn.labels.y == "mean y, with 95% interval"


def test_a_mean_that_is_not_known_has_its_place_and_no_point():
    fit = quiet_fit("y ~ e * h + (1 | g)", an_empty_cell())
    with pytest.warns(interlace.RankWarning, match="cells without rows"):
        means = interlace.emmeans(fit, "e")
    figure = plot.emmeans(means).draw()  # what plotnine warns of is an error here
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list("abcd")
    assert len(axes.collections[-1].get_offsets()) == 3
    plt.close(figure)


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


def test_forest_shows_the_rows_of_tidy_first_terms_and_models_on_top():
    fits = {"slopes": fitted(SLEEP), "intercepts": intercepts()}
    table = plot.coefficients(*fits.values(), names=list(fits), intercept=True, level=0.9).data
    for name, fit in fits.items():
        rows = table[table["model"] == name]
        np.testing.assert_array_equal(
            rows[["estimate", "conf_low"]], fit.tidy("fixed", 0.9)[["estimate", "conf_low"]]
        )
    assert list(table["term"].cat.categories) == ["Days", "Intercept"]
    assert list(table["model"].cat.categories) == ["intercepts", "slopes"]


def test_forest_takes_labels_and_refuses_what_it_cannot_show():
    labels = {"x": "a longer name"}
    assert "a longer name" in set(plot.coefficients(many_groups(), labels=labels).data["term"])
    with pytest.raises(ValueError, match="intercept=True"):
        plot.coefficients(quiet_fit("Reaction ~ 1 + (1 | Subject)", sleepstudy()))
    with pytest.raises(ValueError, match="2 different names"):
        plot.coefficients(fitted(SLEEP), intercepts(), names=["a", "a"])
    with pytest.raises(TypeError, match="one or more fits"):
        plot.coefficients()


def test_effects_are_the_predictions_of_an_average_group():
    table = plot.effects(fitted(SLEEP), "Days", level=0.9).data
    new = pd.DataFrame({"Days": table["Days"]})
    expected = fitted(SLEEP).predict(new, include_re=False, interval="confidence", level=0.9)
    np.testing.assert_allclose(table["emmean"], expected["fit"], rtol=1e-10)
    assert (table["Days"].min(), table["Days"].max()) == (0.0, 9.0)


def test_effects_say_at_which_values_of_other_variables_they_are():
    assert (
        plot.effects(many_groups(), "kind").labels.subtitle
        == "an average group; x at its mean, 1.5"
    )
    assert (
        plot.effects(many_groups(), "x").labels.subtitle == "an average group; averaged over kind"
    )
    assert (
        plot.effects(many_groups(), "kind", at={"x": [2]}).labels.subtitle
        == "an average group; x = [2]"
    )


def test_numbers_beside_another_variable_are_in_order_of_size():
    drawn = plot.emmeans(means(["x", "kind"], at={"x": [2, 10, 1]}))
    assert list(drawn.data["x"].cat.categories) == ["1", "2", "10"]
    # quartiles
    assert list(plot.effects(many_groups(), "kind", "x").data["x"].cat.categories) == ["1", "2"]


def test_effects_answer_wrong_variables_in_words():
    with pytest.raises(ValueError, match="'x' or 'kind', not 'g'"):
        plot.effects(many_groups(), "g")
    with pytest.raises(ValueError, match="other than 'x'"):
        plot.effects(many_groups(), "x", "x")


def test_lines_of_groups_are_at_common_values_of_what_varies_within_them():
    data = interlace.load_dataset("crossed").assign(
        size=lambda d: np.where(d["item"] > "item12", "large", "small")
    )
    fit = quiet_fit("rt ~ condition + size + (1 + condition | subject)", data)
    drawn = plot.fitted_lines(fit, "condition")
    common = data["size"].mode()[0]
    assert drawn.labels.subtitle.endswith(f"Lines at size = {common}")
    frame = data_module.used_data(fit)
    _, curves, _ = data_module.lines(fit, 0, frame, "condition", np.arange(3))
    assert (curves.groupby("x", observed=True)["average"].nunique() == 1).all()
    new = pd.DataFrame({"condition": ["congruent"], "size": [common]})
    expected = fit.predict(new, include_re=False).iloc[0]
    assert curves.loc[curves["x"] == "congruent", "average"].iloc[0] == pytest.approx(expected)


def test_long_names_of_levels_keep_their_ends_and_get_room():
    assert style._short("short") == "short"
    name = "a school with a very long name, number 17"
    assert style._short(name).endswith("name, number 17") and len(style._short(name)) == 33
    assert style._name_width([name, "b"]) > 1.5 and style._name_width(["S1"]) == 0.0
