"""Marginal means and contrasts against R's emmeans, and against predictions."""

import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.cases import lmm_cases, load_case
from helpers.cells import UNBALANCED, an_empty_cell, drugs, unbalanced
from helpers.fits import fitted, quiet_fit
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace
from interlace_jax import emmeans

DDF = {"asymptotic": "normal", "kenward_roger": "kenward-roger", "satterthwaite": "satterthwaite"}


@pytest.fixture(scope="module")
def unequal():
    return quiet_fit(UNBALANCED, unbalanced())


@pytest.mark.parametrize("case", [p for p in lmm_cases() if p.values[0].get("emmeans")])
def test_means_and_pairs_are_those_of_emmeans(case):
    for variable, references in case["emmeans"].items():
        for ddf, reference in references.items():
            means = emmeans(fitted(case.name), variable, ddf=DDF[ddf])
            values = {k: v for k, v in reference["means"]["values"].items() if k != variable}
            assert means.frame[variable].tolist() == reference["means"]["values"][variable]
            compare(means.frame[["emmean", "se", "df", "lower", "upper"]], values)
            for adjust, key in (("none", "pairs_unadjusted"), ("tukey", "pairs_tukey")):
                values = dict(reference[key]["values"])
                pairs = means.pairs(adjust)
                assert pairs.contrast.tolist() == values.pop("contrast")
                p = values.pop("p.value")
                compare(pairs[["estimate", "se", "df", "t"]], values)
                # R's ptukey has few digits in the tail
                assert_allclose(pairs.p, p, rtol=1e-3, atol=1e-8)


def compare(table, values):
    assert_allclose(
        table, np.array([[float(x) for x in column] for column in values.values()]).T, rtol=1e-5
    )


def test_unbalanced_cells_count_alike(unequal):
    """By emmeans 1.8.4: row 2 of pairs(emmeans(f, ~ recipe | temp)); df of emmeans(f, ~ recipe,
    at = list(x = 0)).
    """
    row = emmeans(unequal, "recipe", by="temp").pairs().iloc[1]
    wanted = [
        2.422806741985,
        3.031736803094,
        82.629385080917,
        -4.812946697174,
        9.658560181144,
        0.799148111905,
        0.704594410286,
    ]
    assert_allclose(
        row[["estimate", "se", "df", "lower", "upper", "t", "p"]].astype(float), wanted, rtol=1e-4
    )
    at_zero = emmeans(unequal, "recipe", at={"x": 0}, ddf="kenward-roger").frame
    assert_allclose(at_zero.df, [74.5164122445, 68.7578813024, 70.9753237535], rtol=1e-5)


def test_means_are_averaged_predictions(unequal):
    frame = unbalanced()
    grid = frame[["recipe", "temp"]].drop_duplicates().assign(x=frame.x.mean())
    predicted = (
        grid.assign(value=unequal.predict(grid, include_re=False)).groupby("recipe").value.mean()
    )
    assert_allclose(emmeans(unequal, "recipe").frame.emmean, predicted)


def test_numbers_asked_for_by_name_take_the_values_given(unequal):
    means = emmeans(unequal, ["recipe", "x"], at={"x": [0, 2]})
    assert means.frame.x.tolist() == [0, 2] * 3
    slopes = means.frame.emmean.to_numpy().reshape(3, 2)
    assert_allclose(
        (slopes[1, 1] - slopes[1, 0]) / 2,
        unequal.fe_params["x"] + unequal.fe_params["recipe[T.B]:x"],
    )


def test_numbers_are_at_their_mean_unless_given():
    fit = fitted("sleepstudy_slope_REML")
    row = emmeans(fit, "Days").frame.iloc[0]
    assert row.Days == 4.5
    assert_allclose(row.emmean, fit.fe_params @ [1, 4.5])


def test_contrasts_stay_within_the_combinations_of_by(unequal):
    pairs = emmeans(unequal, "recipe", by="temp").pairs("none")
    assert pairs.columns[:2].tolist() == ["temp", "contrast"] and len(pairs) == 6 * 3
    assert pairs.contrast[:3].tolist() == ["A - B", "A - C", "B - C"]


def test_treatment_contrasts_are_against_the_reference(unequal):
    table = emmeans(unequal, "recipe").contrasts("trt.vs.ctrl", adjust="none", ref="B")
    assert table.contrast.tolist() == ["A - B", "C - B"]
    pairs = emmeans(unequal, "recipe").pairs("none")
    assert_allclose(table.estimate, [pairs.estimate[0], -pairs.estimate[2]])


def test_custom_contrasts_are_weighted_means(unequal):
    means = emmeans(unequal, "recipe")
    row = means.contrasts({"A against the rest": [1, -0.5, -0.5]}).iloc[0]
    assert_allclose(row.estimate, means.frame.emmean @ [1, -0.5, -0.5])
    assert_allclose(row.p, 2 * stats.t.sf(abs(row.t), row.df))


def test_adjustments_are_those_of_their_definitions(unequal):
    means = emmeans(unequal, "temp")
    plain, bonferroni, holm = (means.pairs(a) for a in ("none", "bonferroni", "holm"))
    assert_allclose(bonferroni.p, np.minimum(1, 15 * plain.p))
    order = np.argsort(plain.p.to_numpy())
    steps = np.maximum.accumulate(plain.p.to_numpy()[order] * np.arange(15, 0, -1))
    assert_allclose(holm.p.to_numpy()[order], np.minimum(1, steps))
    half = stats.t.ppf(1 - 0.05 / 30, plain.df) * plain.se
    assert_allclose(bonferroni.upper, plain.estimate + half)


def test_an_offset_counts_with_its_mean():
    case = load_case("offset_REML")
    frame = case.frame.assign(half=np.where(np.arange(200) % 2, "a", "b"))
    fit = quiet_fit("y ~ x + half + (1 | g)", frame, offset=case["offset"])
    grid = frame.assign(half="a", x=frame.x.mean())
    assert_allclose(
        emmeans(fit, "half").frame.emmean[0], fit.predict(grid, include_re=False).mean()
    )


def test_frames_of_other_libraries_and_categories_keep_their_order():
    frame = unbalanced()
    order = ["C", "A", "B"]
    pandas = frame.assign(recipe=frame.recipe.astype("category").cat.reorder_categories(order))
    enum = pl.DataFrame(frame.to_dict("list")).with_columns(pl.col("recipe").cast(pl.Enum(order)))
    for data in (pandas, enum):
        fit = quiet_fit("angle ~ recipe + temp + (1 | g)", data)
        assert emmeans(fit, "recipe").frame.recipe.tolist() == order
        assert emmeans(fit, "recipe").pairs().contrast.tolist() == ["C - A", "C - B", "A - B"]


def test_numbers_that_are_coded_as_categories_have_levels():
    frame = interlace.load_dataset("cake")
    formula = "angle ~ recipe * C(temp) + (1 | replicate)"
    number = frame["temp"].str[1:].astype(int)
    coded, text = (
        emmeans(quiet_fit(formula, data), "temp", by="recipe")
        for data in (frame.assign(temp=number), frame)
    )
    assert coded.frame["temp"].iloc[:6].tolist() == [175, 185, 195, 205, 215, 225]
    assert_allclose(coded.frame.iloc[:, 2:], text.frame.iloc[:, 2:], rtol=1e-6)


def test_levels_of_a_bool_are_asked_for_as_they_are():
    frame = unbalanced().assign(hot=lambda f: f["temp"] > "T195")
    fit = quiet_fit("angle ~ hot + recipe + (1 | g)", frame)
    both = emmeans(fit, "hot")
    for true in (True, 1):
        one = emmeans(fit, "hot", at={"hot": true}).frame
        pd.testing.assert_frame_equal(one, both.frame.iloc[[1]].reset_index(drop=True))
    pd.testing.assert_frame_equal(
        *(both.contrasts("trt.vs.ctrl", ref=ref) for ref in (False, "False"))
    )
    assert both.contrasts("trt.vs.ctrl", ref=True)["contrast"].tolist() == ["False - True"]


def test_wrong_arguments_are_refused_with_what_there_is(unequal):
    means = emmeans(unequal, "recipe")
    for call, match in (
        (lambda: emmeans(unequal, "receipt"), "recipe"),
        (lambda: emmeans(unequal, "recipe", at={"y": 1}), "temp"),
        (
            lambda: emmeans(unequal, "recipe", at={"recipe": ["A", "Z"]}),
            r"\['recipe'\] has 'Z'; .* 'A', 'B', 'C'",
        ),
        (lambda: means.contrasts("dunnett"), "trt.vs.ctrl"),
        (lambda: means.contrasts("trt.vs.ctrl", adjust="tukey"), "holm"),
        (lambda: means.contrasts({"a": [1, -1]}), "A"),
        (lambda: means.pairs("fdr"), "holm"),
        (lambda: means.contrasts("trt.vs.ctrl", ref="D"), "A"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_the_table_is_what_a_notebook_shows():
    means = emmeans(fitted("sleepstudy_slope_REML"), "Days", at={"Days": [0, 9]})
    assert repr(means) == repr(means.frame) and "<table" in means._repr_html_()
    assert_allclose(means.frame.emmean[0], fitted("sleepstudy_slope_REML").fe_params["Intercept"])


def test_importing_the_package_leaves_scipy_stats_alone():
    code = "import interlace_jax, sys; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("levels", ["abcd", "bacd"])
def test_means_over_an_empty_cell_are_not_known(levels):
    """As nonEst of emmeans 1.8.4; which column is dropped, and so what beta would make of them,
    is arbitrary.
    """
    fit = quiet_fit("y ~ e * h + (1 | g)", an_empty_cell(levels))
    with pytest.warns(interlace.RankWarning, match="no rows with e='b', h='q'$"):
        means = emmeans(fit, "e").frame.set_index("e")
    assert means.loc["b"].isna().all()
    assert_allclose(
        means.loc[["a", "c", "d"], "emmean"], [0.4454336, 1.0045068, 0.3690081], rtol=2e-7
    )
    with pytest.warns(interlace.RankWarning):
        assert emmeans(fit, "h").frame.emmean.isna().tolist() == [False, True]
    with pytest.warns(interlace.RankWarning):
        cells = emmeans(fit, ["e", "h"]).frame
    assert cells[cells.emmean.isna()][["e", "h"]].to_numpy().tolist() == [["b", "q"]]


def test_contrasts_with_an_empty_cell_are_those_of_emmeans():
    """pairs(emmeans(f, ~ e), adjust = "holm"), emmeans 1.8.4: those not estimable count among
    the six.
    """
    with pytest.warns(interlace.RankWarning):
        means = emmeans(quiet_fit("y ~ e * h + (1 | g)", an_empty_cell()), "e")
    pairs = means.pairs("holm").set_index("contrast")
    assert pairs[pairs.p.isna()].index.tolist() == ["a - b", "b - c", "b - d"]
    assert_allclose(pairs.estimate.dropna(), [-0.5590732, 0.0764255, 0.6354987], rtol=1e-6)
    assert_allclose(pairs.p.dropna(), [0.1326, 1.0, 0.0729], atol=1e-4)


def test_a_contrast_may_be_known_where_its_means_are_not():
    """z follows from x in the data but not at x = 0: what both means owe to it is unknown, and
    cancels.
    """
    data = an_empty_cell().assign(z=lambda d: 2.0 * d.x - 1.0)
    means = emmeans(quiet_fit("y ~ x + z + h + (1 | g)", data), "h", at={"x": 0.0})
    assert means.frame.emmean.isna().all()
    apart = emmeans(quiet_fit("y ~ x + h + (1 | g)", data), "h").pairs()
    assert_allclose(
        means.pairs()[["estimate", "se", "p"]], apart[["estimate", "se", "p"]], rtol=1e-6
    )


# Nested factors, names, weights, slopes and more contrasts ----------------------------------------


@pytest.mark.parametrize(
    "formula", ["y ~ route/drug + x + (1 | g)", "y ~ route + drug + x + (1 | g)"]
)
def test_means_of_nested_factors_are_within_their_nests(formula):
    """emmeans 1.8.4 on these data."""
    fit = quiet_fit(formula, drugs())
    means = emmeans(fit, "route").frame
    assert_allclose(means.emmean, [0.5043868257, 0.4911731285], rtol=1e-6)
    assert_allclose(means.se, [0.2483286042, 0.2344628464], rtol=1e-6)
    of_drugs = [0.26596639443, 0.74280725703, 1.44805193959, -0.03549815965, 0.06096560549]
    assert_allclose(emmeans(fit, "drug").frame.emmean, of_drugs, rtol=1e-5)
    within = emmeans(fit, "drug", by="route").pairs()
    assert within.contrast.tolist() == ["a - b", "c - d", "c - e", "d - e"]


def test_nests_in_nests_count_alike_at_each_level():
    """emmeans 1.8.4: the mean of A is that of its b's, whatever the number of their c's."""
    i = np.arange(120)
    kind = i % 6
    a, b, c = (np.array(list(levels))[kind] for levels in ("AAABBB", "kklmnn", "uvwxyz"))
    data = pd.DataFrame(
        dict(a=a, b=b, c=c, g=i % 8, y=np.sin(1.7 * i) + 0.3 * kind + np.cos(i % 8))
    )
    fit = quiet_fit("y ~ a/b/c + (1 | g)", data, df_method="normal")
    assert_allclose(emmeans(fit, "a").frame.emmean, [0.5910939375, 1.2777864529], rtol=1e-7)
    wanted = [0.3472938750, 0.8348940001, 0.9935194021, 1.5620535037]
    assert_allclose(emmeans(fit, "b").frame.emmean, wanted, rtol=1e-7)


@cache
def tables_of(by: str) -> list[pd.DataFrame]:
    """Means of temp, their pairs and joint tests by a factor of this name."""
    frame = unbalanced().rename(columns={"recipe": by})
    means = emmeans(quiet_fit(f"angle ~ {by} * temp + (1 | g)", frame), "temp", by=by)
    return [means.frame, means.pairs(), means.joint()]


@pytest.mark.parametrize("name", ["contrast", "emmean", "F"])
def test_variables_may_bear_the_names_of_columns_of_results(name):
    for plain, odd in zip(tables_of("recipe"), tables_of(name), strict=True):
        assert odd.columns.is_unique and odd.columns[0] == f"{name}_"
        pd.testing.assert_frame_equal(odd.rename(columns={f"{name}_": "recipe"}), plain)


def test_a_reference_is_a_level_first_and_a_position_otherwise():
    frame = unbalanced().assign(dose=lambda f: f.recipe.map({"A": 1, "B": 2, "C": 3}))
    means = emmeans(quiet_fit("angle ~ C(dose) + (1 | g)", frame), "dose")
    for ref, wanted in (
        (1, ["2 - 1", "3 - 1"]),
        ("1", ["2 - 1", "3 - 1"]),
        (0, ["2 - 1", "3 - 1"]),
        (3, ["1 - 3", "2 - 3"]),
    ):
        assert means.contrasts("trt.vs.ctrl", ref=ref).contrast.tolist() == wanted
    years = emmeans(
        quiet_fit("angle ~ C(year) + (1 | g)", frame.assign(year=2000 + frame.dose)), "year"
    )
    assert years.contrasts("trt.vs.ctrl", ref=2002).contrast.tolist() == [
        "2001 - 2002",
        "2003 - 2002",
    ]
    zero = emmeans(quiet_fit("angle ~ C(d) + (1 | g)", frame.assign(d=frame.dose - 2)), "d")
    assert zero.contrasts("trt.vs.ctrl").contrast.tolist() == ["0 - (-1)", "1 - (-1)"]


def test_weights_of_the_levels_averaged_over(unequal):
    """By frequency, overall or within the cell: means of the predictions at the mean of x."""
    frame = unbalanced()
    frame["value"] = unequal.predict(frame.assign(x=frame.x.mean()), include_re=False)
    found = emmeans(unequal, "recipe", weights="cells").frame.emmean
    assert_allclose(found, frame.groupby("recipe").value.mean())
    share = frame.temp.value_counts(normalize=True)
    cells = frame.groupby(["recipe", "temp"]).value.mean().unstack()
    assert_allclose(
        emmeans(unequal, "recipe", weights="proportional").frame.emmean,
        cells @ share[cells.columns],
    )
    with pytest.raises(ValueError, match="proportional"):
        emmeans(unequal, "recipe", weights="flat")


def test_slopes_are_those_of_the_predictions(unequal):
    table = emmeans(unequal, "recipe", trend="x")
    beta = unequal.fe_params
    wanted = beta["x"] + np.array([0, beta["recipe[T.B]:x"], beta["recipe[T.C]:x"]])
    assert_allclose(table.frame.trend, wanted, rtol=1e-8)
    interaction = table.pairs("none").iloc[0]
    row = unequal.test("recipe[T.B]:x = 0").iloc[0]
    assert_allclose([-interaction.estimate, interaction.p], [row.estimate, row.p], rtol=1e-6)
    square = quiet_fit("angle ~ x + I(x^2) + (1 | g)", unbalanced())
    at = emmeans(square, "x", trend="x", at={"x": [0.0, 1.0]}).frame.trend
    assert_allclose(
        at, square.fe_params["x"] + 2 * square.fe_params.iloc[-1] * np.array([0.0, 1.0]), rtol=1e-7
    )
    with pytest.raises(ValueError, match="'x'"):
        emmeans(unequal, "recipe", trend="temp")


def test_joint_tests_are_those_of_the_terms(unequal):
    plain = quiet_fit("angle ~ recipe * temp + (1 | g)", unbalanced())
    table = plain.anova(3)
    for specs, method, term in (
        ("recipe", "pairwise", "recipe"),
        (["recipe", "temp"], ["consec", "eff"], "recipe:temp"),
    ):
        row = emmeans(plain, specs).joint(method).iloc[0]
        assert_allclose(
            [row.F, row.num_df], table.loc[term, ["F value", "NumDF"]].astype(float), rtol=1e-7
        )


def test_interaction_contrasts_are_differences_of_differences(unequal):
    means = emmeans(unequal, ["recipe", "temp"])
    found = means.contrasts(["pairwise", "consec"]).iloc[0]
    value = means.frame.set_index(["recipe", "temp"]).emmean
    first, second = list(dict.fromkeys(unbalanced().temp.sort_values()))[:2]
    assert found.contrast == f"A - B : {second} - {first}"
    wanted = value["A", second] - value["B", second] - value["A", first] + value["B", first]
    assert_allclose(found.estimate, wanted)
