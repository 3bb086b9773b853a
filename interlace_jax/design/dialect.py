"""What R's formulas write otherwise than formulaic's: translated where the meaning is the same, else explained."""

from __future__ import annotations

import re

import numpy as np
from formulaic.parser.algos.tokenize import tokenize

FUNCTIONS = {name: getattr(np, name) for name in ("sqrt", "log1p", "expm1", "sin", "cos", "tan")}
"R's functions of numbers that formulaic does not name."

CONSTANTS = {"pi": np.pi, "T": True, "F": False}
"R's names of values. As in R, a column of that name comes first."

_QUOTED = r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)"""
_WORDS = {"^": "**", "TRUE": "True", "FALSE": "False", "NULL": "None", "factor(": "C(", "as.factor(": "C("}
_WORD = re.compile(rf"{_QUOTED}|\^|\b(?:TRUE|FALSE|NULL)\b|(?<![\w.])(?:as\.)?factor\(")

_HINTS = {
    r"(?<![\w.(])\.(?![\w(])": "name the columns that '.' stands for, as in a + b",
    r"\boffset\(": "an offset is a summand of its own: y ~ x + offset(w) + (1 | g)",
    r"\bns\(": 'natural splines are cr(x, df=3, constraints="center"), B-splines bs(x, df=4)',
    r"\b(s|te|ti|t2)\(": "smooth terms are splines of fixed size: bs(x, df=4)",
    r"\brelevel\(": 'write C(f, contr.treatment(base="b")) for the reference level b',
    r"\bError\(": "write (1 | g) for the error stratum g",
    r"\bcbind\(": "several responses are fitted by fit_many",
    r"\b(as\.\w+|\w+::\w+|\w+)\(": "make it a column of the data first",
    r"[=!<>]=|[<>]": "comparisons are written in I(), as in I(x > 3)",
}


def translated(text: str) -> str:
    """`text` with R's calls in Python: `I(x^2)`, `factor(g)`, `poly(x, 2, raw=TRUE)`. Code in braces is Python's."""
    for token in reversed(list(tokenize(text))):
        start, end = token.source_start, token.source_end + 1
        if token.kind.value == "python" and text[start] != "{":
            text = text[:start] + _WORD.sub(lambda m: _WORDS.get(m[0], m[0]), text[start:end]) + text[end:]
    return text


def hint(text: str) -> str:
    """What to write instead of R's words in a text that could not be read or evaluated."""
    return next((f"; {words}" for pattern, words in _HINTS.items() if re.search(pattern, text)), "")
