"""What R's formulas write otherwise than formulaic's: translated where the meaning is the same,
else explained.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from formulaic.parser.algos.tokenize import tokenize

_SAME = (
    "sqrt",
    "log1p",
    "expm1",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "floor",
    "trunc",
    "sign",
)


def _log(x: Any, base: float | None = None) -> Any:
    return np.log(x) if base is None else np.log(x) / np.log(base)


def _exp10(x: Any) -> Any:
    return np.power(10.0, x)


def _listed(*values: Any) -> list[Any]:
    return list(values)


FUNCTIONS: dict[str, Any] = {
    **{name: getattr(np, name) for name in _SAME},
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "ceiling": np.ceil,
    "log": _log,
    "exp10": _exp10,
    "c": _listed,
}
"R's functions of each number by itself that formulaic does not name, or reads otherwise."


def _sd(x: Any) -> float:
    return np.std(np.asarray(x), ddof=1)


def _var(x: Any) -> float:
    return np.var(np.asarray(x), ddof=1)


STATISTICS: dict[str, Any] = {"mean": np.mean, "median": np.median, "sd": _sd, "var": _var}
"R's functions of all rows together."

CONSTANTS = {"pi": np.pi, "T": True, "F": False}
"R's names of values. As in R, a column of that name comes first."

_QUOTED = r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)"""
_WORDS = {
    "^": "**",
    "TRUE": "True",
    "FALSE": "False",
    "NULL": "None",
    "factor(": "C(",
    "as.factor(": "C(",
}
_WORD = re.compile(rf"{_QUOTED}|\^|\b(?:TRUE|FALSE|NULL)\b|(?<![\w.])(?:as\.)?factor\(")

_HINTS = {
    r"(?<![\w.(])\.(?![\w(])": "name the columns that '.' stands for, as in a + b",
    r"\boffset\(": "an offset is a summand of its own: y ~ x + offset(w) + (1 | g)",
    r"\bns\(": 'natural splines are cr(x, df=3, constraints="center"), B-splines bs(x, df=4)',
    r"\b(s|te|ti|t2)\(": "smooth terms are splines of fixed size: bs(x, df=4)",
    r"\brelevel\(": 'write C(f, contr.treatment(base="b")) for the reference level b',
    r"\bError\(": "write (1 | g) for the error stratum g",
    r"\bcbind\(": "several responses are fitted by fit_many",
    r"\w\$\w": "name the column alone, without the frame",
    r"\b(as\.\w+|\w+::\w+|\w+)\(": "make it a column of the data first",
    r"[=!<>]=|[<>]": "comparisons are written in I(), as in I(x > 3)",
}

_OPERATORS = {
    "\u223c": "~",
    "\uff5e": "~",
    "\u02dc": "~",
    "\u2212": "-",
    "\u2013": "-",
    "\u00a0": " ",
}
"Characters that word processors and PDF files put in place of operators and spaces."

_ACCENT = "\u0300-\u036f"
_COPIED = re.compile(
    rf"{_QUOTED}|(?P<accented>[^\W\d][\w.]*[{_ACCENT}][\w.{_ACCENT}]*)|[{''.join(_OPERATORS)}]"
)


def plain(text: str) -> str:
    """A formula as a keyboard writes it: operators of copied text replaced, names with loose
    accents in backticks.
    """

    def typed(found: re.Match[str]) -> str:
        return f"`{found[0]}`" if found["accented"] else _OPERATORS.get(found[0], found[0])

    return _COPIED.sub(typed, text)


def translated(text: str) -> str:
    """`text` with R's calls in Python: `I(x^2)`, `factor(g)`, `poly(x, 2, raw=TRUE)`.

    Code in braces is Python's.

    R's `a %in% b` between terms is `a:b`. Raises ValueError where its right side has several terms,
    which R joins to one, and where the word is none of R's.
    """
    for token in reversed(list(tokenize(text))):
        start, end = token.source_start, token.source_end + 1
        if token.kind.value == "python" and text[start] != "{":
            text = (
                text[:start]
                + _WORD.sub(lambda m: _WORDS.get(m[0], m[0]), text[start:end])
                + text[end:]
            )
        elif text[start] == "%":
            text = text[:start] + _within(text[start:]) + text[end + 1 :]
    return text


def _within(text: str) -> str:
    """The operator for the `%in%` that a text starts with."""
    found = re.match(r"(%[^%]*%)\s*(\(?)", text)
    if found is None or found[1] != "%in%":
        raise ValueError("of R's words between %% a formula has %in% alone")
    if found[2]:
        raise ValueError(
            "the right side of %in% is one variable; write a:b for the combinations of a and b"
        )
    return ":"


def check_numbers(text: str) -> None:
    """Raise ValueError where a number is anything but a summand 0 or 1, or a power.

    formulaic multiplies terms by numbers and forgets an intercept that is taken away inside
    parentheses: `x:5` is the term x there, and `a*(b - 1)` has an intercept. In R the first is no
    formula, and the second has none.
    """
    tokens = [(token.token, token.kind.value) for token in tokenize(text)]
    is_factor = [False]  # whether the parentheses around a token are part of a product
    for i, (token, kind) in enumerate(tokens):
        if token == "(" and kind == "context":
            is_factor.append(is_factor[-1] or _multiplies(tokens, i, _closing(tokens, i)))
        elif token == ")" and kind == "context":
            is_factor.pop()
        elif kind == "value" and token[0].isdigit() and tokens[i - 1][0] not in ("**", "^"):
            if is_factor[-1] or _multiplies(tokens, i, i):
                raise ValueError(
                    f"the number {token} is part of a product; a product with a number is "
                    f"I(x*{token})"
                )
            if token not in ("0", "1"):
                raise ValueError(
                    "the only numbers that may be terms are 0 (no intercept) and 1 (intercept), "
                    f"not {token}"
                )
            if len(is_factor) > 1 and (token == "0" or "-" in tokens[i - 1][0]):
                raise ValueError(
                    "the intercept is taken away inside parentheses; write 0 + outside of them"
                )


def _multiplies(tokens: list[tuple[str, str]], first: int, last: int) -> bool:
    """Whether the tokens from `first` to `last` are part of a product, and no summand."""
    before = tokens[first - 1][0] if first else "+"
    after = tokens[last + 1][0] if last + 1 < len(tokens) else "+"
    return not (set(before) <= set("+-(") and after[0] in "+-)")


def _closing(tokens: list[tuple[str, str]], opening: int) -> int:
    """The place of the parenthesis that closes the one at `opening`."""
    depth = 0
    for i in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[i][0], 0)
        if depth == 0:
            return i
    return len(tokens) - 1


def hint(text: str) -> str:
    """What to write instead of R's words in a text that could not be read or evaluated."""
    return next((f"; {words}" for pattern, words in _HINTS.items() if re.search(pattern, text)), "")
