"""Parameters and what they predict, as they are drawn."""

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from helpers.plots import SLEEP, intercepts, many_groups, means, profiled
from scipy import stats

from interlace_jax import plot
from interlace_jax.plot import data as data_module


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


def test_emmeans_shows_means_and_the_unit():
    drawn = plot.emmeans(means("kind"))
    np.testing.assert_array_equal(drawn.data["emmean"], means("kind").frame["emmean"])
    assert drawn.labels.y == "mean y, with 95% interval"


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


def test_effects_answer_wrong_variables_in_words():
    with pytest.raises(ValueError, match="'x' or 'kind', not 'g'"):
        plot.effects(many_groups(), "g")
    with pytest.raises(ValueError, match="other than 'x'"):
        plot.effects(many_groups(), "x", "x")
