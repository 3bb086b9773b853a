"""Calls in formulas: functions and columns in different places, numbers as R computes with them,
rows remembered.
"""

import numpy as np
import pytest
from helpers import expressions
from helpers.expressions import columns
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.design.design import build
from interlace_jax.design.expressions import columns_in, normal, shown
from interlace_jax.design.formula import parse
from interlace_jax.design.new_data import new_data


@pytest.fixture
def frame():
    return expressions.frame()


FUNCTION_NAMES = [
    "C",
    "I",
    "Q",
    "T",
    "F",
    "pi",
    "exp",
    "log",
    "poly",
    "scale",
    "contr",
    "np",
    "c",
    "mean",
    "bs",
    "max",
]
ODD_NAMES = [
    "class",
    "lambda",
    "is",
    "not",
    "x.1",
    "my x",
    "\u00b5g",
    "\u2126",
    "cafe\u0301",
    "~",
    "+",
    "|",
    "a:b",
    "True",
]
ODD_NAMES += ["_x78_", ".hidden", "if", "0", "(x", "x)", "%in%", "a-b", "$", "\u5e74"]


def quoted(name):
    return f"`{name}`"


@pytest.mark.parametrize("name", FUNCTION_NAMES + ODD_NAMES)
def test_a_column_of_any_name_is_a_predictor_a_category_a_group_and_an_argument(frame, name):
    named, q = frame.rename(columns={"x": name}), quoted(name)
    assert_array_equal(columns(q, named)[:, 0], frame.x)
    assert_allclose(columns(f"log({q}) + I({q}^2)", named), np.c_[np.log(frame.x), frame.x**2])
    assert_allclose(columns(f"{q}:b", named), columns("x:b", frame))
    named = frame.rename(columns={"k": name})
    assert_array_equal(columns(f"factor({q})", named), columns("factor(k)", frame))
    assert_array_equal(columns(f"C({q}, contr.sum)", named), columns("C(k, contr.sum)", frame))
    named = frame.rename(columns={"g": name})
    design = build(parse(f"y ~ x + (0 + exp(x) | {q})"), named)
    assert design.factors[0].name == name
    assert_allclose(design.factors[0].Z[:, 0], np.exp(frame.x))


@pytest.mark.parametrize(
    "name", [*FUNCTION_NAMES, "class", "lambda", "x.1", "\u00b5g", "\u2126", ".hidden", "\u5e74"]
)
def test_names_that_r_reads_need_no_backticks(frame, name):
    named = frame.rename(columns={"x": name})
    assert_allclose(columns(f"log({name})", named)[:, 0], np.log(frame.x))
    assert_allclose(columns(f"I({name} * 2)", named)[:, 0], 2.0 * frame.x)
    assert_allclose(columns(f"I(({name} > 1.5) + 0)", named)[:, 0], frame.x > 1.5)


def test_the_longest_name_with_dots_is_the_column(frame):
    assert_array_equal(columns("I(x.y + 0)", frame.assign(**{"x.y": frame.k}))[:, 0], frame.k)
    assert_allclose(columns("I(k.clip(2, 3) + 0)", frame)[:, 0], frame.k.clip(2, 3))


def test_quoted_names_of_patsy_are_columns(frame):
    named = frame.rename(columns={"f": "my f", "x": "exp"})
    assert_array_equal(columns("Q('my f')", named), columns("f", frame))
    assert_allclose(columns("log(Q('exp'))", named)[:, 0], np.log(frame.x))


def test_names_of_coefficients_are_those_that_were_written(frame):
    named = frame.rename(columns={"x": "x.1", "k": "class", "f": "my f"})
    design = build(parse("y ~ log(x.1)+factor(class) + C(`my f`) + (1 | g)"), named)
    assert design.columns[1:3] == ("log(x.1)", "C(class)[T.2]")
    assert design.columns[-1] == "C(`my f`)[T.r]"


def test_new_data_with_more_columns_change_no_names(frame):
    """A function or value of the fit stays one where new data have a column of that name."""
    design = build(parse("y ~ I(x * pi) + log(x) + (1 | g)"), frame)
    new = new_data(design, frame.assign(pi=0.0, log=0.0))
    assert_allclose(new.X, design.X)


@pytest.mark.parametrize(
    "text, missing",
    [("log(z)", "z"), ("z.clip(0)", "z"), ("I(x.z.w)", "x.z.w"), ("factor(id)", "id")],
)
def test_columns_that_are_not_there_are_named(frame, text, missing):
    frame = frame.drop(columns="x") if missing == "x.z.w" else frame
    with pytest.raises(ValueError, match=f"column '{missing}'.* is not in the data"):
        build(parse(f"y ~ {text} + (1 | g)"), frame)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("I(2 * k %% 3)", "comes before \\* in R"),
        ("I(k + 1 %in% c(2, 3))", "comes before \\+ in R"),
        ("I(k %in% c(2, 3) + 1)", "comes before \\+ in R"),
        ("I(k %o% k)", "unknown"),
        ("I(f & b)", "logicals and numbers"),
        ("x %in% (f + b)", "the right side of %in% is one variable"),
    ],
)
def test_what_python_would_read_otherwise_is_refused(frame, text, reason):
    with pytest.raises(ValueError, match=reason):
        build(parse(f"y ~ {text} + (1 | g)"), frame)


def test_whole_numbers_of_any_type_are_the_same_categories(frame):
    for made in ("factor(k)", "factor(k + 1)", "factor(k * 2L)"):
        designs = [
            build(parse(f"y ~ {made} + (1 | g)"), frame.astype({"k": kind}))
            for kind in (int, float, "int8")
        ]
        assert designs[0].columns == designs[1].columns == designs[2].columns
        assert_array_equal(new_data(designs[0], frame.astype({"k": float})).X, designs[0].X)
    assert designs[0].columns[1] == "C(k * 2)[T.4]"


@pytest.mark.parametrize(
    "text",
    [
        "I(x - x.mean())",
        "I(x / max(x))",
        "I((x - mean(x)) / sd(x))",
        "I((x - np.mean(x)) / np.std(x))",
        "I(x - x[0])",
        "I(x - x.iloc[3])",
        "I(x - median(x) + var(x))",
        "I(x > np.quantile(x, 0.3))",
        "np.searchsorted(np.quantile(x, [0.2, 0.7]), x)",
        "I(x * x.shape[0])",
        "I(x.values - x.values.mean())",
    ],
)
def test_statistics_of_the_rows_are_those_of_the_fit_in_new_rows(frame, text):
    design = build(parse(f"y ~ {text} + (1 | g)"), frame)
    for rows in ([5], [9, 2, 2], []):
        assert_allclose(new_data(design, frame.iloc[rows]).X, design.X[rows], rtol=1e-12)


@pytest.mark.parametrize(
    "text", ["x.rank()", "I(x.cumsum())", "np.sort(x)", "I(x / x.groupby(k).transform('mean'))"]
)
def test_columns_computed_from_several_rows_are_refused_in_new_rows(frame, text):
    design = build(parse(f"y ~ k + {text} + (1 | g)"), frame)
    with pytest.raises(ValueError, match="computed from several rows at once"):
        new_data(design, frame.iloc[:3])


def test_columns_of_other_rows_do_not_matter_where_they_are_not_asked_for(frame):
    design = build(parse("y ~ x + (x.rank() | g)"), frame)
    assert_allclose(new_data(design, frame.iloc[:3], random=False).X, design.X[:3])
    with pytest.raises(ValueError, match="'x.rank\\(\\)'"):
        new_data(design, frame.iloc[:3])


@pytest.mark.parametrize(
    "text",
    [
        "x.clip(1.2, 1.8)",
        "f.str.upper()",
        "np.where(x > 1.5, k, 0)",
        "x.round(1)",
        "I(x.abs() + b)",
    ],
)
def test_calls_row_by_row_are_not_refused(frame, text):
    design = build(parse(f"y ~ {text} + (1 | g)"), frame)
    assert_allclose(new_data(design, frame.iloc[:5]).X, design.X[:5])


@pytest.mark.parametrize("made", ["C(k)", "factor(f)", "f", "C(b)"])
def test_a_term_that_ends_without_a_column_is_said(frame, made):
    one = frame.assign(k=1, f="p", b=True)
    with pytest.warns(UserWarning, match="one level only"):
        design = build(parse(f"y ~ x + {made} + (1 | g)"), one)
    assert design.columns == ("Intercept", "x")


def test_a_column_and_a_call_of_one_name_are_refused(frame):
    with pytest.raises(ValueError, match="a column and a call"):
        build(parse("y ~ log(x) + `log(x)` + (1 | g)"), frame.assign(**{"log(x)": frame.k}))


@pytest.mark.parametrize(
    "text, display",
    [
        ("log( x )", "log(x)"),
        ('C(f, levels=["a"])', "C(f, levels=['a'])"),
        ("I((x > 0) & (k > 1))", "I((x > 0) & (k > 1))"),
        ("I(!b)", "I(not b)"),
        ("log(x.1)", "log(x.1)"),
        ("log(`my x`)", "log(`my x`)"),
        ("log(`x`)", "log(x)"),
        ("f('`a` & b')", "f('`a` & b')"),
    ],
)
def test_code_is_shown_as_it_was_written(text, display):
    assert normal(text) == display
    assert normal(display) == display


def test_messages_show_the_names_of_the_data():
    assert shown("name '_x6d792078_' is wrong") == "name '`my x`' is wrong"


def test_columns_in_code_are_found_beside_functions():
    assert columns_in(
        "exp(exp) + log(z) - np.pi", {"exp"}, {"exp": np.exp, "log": np.log, "np": np}
    ) == ["exp", "z"]
