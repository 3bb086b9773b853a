"""Random effects as they are drawn."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from helpers.plots import SLEEP, crossed, many_groups

import interlace_jax as interlace
from interlace_jax import plot
from interlace_jax.plot import data as data_module


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
