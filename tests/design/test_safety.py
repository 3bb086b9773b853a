"""Formulas that only compute are told from those that could do anything else."""

import re

import pytest

from interlace_jax.design.formula import parse
from interlace_jax.design.safety import why_unsafe


@pytest.mark.parametrize(
    "text",
    [
        "y ~ x + (1 | g)",
        "y ~ poly(x, 2) + log(z) + (1 + x | g)",
        "y ~ np.exp(x) * I(x > 2) + (1 | g)",
        "y ~ C(f, contr.sum) + (1 | g)",
    ],
)
def test_functions_of_formulas_are_safe(text):
    assert why_unsafe(parse(text)) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("y ~ I(__import__('os').system('true')) + (1 | g)", "__import__"),
        ("y ~ open(x) + (1 | g)", "a call of 'open'"),
        ("y ~ np.load(x) + (1 | g)", "'np.load'"),
        ("y ~ I(x.__class__) + (1 | g)", "__class__"),
        ("y ~ I([v for v in x]) + (1 | g)", "listcomp"),
        ("y ~ I((lambda: x)()) + (1 | g)", "lambda|call"),
        ("eval(y) ~ x + (1 | g)", "a call of 'eval'"),
    ],
)
def test_anything_else_is_named(text, found):
    reason = why_unsafe(parse(text))
    assert reason is not None
    assert re.search(found, reason)
