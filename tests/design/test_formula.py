"""Formula text: lme4's grammar, and errors that quote what they cannot read."""

import re

import pytest

from interlace_jax.design.formula import Formula, parse


def groups(formula: Formula) -> list[tuple[str, ...]]:
    return [term.group for term in formula.terms]


@pytest.mark.parametrize(
    "text, response, fixed",
    [
        ("y ~ x + (1|g)", "y", "x"),
        ("y~(1|g)", "y", "1"),
        ("~ x + (1|g)", None, "x"),
        ("y ~ (1|g) + x", "y", "x"),
        ("y ~ 0 + x + (1|g)", "y", "0 + x"),
        ("y ~ x + (1|g) - 1", "y", "x - 1"),
        ("log(y) ~ x*z - x:z + (1|g)", "log(y)", "x*z - x:z"),
        ("y ~ (a + b)**2 + (1 | g)", "y", "(a + b)**2"),
        ("y ~ x\n  + (1 | g)", "y", "x"),
    ],
)
def test_bars_are_split_off_the_fixed_part(text, response, fixed):
    formula = parse(text)
    assert (formula.response, formula.fixed, groups(formula)) == (response, fixed, [("g",)])


@pytest.mark.parametrize(
    "fixed", ["f(x | z)", "`a|b`", "C(f, levels=['a|b', 'c'])", "{x | z}", "np.log(x)"]
)
def test_bars_inside_calls_and_quotes_are_not_random_effects(fixed):
    formula = parse(f"y ~ {fixed} + ({fixed} | g)")
    assert (formula.fixed, formula.terms[0].columns, groups(formula)) == (fixed, fixed, [("g",)])


@pytest.mark.parametrize(
    "group, expected",
    [
        ("a/b", [("b", "a"), ("a",)]),
        ("a/b/c", [("c", "b", "a"), ("b", "a"), ("a",)]),
        ("a:b", [("a", "b")]),
        ("a:b/c", [("c", "a", "b"), ("a", "b")]),
        ("`my group`/k", [("k", "my group"), ("my group",)]),
        ("g.h", [("g.h",)]),
    ],
)
def test_nested_and_crossed_factors_are_named_as_in_lme4(group, expected):
    assert groups(parse(f"y ~ (1 | {group})")) == expected
    assert groups(parse("y ~ 1", groups=group)) == expected


def test_factor_name_joins_the_variables():
    assert parse("y ~ (1|batch/cask)").terms[0].factor == "cask:batch"


@pytest.mark.parametrize("bars, independent", [("|", False), ("||", True), (" || ", True)])
def test_double_bar_means_independent_columns(bars, independent):
    (term,) = parse(f"y ~ (1 + x{bars}g)").terms
    assert (term.independent, term.columns) == (independent, "1 + x")


def test_slopes_without_intercept_keep_their_text():
    formula = parse("y ~ (0+x|g) + (-1+x|h) + (x-1|k)")
    assert [term.columns for term in formula.terms] == ["0+x", "-1+x", "x-1"]


def test_three_spellings_give_the_same_terms():
    expected = groups(parse("y ~ x + (1 | g) + (1 | h)"))
    assert groups(parse("y ~ x", groups=["g", "h"])) == expected
    assert groups(parse("y ~ x", random="(1 | g) + (1 | h)")) == expected
    assert groups(parse("y ~ x + (1 | g)", random=("(1 | h)",))) == expected
    assert groups(parse("y ~ x", groups="g", random=["(1 | h)"])) == expected


@pytest.mark.parametrize("name", ["my group", "site-id", "2nd", "a.b"])
def test_groups_takes_any_single_column_name(name):
    assert groups(parse("y ~ x", groups=name)) == [(name,)]


@pytest.mark.parametrize(
    "arguments, printed",
    [
        (("y ~ x + (1+x|g)",), "y ~ x + (1+x|g)"),
        (("y ~ x", "g", "(0 + z || h)"), "y ~ x + (1 | g) + (0 + z || h)"),
        (("~ (1|a/b)",), "~ 1 + (1|a/b)"),
        (("y ~ x", "my group"), "y ~ x + (1 | `my group`)"),
    ],
)
def test_printed_formula_is_complete_and_parses_to_itself(arguments, printed):
    formula = parse(*arguments)
    assert str(formula) == printed
    assert parse(printed) == formula


def test_equal_texts_give_the_very_same_formula():
    assert parse("y ~ x", groups=["g"]) is parse("y ~ x", groups="g")


@pytest.mark.parametrize(
    "text, quoted",
    [
        ("y ~ (1 + x g)", "(1 + x g)"),
        ("y ~ (1|)", "(1|)"),
        ("y ~ (|g)", "(|g)"),
        ("y ~ x + (1|g", "x + (1|g"),
        ("y ~ x + (1|g))", "x + (1|g))"),
        ("y ~ x*(1|g)", "x*(1|g)"),
        ("y ~ (1|g):x", "(1|g):x"),
        ("y ~ x + 1|g", "1|g"),
        ("y ~ x (1|g)", "x (1|g)"),
        ("y ~ (1|a|b)", "(1|a|b)"),
        ("y ~ (1|||g)", "(1|||g)"),
        ("y ~ x - (1|g)", "- (1|g)"),
        ("y ~ (x*(1|g))", "x*(1|g)"),
        ("y ~ x + (1|g) - (1|h)", "- (1|h)"),
        ("y ~ x + (1|g) - (0 + x|g)", "- (0 + x|g)"),
        ("y ~ x - (z + (1|g))", "- (z + (1|g))"),
        ("y ~ (1|C(g))", "C(g)"),
        ("y ~ (1|a + b)", "a + b"),
        ("y ~ (1|1)", "(1|1)"),
        ("y ~ (1 + |g)", "1 +"),
        ("y ~ x + (1|g) +", "x +"),
        ("y ~ f('a + (1|g)", "f('a + (1|g)"),
    ],
)
def test_malformed_terms_are_quoted_beside_a_right_one(text, quoted):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert quoted in str(caught.value)
    assert any(right in str(caught.value) for right in ("(1 + x | g)", "(1 | g)"))


@pytest.mark.parametrize("response", ["a - b", "a + b", "y / 2", "-y", "1", "y | z", "a b"])
def test_response_is_one_column_or_call(response):
    with pytest.raises(ValueError, match=re.escape(repr(response)) + r".*I\(\.\.\.\)"):
        parse(f"{response} ~ x + (1|g)")
    assert parse(f"I({response}) ~ x + (1|g)").response == f"I({response})"


@pytest.mark.parametrize("text", ["y", "", "y = x + (1|g)", "a ~ b ~ (1|g)", "y ~ "])
def test_formula_needs_one_tilde_and_a_right_side(text):
    with pytest.raises(ValueError, match="~"):
        parse(text)


def test_formula_without_random_effects_shows_the_three_spellings():
    with pytest.raises(
        ValueError, match=r'groups="g", random="\(1 \+ x \| g\)", or \(1 \+ x \| g\) inside'
    ):
        parse("y ~ x", random=[])


@pytest.mark.parametrize(
    "random", ["1 + x | g", "(1 + x g)", "~ (1|g)", "(1|g) + x", "(1|g) - (1|h)", ""]
)
def test_random_takes_only_terms_in_parentheses(random):
    with pytest.raises(ValueError, match=r"\(1 \+ x \| g\)"):
        parse("y ~ x", random=random)


@pytest.mark.parametrize("arguments", [(3,), ("y ~ x", 3), ("y ~ x", [3]), ("y ~ x", None, 3)])
def test_arguments_that_are_no_text_are_type_errors(arguments):
    with pytest.raises(TypeError, match="text"):
        parse(*arguments)


@pytest.mark.parametrize("group", ["", "(1 | g)"])
def test_groups_takes_names_only(group):
    with pytest.raises(ValueError, match="column name"):
        parse("y ~ x", groups=group)


@pytest.mark.parametrize(
    "text, same",
    [
        ("y ~ x + ((1 | g) + (0 + x | g))", "y ~ x + (1 | g) + (0 + x | g)"),
        ("y ~ (x + (1 | g))", "y ~ x + (1 | g)"),
        ("y ~ x + ((1 | g))", "y ~ x + (1 | g)"),
        ("y ~ (((1 | g) + x) - z)", "y ~ (1 | g) + x - z"),
        ("y ~ (a + b):x + (1 | g)", "y ~ (a + b):x + (1 | g)"),
        ("y ~ x + (1 | factor(g))", "y ~ x + (1 | g)"),
        ("y ~ x + (1 | as.factor(a)/factor(`b c`))", "y ~ x + (1 | a/`b c`)"),
        ("y \u223c x \u2212 1\u00a0+ (1 | g)", "y ~ x - 1 + (1 | g)"),
    ],
)
def test_formulas_that_are_pasted_are_read(text, same):
    found, expected = parse(text), parse(same)
    assert (found.response, found.fixed) == (expected.response, expected.fixed)
    assert [(t.columns, t.group, t.independent) for t in found.terms] == [
        (t.columns, t.group, t.independent) for t in expected.terms
    ]


def test_copied_characters_inside_quotes_are_left_alone():
    assert (
        parse("y ~ `a\u2212b` + C(f, levels=['\u223c']) + (1|g)").fixed
        == "`a\u2212b` + C(f, levels=['\u223c'])"
    )


def test_names_with_loose_accents_are_names():
    assert parse("y ~ cafe\u0301 + (1 | g)").fixed == "`cafe\u0301`"
    assert groups(parse("y ~ (1 | cafe\u0301/b)")) == [("b", "cafe\u0301"), ("cafe\u0301",)]


@pytest.mark.parametrize(
    "text, left",
    [
        ("y ~ x + (1 | g) + (1 | h) - (1 | h)", "y ~ x + (1 | g)"),
        ("y ~ x + (1 | g) + (x + 1 | h) - (1+x|h)", "y ~ x + (1 | g)"),
        ("y ~ x + (1 | a/b) - (1 | a)", "y ~ x + (1 | b:a)"),
        ("y ~ x + (1 | a/b) + (1 | h) - (1 | a/b)", "y ~ x + (1 | h)"),
        ("y ~ x + (1 | g) - (1 | g) + (x | g)", "y ~ x + (x | g)"),
        ("y ~ x + (1 | g) + (0 + x || h) - ((0 + x || h))", "y ~ x + (1 | g)"),
    ],
)
def test_a_random_term_can_be_taken_away(text, left):
    assert str(parse(text)) == left


def test_nothing_is_left_when_the_last_random_term_is_taken_away():
    with pytest.raises(ValueError, match="no random effects"):
        parse("y ~ x + (1 | g) - (1 | g)")
