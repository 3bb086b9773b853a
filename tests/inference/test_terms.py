"""F tests of the terms of the fixed part: against lmerTest, whatever the coding, sizes and empty
cells.
"""

import numpy as np
import pandas as pd
import pytest
from helpers.cases import lmm_cases
from helpers.cells import UNBALANCED, an_empty_cell, drugs, unbalanced
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose

import interlace_jax as interlace

F_COLUMNS = ["sum_sq", "mean_sq", "num_df", "den_df", "F", "p"]


@pytest.mark.parametrize("case", [p for p in lmm_cases() if p.values[0].get("anova_type3")])
def test_f_tables_are_those_of_lmertest(case):
    fit = fitted(case.name)
    for kind in (1, 2, 3):
        for ddf, reference in case[f"anova_type{kind}"].items():
            table = fit.anova(kind, ddf.replace("_", "-"))
            wanted = np.array([reference["values"][c] for c in F_COLUMNS]).T
            assert_allclose(table.loc[reference["row_names"]], wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_bool_is_a_factor_of_two_levels(kind):
    """In a plain column, a nullable one, and one of Arrow's."""
    frame = sleepstudy().assign(late=lambda f: f.index % 7 > 3)
    formula = "Reaction ~ late * Days + (1 | Subject)"
    as_text = quiet_fit(formula, frame.assign(late=frame.late.map(str))).anova(kind)
    for given in (frame, frame.convert_dtypes(), frame.convert_dtypes(dtype_backend="pyarrow")):
        table = quiet_fit(formula, given).anova(kind)
        assert table.index.tolist() == ["late", "Days", "late:Days"]
        assert_allclose(table, as_text, rtol=1e-6)


# lmerTest 3.1.3 on the rows below: anova(lmer(UNBALANCED), type, ddf), columns Sum Sq, DenDF, F
# value.
LMERTEST = {
    (1, "satterthwaite"): [
        [3.79390930219, 41.8159660858, 0.0945196428901],
        [1241.17700953041, 129.8297554646, 12.3688362962710],
        [11.69827427784, 134.6268134560, 0.5828904273139],
        [375.40247454556, 129.9130237219, 1.8705195621638],
        [28.79485179185, 134.8256307431, 0.7173811737849],
    ],
    (2, "satterthwaite"): [
        [18.2393766086, 70.1049133949, 0.454407110521],
        [1220.2632959650, 130.0183763814, 12.160422591013],
        [25.6676477157, 135.2183362116, 1.278943012434],
        [370.9528363662, 129.9734069563, 1.848348330423],
        [28.7948517918, 134.7791473659, 0.717381173785],
    ],
    (3, "satterthwaite"): [
        [16.8247848814, 71.8816798398, 0.419164648394],
        [1220.4381745935, 129.9932891446, 12.162165328036],
        [26.8448119678, 134.8734543906, 1.337597627431],
        [370.9528363662, 129.9734069563, 1.848348330423],
        [28.7948517918, 134.7791473659, 0.717381173785],
    ],
    (3, "kenward-roger"): [
        [16.8011616366, 71.3902700882, 0.418574704420],
        [1216.6299174240, 129.6591884701, 12.124064503773],
        [26.7386213259, 134.5497468715, 1.332306461644],
        [370.5825650045, 129.6470504603, 1.846478029845],
        [28.6491831146, 134.4699487360, 0.713749265244],
    ],
}


@pytest.fixture(scope="module")
def unequal():
    return quiet_fit(UNBALANCED, unbalanced())


@pytest.mark.parametrize(("kind", "ddf"), LMERTEST)
def test_unbalanced_designs_have_the_tests_of_lmertest(unequal, kind, ddf):
    table = unequal.anova(kind, ddf)
    # lmer stops within 1e-5 of the optimum, lmerTest differentiates by differences.
    assert_allclose(table[["Sum Sq", "DenDF", "F value"]], LMERTEST[kind, ddf], rtol=1e-5)
    assert table.index.tolist() == ["recipe", "temp", "x", "recipe:temp", "recipe:x"]


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_the_coding_of_the_factors_does_not_matter(unequal, kind):
    coded = quiet_fit(
        "angle ~ C(recipe, contr.sum) * C(temp, contr.helmert) + C(recipe, contr.sum) * x + (1 | "
        "g)",
        unbalanced(),
    )
    assert_allclose(coded.anova(kind), unequal.anova(kind), rtol=1e-5)


def test_a_term_without_interactions_has_the_joint_test_of_its_coefficients():
    fit = fitted("oats_REML")
    joint = fit.test([name for name in fit.fe_params.index if "Variety" in name]).iloc[0]
    assert_allclose(
        fit.anova(3).loc["Variety"][["F value", "DenDF", "Pr(>F)"]],
        joint[["F", "den_df", "p"]],
        rtol=1e-8,
    )


def test_a_polynomial_is_one_term():
    fit = quiet_fit("Reaction ~ poly(Days, 2) + (1 | Subject)", sleepstudy())
    assert fit.anova().NumDF.tolist() == [2]


@pytest.mark.parametrize("type", [1, 2, 3])
@pytest.mark.parametrize(
    "r, python",
    [
        # Days are integers, of which ^ is the exclusive or
        ("factor(late) * I(Days^2)", "C(late) * {Days**2}"),
        ("late * poly(Days, 2, raw=TRUE)", "late * poly(Days, 2, raw=True)"),
        ("late * sqrt(Days)", "late * np.sqrt(Days)"),
    ],
)
def test_formulas_in_the_words_of_r_have_the_same_tests(type, r, python):
    frame = sleepstudy().assign(late=lambda f: np.where(f.index % 7 > 3, "a", "b"))
    ours, plain = (
        quiet_fit(f"Reaction ~ {fixed} + (1 | Subject)", frame).anova(type) for fixed in (r, python)
    )
    assert_allclose(ours, plain, rtol=1e-9)


def test_dropped_columns_leave_their_term_out():
    assert fitted("rankdef_REML").anova().index.tolist() == ["x1", "x3"]


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="1, 2 or 3"):
        fitted("oats_REML").anova(type=4)


@pytest.mark.parametrize("type", [1, 2, 3])
def test_f_tests_of_polynomials_bear_predictors_of_any_size(type):
    frame = sleepstudy().assign(x=lambda f: f.Days - 3.0)
    plain = quiet_fit("Reaction ~ x + {x**2} + (1 | Subject)", frame).anova(type)
    large = quiet_fit("Reaction ~ x + {x**2} + (1 | Subject)", frame.assign(x=1e6 * frame.x)).anova(
        type
    )
    assert_allclose(large.to_numpy(float), plain.to_numpy(float), rtol=1e-6)


@pytest.mark.parametrize("levels", ["abcd", "bacd", "dcba"])
def test_type_three_with_an_empty_cell_does_not_depend_on_the_order_of_levels(levels):
    """anova(f, type = 3) of lmerTest 3.1.3, which follows SAS; an F value is one of the data,
    not of the coding.
    """
    data = an_empty_cell(levels)
    found = quiet_fit("y ~ e * h + (1 | g)", data).anova()
    assert_allclose(found["F value"], [2.88504, 0.22697, 0.24309], atol=6e-6)
    assert_allclose(found["DenDF"], [61.02882, 61.27005, 61.49437], rtol=1e-4)
    found = quiet_fit("y ~ e * h * x + (1 | g)", data.assign(x=1e6 * data.x)).anova()
    assert_allclose(
        found["F value"], [2.26197, 0.14194, 6.43252, 0.37508, 0.68501, 0.91059, 0.32266], atol=6e-6
    )
    assert found["NumDF"].tolist() == [3, 1, 1, 2, 3, 1, 2]


# Terms that others span ---------------------------------------------------------------------------


@pytest.mark.parametrize("names", [{}, {"e": "A0"}, {"c": "z"}])
@pytest.mark.parametrize("type", [2, 3])
def test_a_term_that_others_span_has_nothing_to_test_whatever_the_names_of_levels(type, names):
    """Each drug has one route: the model without route is the same one (0 df in R's drop1 and in
    SAS).
    """
    data = drugs().assign(drug=lambda d: d.drug.replace(names))
    with pytest.warns(interlace.RankWarning, match="nothing to test about 'route'"):
        table = quiet_fit("y ~ route + drug + x + (1 | g)", data).anova(type)
    nested = quiet_fit("y ~ route/drug + x + (1 | g)", data).anova(type)
    assert (
        table.loc["route", "NumDF"] == 0
        and np.isnan(table.loc["route", ["F value", "Pr(>F)", "DenDF"]]).all()
    )
    within, same = (
        t.loc[name, ["NumDF", "F value"]] for t, name in ((table, "drug"), (nested, "route:drug"))
    )
    assert_allclose(within.astype(float), same.astype(float), rtol=1e-6)
    assert_allclose(table.loc["x", "F value"], nested.loc["x", "F value"], rtol=1e-6)


def test_numbers_that_other_terms_span_have_nothing_to_test():
    data = drugs().assign(dose=lambda d: d.drug.map({"a": 1.0, "b": 2, "c": 1, "d": 2, "e": 3}))
    with pytest.warns(interlace.RankWarning, match="'dose'"):
        table = quiet_fit("y ~ dose + drug + (1 | g)", data).anova()
    assert table["NumDF"].tolist() == [0, 3]


def test_a_term_that_comes_after_those_that_span_it_is_out_of_the_model():
    data = drugs()
    table, without = (
        quiet_fit(f"y ~ {f} + (1 | g)", data).anova(2) for f in ("drug + route + x", "drug + x")
    )
    pd.testing.assert_frame_equal(table, without, rtol=1e-6)
