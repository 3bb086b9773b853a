"""R's way of writing formulas: its meaning where Python has the same, advice where it has not."""

import pytest
from helpers.fits import quiet_fit, sleepstudy
from numpy.testing import assert_allclose

from interlace_jax import emmeans
from interlace_jax.design.dialect import check_numbers, hint, translated


@pytest.mark.parametrize(
    "formula, deviance, beta",
    [
        ("Reaction ~ Days + I(Days^2) + (1 | Subject)", 1792.944, [255.4494, 7.434085, 0.3370223]),
        (
            "Reaction ~ poly(Days, 2, raw=TRUE) + (1 | Subject)",
            1792.944,
            [255.4494, 7.434085, 0.3370223],
        ),
        (
            "Reaction ~ sqrt(Days) * as.factor(Days > 4) + (1 | Subject)",
            1795.404,
            [252.6642, 15.42883, -75.95653, 41.06086],
        ),
        ("log(Reaction^2) ~ Days + (0 + I(Days^2) | Subject)", 16.0151, [11.06319, 0.06504253]),
    ],
)
def test_formulas_of_r_have_the_numbers_of_r(formula, deviance, beta):
    """lmer(formula, sleepstudy, REML = FALSE), lme4 1.1-31, printed to seven digits.

    Days are integers: ^ is no xor.
    """
    fit = quiet_fit(formula, sleepstudy(), method="ML")
    assert_allclose(-2 * fit.llf, deviance, rtol=5e-7)
    assert_allclose(fit.fe_params, beta, rtol=1e-6)


def test_factor_makes_categories_that_new_data_and_marginal_means_know():
    fit = quiet_fit("Reaction ~ factor(Days) + (1 | Subject)", sleepstudy())
    assert fit.fe_params.index[1] == "C(Days)[T.1]"
    means = emmeans(fit, "Days").frame.emmean
    assert_allclose(fit.predict(sleepstudy()[:10], include_re=False), means)


@pytest.mark.parametrize(
    "text, python",
    [
        ("x^2", "x^2"),
        ("(a + b)^2", "(a + b)^2"),
        ("I(x^2):factor(g) + I(z^3)", "I(x**2):C(g) + I(z**3)"),
        ("as.factor(g)", "C(g)"),
        ("scale(x, scale=FALSE)", "scale(x, scale=False)"),
        ("{x ^ 2} + `a^b`", "{x ^ 2} + `a^b`"),
        (
            "C(g, levels=['a^b', \"TRUE\"]) + I(`a^b`^2)",
            "C(g, levels=['a^b', \"TRUE\"]) + I(`a^b`**2)",
        ),
        ("I(TRUEST) + refactor(x)", "I(TRUEST) + refactor(x)"),
        ("C(factor(g), contr.sum)", "C(C(g), contr.sum)"),
        (r"I(g == 'it\'s^2') + I(x^2)", r"I(g == 'it\'s^2') + I(x**2)"),
    ],
)
def test_calls_are_translated_and_nothing_else(text, python):
    assert translated(text) == python


@pytest.mark.parametrize(
    "fixed, advice",
    [
        (".", "name the columns"),
        (". - x", "name the columns"),
        ("x * offset(log(x))", "y ~ x + offset(w)"),
        ("ns(x, 3)", "cr(x, df=3"),
        ("splines::ns(x, 3)", "cr(x, df=3"),
        ("s(x)", "bs(x, df=4)"),
        ("relevel(Subject, ref='b')", "contr.treatment"),
        ("x + Error(Subject)", "(1 | g)"),
        ("as.numeric(x)", "column of the data"),
        ("ifelse(x > 3, 1, 0)", "column of the data"),
        ("x == 3", "I(x > 3)"),
    ],
)
def test_errors_say_what_to_write_instead_of_the_words_of_r(fixed, advice):
    with pytest.raises(ValueError, match="cannot be (read|evaluated)") as caught:
        quiet_fit(f"Reaction ~ {fixed} + (1 | Subject)", sleepstudy().rename(columns={"Days": "x"}))
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "call, python",
    [
        ("poly(Days, 2, raw=T)", "poly(Days, 2, raw=True)"),
        ("scale(Days, scale = F)", "scale(Days, scale=False)"),
        ("sin(2 * pi * Days / 7)", "sin(2 * np.pi * Days / 7)"),
    ],
)
def test_constants_of_r_are_known(call, python):
    ours, plain = (
        quiet_fit(f"Reaction ~ {text} + (1 | Subject)", sleepstudy()) for text in (call, python)
    )
    assert_allclose(ours.fe_params.to_numpy(), plain.fe_params.to_numpy())
    assert_allclose(ours.predict(sleepstudy()[:10]), ours.fittedvalues[:10])


def test_a_column_comes_before_a_constant_of_that_name():
    data = sleepstudy().assign(pi=lambda d: d.Days)
    assert_allclose(
        quiet_fit("Reaction ~ I(pi) + (1 | Subject)", data).fe_params.iloc[1], 10.46729, rtol=1e-6
    )


def test_functions_that_are_unknown_are_to_be_columns():
    with pytest.raises(ValueError, match="column of the data first"):
        quiet_fit("Reaction ~ Days + pmax(Reaction, 0) + (1 | Subject)", sleepstudy())


@pytest.mark.parametrize("text", ["x + z", "df.x", "0.5", "x:z - 1"])
def test_there_is_no_advice_where_nothing_is_of_r(text):
    assert hint(text) == ""


@pytest.mark.parametrize(
    "text, message",
    [
        ("x:5", "the number 5 is part of a product; a product with a number is I"),
        ("2.5 * x", "the number 2.5 is part of a product"),
        ("x / 1", "the number 1 is part of a product"),
        ("(1 + x):z", "the number 1 is part of a product"),
        ("(a + (b - 1)) * c", "the number 1 is part of a product"),
        ("x + 5", "the only numbers that may be terms are 0 \\(no intercept\\) and 1"),
        ("(0 + x) + z", "taken away inside parentheses; write 0 [+] outside"),
        ("(x - 1) + z", "taken away inside parentheses"),
    ],
)
def test_numbers_that_are_no_terms_of_r_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        check_numbers(text)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "0 + x",
        "-1 + x",
        "x - 1",
        "((1)) + x",
        "(1 + x) + z",
        "(x + z)^2",
        "x**2",
        "I(5*x):z",
        "poly(x, 2):z",
    ],
)
def test_intercepts_powers_and_numbers_in_calls_are_read(text):
    check_numbers(text)
