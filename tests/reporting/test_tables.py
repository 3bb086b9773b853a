"""Tables for papers: their cells are the rounded numbers of the fits, and caveats are not lost."""

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy

import interlace_jax as interlace

SLEEP = fitted("sleepstudy_slope_REML")


@pytest.fixture(scope="module")
def intercepts():
    return quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy())


def cells(table):
    return table.frame.set_index(table.frame.columns[0])


# Numbers


# One fit


def test_table_of_a_fit_has_coefficients_and_random_effects():
    table = cells(interlace.table(SLEEP))
    assert list(table.loc["Days"]) == ["10.47", "1.55", "[7.21, 13.73]", "17.0", "6.77", "<.001"]
    assert table.loc["SD Days | Subject", "Estimate"] == "5.92"
    assert table.loc["SD residual", "p"] == ""
    assert interlace.table(SLEEP).rules == [2]


def test_labels_replace_terms_groups_and_columns():
    table = cells(
        interlace.table(SLEEP, labels={"Days": "Days of restriction", "Subject": "sleeper"})
    )
    assert {"Days of restriction", "SD Days of restriction | sleeper"} <= set(table.index)


def test_a_singular_fit_says_so_and_has_no_interval():
    fit = fitted("dyestuff2_REML")
    table = interlace.table(fit)
    assert "singular" in table.notes[1]
    assert list(cells(table).loc["SD (Intercept) | Batch"])[:3] == ["0.00", "", ""]


def test_normal_tests_are_z_without_degrees_of_freedom():
    fit = quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy(), df_method="normal")
    assert list(interlace.table(fit).header) == ["Term", "Estimate", "SE", "95% CI", "z", "p"]


# Several


def test_models_stand_side_by_side(intercepts):
    table = interlace.compare(intercepts, SLEEP, names=["one", "two"])
    assert list(table.header) == ["", "one", "two"]
    shown_cells = cells(table)
    assert list(shown_cells.loc["Days"]) == ["10.47", "10.47"]
    assert list(shown_cells.loc["SD Days | Subject"]) == ["", "5.92"]
    assert list(shown_cells.loc["Observations"]) == ["180", "180"]
    assert list(shown_cells.loc["AIC"]) == [f"{intercepts.aic:.1f}", f"{SLEEP.aic:.1f}"]
    assert list(table.rows[1]) == ["", "(9.75)", "(6.82)"]


@pytest.mark.parametrize(
    ("below", "cell"),
    [("interval", "[7.21, 13.73]"), ("p", "<.001"), ("statistic", "(6.77)"), ("se", "(1.55)")],
)
def test_what_stands_below_the_estimates_is_chosen(below, cell):
    assert interlace.compare(SLEEP, below=below, terms=["Days"]).rows[1][1] == cell


def test_terms_choose_order_and_names(intercepts):
    table = interlace.compare(
        intercepts, terms={"Days": "days", "Intercept": "start"}, below="nothing", stars=True
    )
    assert [list(row) for row in table.rows[:2]] == [["days", "10.47***"], ["start", "251.41***"]]
    with pytest.raises(ValueError, match="'hours'"):
        interlace.compare(intercepts, terms=["hours"])


def test_names_given_to_columns_stand_in_correlations_too():
    table = interlace.compare(SLEEP, terms={"Days": "per day"}, below="nothing")
    labels = [row[0] for row in table.rows]
    assert "SD per day | Subject" in labels
    assert "Correlation (Intercept), per day | Subject" in labels


def test_criteria_that_cannot_be_compared_have_a_note(intercepts):
    assert not any("compared" in note for note in interlace.compare(intercepts, SLEEP).notes)
    shorter = quiet_fit("Reaction ~ 1 + (1 | Subject)", sleepstudy())
    assert any(
        "different fixed parts" in note for note in interlace.compare(intercepts, shorter).notes
    )
    fewer = quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy().head(100))
    assert any("numbers of rows" in note for note in interlace.compare(intercepts, fewer).notes)


def test_wrong_arguments_are_answered_in_words(intercepts):
    with pytest.raises(TypeError, match="one or more fits"):
        interlace.compare()
    with pytest.raises(TypeError, match="not str"):
        interlace.compare(intercepts, "m2")
    with pytest.raises(ValueError, match="1 headings for 2 fits"):
        interlace.compare(intercepts, SLEEP, names=["one"])
    with pytest.raises(TypeError, match="not int"):
        interlace.table(3)


# Frames


def test_tables_of_tests_round_by_what_their_columns_hold():
    table = cells(interlace.table(SLEEP.anova()))
    assert list(table.loc["Days"])[2:] == ["1", "17.0", "45.85", "<.001"]


def test_contrasts_have_the_decimals_of_their_standard_errors():
    fit = quiet_fit(
        "angle ~ recipe * temp + (1 | replicate:recipe)", interlace.load_dataset("cake")
    )
    frame = interlace.emmeans(fit, "recipe").contrasts()
    table = interlace.table(frame, "Recipes")
    assert list(table.frame["estimate"]) == [f"{value:z.2f}" for value in frame["estimate"]]
    assert table.align == "lrrrrrrr" and table.title == "Recipes"
    assert list(interlace.table(interlace.emmeans(fit, "recipe")).frame["recipe"]) == [
        "A",
        "B",
        "C",
    ]


def test_frames_of_any_shape_become_text():
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["g", None])
    frame = pd.DataFrame({("x", "lower"): [0.5, np.nan], ("x", "ok"): [True, False]}, index=index)
    table = interlace.table(frame)
    assert list(table.header) == ["g", "", "x lower", "x ok"]
    assert [list(row) for row in table.rows] == [
        ["a", "1", "0.5000", "True"],
        ["b", "2", "", "False"],
    ]


# Residual covariances


@pytest.fixture(scope="module")
def serial():
    return quiet_fit(
        "Reaction ~ Days", sleepstudy(), residual="ar1(Days | Subject)", df_method="between-within"
    )


def test_numbers_of_the_residual_covariance_have_rows(serial):
    row = serial.tidy("ran_pars").iloc[-1]
    assert (row["group"], row["term"]) == ("Residual", "rho | Days within Subject")
    assert row["estimate"] == pytest.approx(serial.structure["estimate"].iloc[-1])
    table = interlace.table(serial)
    assert (
        cells(table).loc["Residual rho | Days within Subject", "Estimate"]
        == f"{row['estimate']:.2f}"
    )
    assert table.notes == [
        "180 observations. Fitted by REML, between-within degrees of freedom.",
        "Covariance of the residuals: residual ar1(Days | Subject).",
    ]
    assert "Residual rho" in interlace.compare(serial).rows[4][0]
    assert serial.tidy("ran_vals").empty


def test_words_and_equation_do_not_take_residuals_for_independent(serial):
    text = interlace.report(serial)
    assert (
        text.startswith("A linear model of Reaction") and "(residual ar1(Days | Subject))" in text
    )
    assert r"\mathcal{N}\left(0,\; R\right)" in interlace.equation(serial)
    assert r"\sigma^{2}" not in interlace.equation(serial)


def test_the_residual_sd_is_told_of_which_rows_it_is():
    fit = quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy(), dispersion="~ Days")
    assert "(where the terms of '~ Days' are 0)" in interlace.report(fit)
    assert "(SD: where the terms of '~ Days' are 0)" in interlace.table(fit).notes[1]
