"""Averages over rows against lmerTest and glmmTMB with weights formed by hand, and against
predictions.

The numbers are of R 4.2, lmerTest 3.1-3 (`contest` of averaged rows of `model.matrix`) and glmmTMB
1.1.5 (means and derivatives by hand from `fixef` and `vcov`).
"""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.cells import an_empty_cell
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose
from scipy import special

import interlace_jax as interlace


@pytest.fixture(scope="module")
def cake():
    """Every seventh row left out, and a cell: nothing is balanced."""
    frame = interlace.load_dataset("cake").reset_index(drop=True)
    lost = (np.arange(1, len(frame) + 1) % 7 == 0) | (
        (frame["recipe"] == "B") & (frame["temp"] == "T205")
    )
    return frame.assign(t=frame["temp"].str[1:].astype(float))[~lost]


@pytest.fixture(scope="module")
def linear(cake):
    return quiet_fit("angle ~ recipe * t + I(t**2) + (1 | replicate)", cake)


@pytest.fixture(scope="module")
def herds():
    frame = interlace.load_dataset("cbpp")
    return frame.assign(w=np.arange(1, len(frame) + 1) / 10)


@pytest.fixture(scope="module")
def binomial(herds):
    formula = "incidence ~ period + w + (1 | herd)"
    return quiet_fit(formula, herds, family="binomial", trials="size")


def check(table, wanted):
    """Estimates, SEs and df of R; the search of each ends within 1e-6 of the optimum."""
    assert_allclose(table[["estimate", "se", "df"]], wanted, rtol=2e-5)


def test_predictions_give_every_row_a_value_in_turn(linear):
    table = interlace.predictions(linear, {"recipe": ["A"]})
    check(table, [[32.905496757513, 1.7581057133043, 15.925109661]])
    assert_allclose(table[["lower", "upper"]], [[29.1770541743, 36.6339393407]], rtol=2e-5)


def test_predictions_within_groups_are_of_their_own_rows(linear):
    table = interlace.predictions(linear, by="recipe")
    assert table["recipe"].tolist() == ["A", "B", "C"]
    wanted = [
        [32.934889930304, 1.7580045577, 15.9214522368],
        [31.699152966697, 1.7764363507857, 16.5953847849],
    ]
    check(table.iloc[:2], wanted)


def test_levels_are_compared_with_the_first(linear):
    table = interlace.comparisons(linear, "recipe")
    assert table[["term", "contrast"]].to_numpy().tolist() == [
        ["recipe", "B - A"],
        ["recipe", "C - A"],
    ]
    wanted = [
        [-1.081719374676, 0.8139575157096, 198.0714432749],
        [-1.538759188177, 0.7722737962258, 198.055607701],
    ]
    check(table, wanted)
    assert_allclose(table["p"], [0.185389049023, 0.0476889505432], rtol=1e-4)


def test_numbers_change_by_as_much_as_is_said(linear):
    check(
        interlace.comparisons(linear, {"t": 10}),
        [[1.562842261552, 0.2249540190692, 198.2407607885]],
    )


def test_slopes_are_derivatives(linear):
    table = interlace.slopes(linear, "t", by="recipe").iloc[[0, 2]]
    wanted = [
        [0.148989781291, 0.0320011328714, 198.182664719],
        [0.16139630302, 0.0321740304227, 198.1875482318],
    ]
    check(table, wanted)


def test_slopes_of_splines_stay_inside_their_knots(cake):
    fit = quiet_fit("angle ~ bs(t, df=4) + (1 | replicate)", cake)
    table = interlace.slopes(fit, "t", by="t")
    inner = table[(table["t"] > cake["t"].min()) & (table["t"] < cake["t"].max())]
    h = 1e-4
    high, low = (
        fit.predict(inner.assign(t=inner["t"] + step), include_re=False) for step in (h, -h)
    )
    assert_allclose(inner["estimate"], (high - low) / (2 * h), rtol=1e-5)
    assert np.isfinite(table["estimate"]).all() and len(table) == 6


def test_every_row_has_the_prediction_and_interval_of_predict(linear, cake):
    new = cake.head(4).assign(t=[180.0, np.nan, 200.0, 190.0])
    table = interlace.predictions(linear, newdata=new, by=False)
    wanted = linear.predict(new, include_re=False, interval="confidence").dropna()
    assert table.index.tolist() == wanted.index.tolist()
    assert_allclose(
        table[["estimate", "se", "lower", "upper"]], wanted[["fit", "se", "lower", "upper"]]
    )


def test_other_frames_and_other_rules_of_df(linear, cake):
    frame = pl.DataFrame(cake.drop(columns="temp").to_dict("list"))
    table = interlace.comparisons(linear, "recipe", frame, ddf="kenward-roger")
    L = np.zeros((1, len(linear.fe_params)))
    names = linear.fe_params.index.tolist()
    L[0, names.index("recipe[T.B]")], L[0, names.index("recipe[T.B]:t")] = 1.0, cake["t"].mean()
    wanted = linear.test(L, ddf="kenward-roger").iloc[0]
    assert_allclose(table.loc[0, ["se", "df"]].astype(float), wanted[["se", "df"]].astype(float))


def test_averages_of_probabilities(binomial):
    """Covariances of the coefficients there and here are by numeric and by exact derivatives."""
    difference = interlace.comparisons(binomial, {"period": ("p1", "p4")})
    ratio = interlace.comparisons(binomial, {"period": ("p1", "p4")}, comparison="ratio")
    slope = interlace.slopes(binomial)
    assert ratio["contrast"].tolist() == ["p4 / p1"]
    found = [table.loc[0, ["estimate", "se"]].tolist() for table in (difference, ratio, slope)]
    wanted = [
        [-0.147290553323, 0.0363594844389],
        [0.25141502031, 0.100776121825],
        [-0.00893326135267, 0.0114551734098],
    ]
    assert_allclose(found, wanted, rtol=5e-4)


def test_averages_over_levels_are_integrals(binomial, herds):
    table = interlace.predictions(binomial, {"period": ["p1", "p2"]}, marginal=True)
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    b, sd = binomial.fe_params, float(binomial.theta[0])
    eta = b["Intercept"] + b["w"] * herds["w"].to_numpy()
    for value, shift in zip(table["estimate"], (0.0, b["period[T.p2]"]), strict=True):
        inner = special.expit((eta + shift)[:, None] + sd * z) @ weights / np.sqrt(2 * np.pi)
        assert_allclose(value, inner.mean(), rtol=1e-6)


def test_a_link_has_contrasts_of_coefficients(binomial):
    table = interlace.comparisons(binomial, "period", type="link")
    b = binomial.fe_params[["period[T.p2]", "period[T.p3]", "period[T.p4]"]]
    assert_allclose(table["estimate"], b)
    assert_allclose(table["se"], binomial.fe_bse[b.index])


def test_offsets_count_in_predictions_and_cancel_in_differences(cake):
    rows = cake.assign(known=np.linspace(-1, 1, len(cake)))
    by_column, by_term = (
        quiet_fit(f"angle ~ recipe + t {more}+ (1 | replicate)", rows, **given)
        for more, given in (("", dict(offset="known")), ("+ offset(known) ", {}))
    )
    for fit in (by_column, by_term):
        values = fit.predict(rows.assign(recipe="B"), include_re=False)
        assert_allclose(interlace.predictions(fit, {"recipe": "B"})["estimate"], values.mean())
        slope = interlace.slopes(fit, "t").loc[0]
        assert_allclose(
            slope[["estimate", "se"]].astype(float), [fit.fe_params["t"], fit.fe_bse["t"]]
        )


def test_what_the_data_cannot_tell_is_missing():
    fit = quiet_fit("y ~ e * h + x + (1 | g)", an_empty_cell())
    table = interlace.predictions(fit, {"e": list("abcd")})
    assert table["estimate"].isna().tolist() == [False, True, False, False]


def test_what_cannot_be_asked_is_refused_in_words(linear, binomial, cake):
    for call, match in (
        (lambda: interlace.comparisons(linear, "temp"), "'recipe', 't'"),
        (lambda: interlace.comparisons(linear, {"recipe": ("A", "Z")}), "levels are 'A', 'B', 'C'"),
        (lambda: interlace.comparisons(linear, {"recipe": "all"}), "'reference' or 'pairwise'"),
        (lambda: interlace.comparisons(linear, {"t": "range"}), "'sd' or 'iqr' or 'minmax'"),
        (lambda: interlace.comparisons(linear, {"t": (1, 2, 3)}), "by a number or between two"),
        (lambda: interlace.slopes(linear, "recipe"), "categories have comparisons"),
        (lambda: interlace.predictions(linear, {"t": 180}, by="t"), "variables and in by"),
        (lambda: interlace.predictions(linear, offset=np.zeros(3)), "belongs to newdata"),
        (lambda: interlace.predictions(linear, newdata=cake.assign(t=np.nan)), "every row"),
        (lambda: interlace.predictions(linear, by="when"), "'when'"),
        (lambda: interlace.predictions(binomial, ddf="satterthwaite"), "z tests"),
        (lambda: interlace.slopes(binomial, type="link", marginal=True), "type='response'"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(TypeError, match="mapping"):
        interlace.predictions(linear, "recipe")


def test_columns_named_as_results_stand_beside_them(cake):
    fit = quiet_fit("angle ~ t + (1 | replicate)", cake.assign(term=cake["recipe"]))
    table = interlace.comparisons(fit, {"t": 1}, by="term")
    assert table.columns[:3].tolist() == ["term", "contrast", "term_"]
    pd.testing.assert_index_equal(table.columns[3:6], pd.Index(["estimate", "se", "df"]))
