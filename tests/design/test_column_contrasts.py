"""Contrasts declared for columns, against lme4 with the same contrasts.

The numbers are of R 4.2, lme4 1.1-31, MASS 7.3-58 and lmerTest 3.1-3: `contrasts(d$f) <- ...`,
which codes fixed and random terms alike (lmer's own `contrasts=` leaves random slopes as they
were).
"""

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax as interlace

CAKE = "angle ~ recipe * temp + (1 | replicate)"


@pytest.fixture(scope="module")
def cake():
    return interlace.load_dataset("cake")


@pytest.mark.parametrize(
    ("kind", "names", "estimates", "errors"),
    [
        ("sum", ["S.A", "S.B"], [1.0, -0.477777777778], [0.413639067737] * 2),
        (
            "contr.helmert",
            ["H.B", "H.C"],
            [-0.738888888889, -0.261111111111],
            [0.358221940657, 0.206819533868],
        ),
        ("sdif", ["B-A", "C-B"], [-1.4777777777778, -0.0444444444444], [0.716443881316] * 2),
        ("poly", [".L", ".Q"], [-1.076373655806, 0.585155882998], [0.506602326818] * 2),
        ("SAS", ["T.A", "T.B"], [1.5222222222222, 0.0444444444444], [0.716443881316] * 2),
    ],
)
def test_coefficients_are_those_of_lme4(cake, kind, names, estimates, errors):
    fit = quiet_fit(CAKE, cake, contrasts={"recipe": kind, "temp": "sum"})
    names = [f"recipe[{name}]" for name in names]
    assert fit.fe_params.index[1:3].tolist() == names
    assert_allclose(fit.fe_params[names], estimates, rtol=1e-6)
    assert_allclose(fit.fe_bse[names], errors, rtol=1e-6)


MATRIX = np.array([[-1 / 2, -1 / 3], [1 / 2, -1 / 3], [0, 2 / 3]])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (MATRIX, ["1", "2"]),
        ({"ab": MATRIX[:, 0], "c": MATRIX[:, 1]}, ["ab", "c"]),
        (pd.DataFrame(MATRIX[[2, 0, 1]], index=list("CAB"), columns=["ab", "c"]), ["ab", "c"]),
    ],
)
def test_matrices_of_ones_own(cake, given, names):
    fit = quiet_fit("angle ~ recipe + temp + (1 | replicate)", cake, contrasts={"recipe": given})
    names = [f"recipe[{name}]" for name in names]
    assert_allclose(fit.fe_params[names], [-1.477777777777, -0.783333333333], rtol=1e-6)
    assert_allclose(fit.fe_bse[names], [0.714878572764, 0.619103004635], rtol=1e-6)


@pytest.fixture(scope="module")
def crossed():
    """With contrasts in all terms."""
    formula = "rt ~ condition + (1 + condition | subject) + (1 | item)"
    return quiet_fit(formula, interlace.load_dataset("crossed"), contrasts={"condition": "sum"})


def test_random_slopes_are_coded_alike(crossed):
    """By bobyqa to 1e-9."""
    assert_allclose(crossed.fe_params, [620.7476803111, -11.0943285441], rtol=1e-6)
    vcov = crossed.varcorr["vcov"].to_numpy()
    wanted = [7945.5593704, 236.4806798, -784.7379239, 1929.1506649, 9001.7315192]
    assert_allclose(vcov, wanted, rtol=1e-4)
    assert_allclose(crossed.llf, -5418.10945191, rtol=1e-9)


def test_tests_means_and_predictions_do_not_depend_on_them(crossed):
    words = interlace.load_dataset("crossed")
    plain = quiet_fit(str(crossed.design.formula), words)
    for table in (
        lambda fit: fit.anova(),
        lambda fit: interlace.emmeans(fit, "condition").frame[["emmean", "se", "df"]],
        lambda fit: fit.predict(words.head(7), interval="prediction"),
        lambda fit: fit.drop1(),
    ):
        assert_allclose(table(crossed), table(plain), rtol=1e-4)


def test_they_stay_in_updates_batches_and_files(crossed, cake, tmp_path):
    assert crossed.update(method="ML").fe_params.index[1] == "condition[S.congruent]"
    assert crossed.update("~ . - condition", method="ML").fe_params.index.tolist() == ["Intercept"]
    plain = crossed.update(contrasts=None)
    assert plain.fe_params.index[1] == "condition[T.incongruent]"
    given = dict(contrasts={"recipe": "sdif", "temp": "helmert"})
    fit = quiet_fit(CAKE, cake, **given)
    fit.save(tmp_path / "fit.npz")
    new = cake.iloc[[5, 100, 200]]
    assert_allclose(interlace.load(tmp_path / "fit.npz").predict(new), fit.predict(new))
    right = CAKE.partition("~")[2]
    many = interlace.fit_many(f"~ {right}", cake, responses=["angle"], **given)
    assert_allclose(many.fe_params.to_numpy()[0], fit.fe_params, rtol=1e-5)
    assert many["angle"].fe_params.index.tolist() == fit.fe_params.index.tolist()


def test_all_levels_are_coded_where_there_is_no_intercept(cake):
    for coding in ("sdif", MATRIX):
        fit = quiet_fit("angle ~ 0 + recipe + (1 | replicate)", cake, contrasts={"recipe": coding})
        means = cake.groupby("recipe")["angle"].mean()
        assert_allclose(fit.fe_params, means, rtol=1e-6)


def test_families_have_them_too():
    cbpp = interlace.load_dataset("cbpp")
    formula, family = "incidence ~ period + (1 | herd)", dict(family="binomial", trials="size")
    coded = quiet_fit(formula, cbpp, contrasts={"period": "sdif"}, **family)
    plain = quiet_fit(formula, cbpp, **family)
    assert_allclose(coded.fe_params["period[p2-p1]"], plain.fe_params["period[T.p2]"], rtol=1e-4)
    assert coded.update("~ .").fe_params.index[1] == "period[p2-p1]"


def test_the_reference_level_is_named(cake):
    given = {"recipe": ("treatment", "B")}
    fit = quiet_fit("angle ~ recipe + (1 | replicate)", cake, contrasts=given)
    assert fit.fe_params.index[1:].tolist() == ["recipe[T.A]", "recipe[T.C]"]


@pytest.mark.parametrize(
    ("contrasts", "error", "match"),
    [
        ({"recipes": "sum"}, ValueError, "'recipes'.*there are 'recipe', 'x'"),
        ({"x": "sum"}, ValueError, "'x', whose values are numbers"),
        ({"recipe": "sums"}, ValueError, "contrasts of 'recipe' must be 'treatment' or 'sum'"),
        ({"recipe": np.eye(2)}, ValueError, "rows for 1, 2; the levels are 'A', 'B', 'C'"),
        ({"recipe": np.eye(3)}, ValueError, "have room for 2"),
        ({"recipe": ("treatment", "Z")}, ValueError, "the reference 'Z'; the levels are 'A'"),
        ({"recipe": [["a"], ["b"]]}, ValueError, "contrasts of 'recipe' must be numbers"),
        ("sum", TypeError, "must be a mapping"),
        (("sum",), TypeError, "must be a mapping"),
    ],
)
def test_what_fits_no_column_is_refused_in_words(cake, contrasts, error, match):
    frame = cake.assign(x=np.arange(len(cake)) % 7)
    with pytest.raises(error, match=match):
        interlace.compile("angle ~ recipe + x + (1 | replicate)", frame, contrasts=contrasts)
