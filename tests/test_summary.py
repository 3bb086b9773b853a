"""What people read: the summary, the warnings of singular fits, and the variance tables."""

import copy
import warnings
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from helpers import summaries
from helpers.summaries import at
from scipy import special

import interlace_jax as interlace
from interlace_jax.inference.coefficients import Coefficients
from interlace_jax.result import Fit


@pytest.fixture
def sleepstudy():
    return summaries.sleepstudy()


@pytest.fixture
def slope():
    return summaries.slope()


@pytest.fixture
def crossed():
    return summaries.crossed()


def judged_by(fit, coefficients):
    """The fit with tests of these coefficients in place of its own."""
    twin = copy.copy(fit)
    twin._remembered = {("coefficients", "satterthwaite"): coefficients}
    return twin


def section(text, title):
    """Lines of the table under a title, split at blanks."""
    lines = text[text.index(title) :].split("\n\n")[0].splitlines()[1:]
    return [line.split() for line in lines]


# The summary


def test_summary_of_sleepstudy_has_the_published_numbers(slope):
    # R 4.2, lme4 1.1.31, lmerTest 3.1.3; quantiles of the residuals as lme4 prints them.
    assert (
        str(slope.summary())
        == """\
Linear mixed model fit by REML (Satterthwaite df)
Formula: Reaction ~ Days + (1 + Days | Subject)

     AIC      BIC   logLik REML criterion
1755.628 1774.786 -871.814       1743.628

Scaled residuals:
    Min      1Q Median     3Q    Max
-3.9536 -0.4634 0.0231 0.4634 5.1793

Random effects:
Groups   Name        Variance Std.Dev. Corr
Subject  (Intercept)   612.09   24.740
         Days           35.07    5.922 0.07
Residual               654.94   25.592

Number of obs: 180, groups: Subject, 18

Fixed effects:
          Estimate Std. Error    df t value Pr(>|t|)
Intercept  251.405      6.825 17.00  36.838   <2e-16 ***
Days        10.467      1.546 17.00   6.771 3.26e-06 ***

Signif. codes: 0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1

Correlation of fixed effects:
     Intercept
Days    -0.138

Optimum: converged, less than 1e-09 deviance units to gain"""
    )


def test_summary_says_how_the_model_was_fitted(sleepstudy):
    ml = interlace.compile("Reaction ~ Days + (1 + Days | Subject)", sleepstudy).fit(
        "ML", df_method="normal"
    )
    text = str(ml.summary())
    assert text.startswith("Linear mixed model fit by maximum likelihood (normal approximation)\n")
    assert "AIC BIC logLik deviance".split() in [line.split() for line in text.splitlines()]
    header, intercept, _ = section(text, "Fixed effects:")
    assert header == "Estimate Std. Error z value Pr(>|z|)".split()
    assert intercept == ["Intercept", "251.405", "6.632", "37.906", "<2e-16", "***"]


def test_summary_lists_factors_correlations_and_rows_left_out(crossed):
    text = str(crossed.summary())
    assert (
        "Number of obs: 890, groups: subject, 40; item, 24\n3 rows with missing values left out"
        in text
    )
    rows = section(text, "Random effects:")
    assert [row[0] for row in rows] == [
        "Groups",
        "subject",
        "condition[T.incongruent]",
        "item",
        "Residual",
    ]
    S = crossed.covariances["subject"].to_numpy()
    assert float(rows[2][-1]) == pytest.approx(S[0, 1] / np.sqrt(S[0, 0] * S[1, 1]), abs=0.005)
    assert [len(row) for row in rows] == [5, 4, 4, 4, 3]  # correlations stay inside a term


def test_summary_names_weights_and_columns_left_out(sleepstudy):
    data = sleepstudy.assign(Twice=2 * sleepstudy.Days, w=np.linspace(1, 2, len(sleepstudy)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = interlace.fit(
            "Reaction ~ Days + Twice",
            data,
            groups="Subject",
            weights="w",
            offset=np.ones(len(data)),
        )
    text = str(fit.summary())
    assert "\nWeights: w\nOffset: an array\n" in text
    assert "\nLeft out, as they depend linearly on the columns before them: Twice\n" in text
    scaled = fit.resid.to_numpy() * np.sqrt(data.w) / fit.sigma
    shown = [float(cell) for cell in section(text, "Scaled residuals:")[1]]
    np.testing.assert_allclose(shown, np.quantile(scaled, [0, 0.25, 0.5, 0.75, 1]), atol=5e-5)


def test_summary_without_fixed_effects(slope):
    class Without(Fit):
        fe_params = fe_bse = fe_df = fe_pvalues = fe_tvalues = pd.Series(dtype=float)

    fit = Without(slope.model, slope.estimate, "REML", "satterthwaite")
    assert "\n\nNo fixed effects\n\n" in str(fit.summary())
    ElementTree.fromstring(fit._repr_html_())


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_numbers_of_any_size_keep_their_digits(slope, scale):
    e = slope.estimate
    fit = at(slope, beta=scale * e.beta, sigma=scale * e.sigma, vcov=scale**2 * e.vcov)
    vars(fit)["fe_df"] = slope.fe_df
    text = str(fit.summary())
    for row, name in zip(section(text, "Fixed effects:")[1:], ["Intercept", "Days"], strict=True):
        assert float(row[1]) == pytest.approx(fit.fe_params[name], abs=fit.fe_bse[name] / 1000)
        assert float(row[2]) == pytest.approx(fit.fe_bse[name], rel=1e-3)
    variances = [float(row[-2]) for row in section(text, "Random effects:")[1::2]]
    np.testing.assert_allclose(variances, [fit.varcorr.vcov[0], fit.scale], rtol=1e-3)
    assert max(map(len, text.splitlines())) < 100


def test_columns_of_mixed_sizes_turn_to_scientific_notation(slope):
    fit = at(slope, beta=np.array([1e12, 1e-9]), vcov=np.diag([1e20, 1e-20]))
    vars(fit)["fe_df"] = slope.fe_df
    _, intercept, days = section(str(fit.summary()), "Fixed effects:")
    assert intercept[1:3] == ["1.0000e+12", "1.0000e+10"]
    assert days[1:3] == ["1.0000e-09", "1.0000e-10"]


def test_what_could_not_be_computed_is_shown_as_nan(slope):
    fit = judged_by(
        slope, Coefficients(slope.design.columns, slope.estimate.beta, np.full((2, 2), np.nan))
    )
    text = str(fit.summary())
    assert section(text, "Fixed effects:")[1] == [
        "Intercept",
        "251.405",
        "NaN",
        "Inf",
        "NaN",
        "NaN",
    ]
    assert "Signif. codes" not in text


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (1e-16, "<2e-16 ***"),
        (3.264e-6, "3.26e-06 ***"),
        (0.004, "0.0040 **"),
        (0.04, "0.0400 *"),
        (0.06, "0.0600 ."),
        (1.0, "1.0000"),
    ],
)
def test_p_values_and_stars(slope, p, shown):
    z = -special.ndtri(p / 2)
    fit = judged_by(slope, Coefficients(slope.design.columns, np.full(2, z), np.eye(2)))
    assert section(str(fit.summary()), "Fixed effects:")[1][5:] == shown.split()


def test_long_names_are_numbered_in_the_table_of_correlations(sleepstudy):
    long = "days_" * 20
    data = sleepstudy.rename(columns={"Days": long})
    fit = interlace.fit(f"Reaction ~ {long}", data, groups="Subject", df_method="normal")
    r = fit.fe_cov.iloc[0, 1] / np.prod(fit.fe_bse)
    rows = section(str(fit.summary()), "Correlation of fixed effects:")
    assert rows == [["(1)"], ["(1)", "Intercept"], ["(2)", long, f"{r:.3f}"]]


def test_many_fixed_effects_have_no_table_of_correlations(slope):
    names = [f"x{i}" for i in range(13)]

    class Given(Fit):
        fe_params = pd.Series(0.5, names)

    given = Given(slope.model, slope.estimate, "REML", "satterthwaite")
    text = str(judged_by(given, Coefficients(tuple(names), np.full(13, 0.5), np.eye(13))).summary())
    assert len(section(text, "Fixed effects:")) == 14
    assert "Correlation of fixed effects" not in text


def test_names_of_other_scripts_keep_the_columns_aligned(sleepstudy):
    wide = "\u65e5\u6570"  # two East Asian letters, four columns of a terminal
    data = sleepstudy.rename(columns={"Days": wide})
    fit = interlace.fit(f"Reaction ~ {wide}", data, groups="Subject", df_method="normal")
    lines = str(fit.summary()).splitlines()
    intercept, days = (
        next(line for line in lines if line.startswith(name)) for name in ("Intercept", wide)
    )
    assert intercept.index(".") == days.index(".") + 2


# HTML


@pytest.mark.parametrize("name", ["slope", "crossed"])
def test_html_is_well_formed_and_has_the_cells_of_the_text(name, request):
    fit = request.getfixturevalue(name)
    root = ElementTree.fromstring(fit._repr_html_())
    cells = [cell.text.split() for cell in root.iter("td") if cell.text and cell.text.strip()]
    words = str(fit.summary()).split()
    assert len(cells) > 20
    assert all(word in words for cell in cells for word in cell)


def test_html_escapes_names(sleepstudy):
    data = sleepstudy.rename(columns={"Subject": "<b>&"})
    html = interlace.fit("Reaction ~ Days", data, groups="<b>&", df_method="normal")._repr_html_()
    assert "&lt;b&gt;&amp;" in html
    assert "<b>&" not in html


# Singular fits


# Data frames
