"""Formula text -> Formula(response, fixed, terms): lme4's bars, split off and spelled out.

Strings only.

formulaic reads the fixed part and the slopes; it knows no bars, so they are taken out here first.
All scanning is done on a *mask* of the text, in which every name, number and function call is
replaced by the letters `n`, `v`, `f`: bars and parentheses inside calls, quotes and backticks can
then not be mistaken for lme4's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from formulaic.errors import FormulaicError
from formulaic.parser.algos.tokenize import tokenize

from ..support.arguments import texts
from .column_contrasts import Declared, declared
from .dialect import plain
from .residual_formula import TAGS, Power, Residual, dispersion_of, residual_of

SPELLINGS = 'groups="g", random="(1 + x | g)", or (1 + x | g) inside the formula'


@dataclass(frozen=True)
class Term:
    """One random-effects term on one grouping factor; (1 | a/b) makes two of them."""

    columns: str
    "The slopes as formulaic text; an intercept is implied, as in the fixed part."
    group: tuple[str, ...]
    "The variables whose combinations are the levels, in the order of lme4's label."
    independent: bool
    "Written with ||: no correlations between the columns."
    text: str
    "As the user wrote it, for messages and printing."

    @property
    def factor(self) -> str:
        """lme4's name of the grouping factor: `Subject`, `cask:batch`."""
        return ":".join(self.group)


@dataclass(frozen=True)
class Formula:
    """A mixed-model formula.

    `str()` gives it in lme4's spelling, `groups=` and `random=` included.
    """

    response: str | None
    fixed: str
    terms: tuple[Term, ...]
    offsets: tuple[str, ...] = ()
    "What stands in offset(...), which is added to the linear predictor."
    auxiliary: tuple[tuple[str, str], ...] = ()
    """Predictors of other parameters than the mean by the argument that has them: ('dispersion',
    'site').
    """
    residual: Residual | None = None
    "How the residuals of one subject covary; None: they do not."
    dispersion: str | Power | None = None
    "On what the residual SD depends: the right side of a formula, or a power; None: on nothing."
    contrasts: Declared = ()
    "How columns are coded that are not coded by treatment contrasts."

    def __str__(self) -> str:
        offsets = [f"offset({inner})" for inner in self.offsets]
        right = " + ".join([self.fixed, *offsets, *dict.fromkeys(term.text for term in self.terms)])
        return f"{self.response} ~ {right}" if self.response else f"~ {right}"


def parse(
    formula: str,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    residual: str | Residual | None = None,
    dispersion: str | Power | None = None,
    *,
    contrasts: Mapping[str, Any] | Declared | None = None,
    proportion: bool = False,
) -> Formula:
    """Read a mixed-model formula in lme4's grammar.

    Random effects come from `groups` (random intercepts: "g", "a:b", "a/b", or several), from
    `random` ("(1 + x | g)", or several) and from bars inside `formula`; the three may be mixed, and
    are kept in the order formula, groups, random. Without a left side ("~ x") the response is None.
    With `residual` ("us(visit | id)") or `dispersion` ("~ sex") there may be no random effects.
    contrasts: by column how all terms code it, `{"prime": "sum"}`.
    proportion: whether the left side may be a quotient of two columns, successes / trials.

    Raises ValueError, quoting the piece and a right spelling, for malformed text or when no random
    effects are given; TypeError when an argument is no text.
    """
    if not isinstance(formula, str):
        raise TypeError(
            f'formula must be text such as "y ~ x + (1 | g)", not {type(formula).__name__}'
        )
    terms = tuple(map(plain, texts("random", random, "(1 + x | g)")))
    given = residual_of(residual), dispersion_of(dispersion)
    parsed = _parse(plain(formula), texts("groups", groups, "g"), terms, proportion, *given)
    coding = declared(contrasts)
    return replace(parsed, contrasts=coding) if coding else parsed


@lru_cache(maxsize=1024)
def _parse(
    formula: str,
    groups: tuple[str, ...],
    random: tuple[str, ...],
    proportion: bool,
    residual: Residual | None,
    dispersion: str | Power | None,
) -> Formula:
    response, right = _sides(formula, proportion)
    fixed, bars, offsets = _split_right(right)
    terms = _combined(bars)
    terms += [term for text in groups for term in _intercepts(text)]
    terms += [term for text in random for bar in _only_bars(text) for term in _terms(bar)]
    if not terms and residual is None and dispersion is None:
        raise ValueError(
            f"the formula {formula!r} has no random effects; write {SPELLINGS}; or give residual= "
            "or dispersion="
        )
    return Formula(response, fixed, tuple(terms), offsets, residual=residual, dispersion=dispersion)


# Masks --------------------------------------------------------------------------------------------

_LETTERS = {"name": "n", "value": "v", "python": "f"}


def _mask(text: str) -> str:
    """`text`, of the same length, with its operands blanked out; parentheses are checked to be
    balanced.
    """
    mask = list(text)
    try:
        for token in tokenize(text):
            if letter := _LETTERS.get(token.kind.value):
                # A backtick or brace that closes the operand is not counted in by the tokenizer.
                end = token.source_end + 1 + (text[token.source_start] in "`{")
                mask[token.source_start : end] = letter * (end - token.source_start)
    except FormulaicError as err:
        raise ValueError(
            f"{text!r} cannot be read ({_first_line(err)}); write y ~ x + (1 | g)"
        ) from err
    _check_balance(text, "".join(mask))
    return "".join(mask)


def _first_line(err: Exception) -> str:
    return str(err).strip().split("\n")[0].rstrip(".")


def _check_balance(text: str, mask: str) -> None:
    depths = _depths(mask)
    if any(depth < 0 for depth in depths) or (depths and depths[-1] != 0):
        raise ValueError(
            f"the parentheses in {text!r} do not match; a random-effects term is written (1 + x | "
            "g)"
        )


def _depths(mask: str) -> list[int]:
    """How many parentheses are open at each character; an opening one counts itself, a closing
    one no more.
    """
    depths, depth = [], 0
    for char in mask:
        depth += (char in "([") - (char in ")]")
        depths.append(depth)
    return depths


def _cut(text: str, operators: str) -> list[tuple[str, str]]:
    """Split at the operators outside parentheses: [(operator before the piece, piece), ...], the
    first with ''.
    """
    mask = _mask(text)
    at = [i for i, depth in enumerate(_depths(mask)) if depth == 0 and mask[i] in operators]
    starts, ends = [0, *(i + 1 for i in at)], [*at, len(text)]
    return [
        (text[a - 1] if a else "", text[a:b].strip()) for a, b in zip(starts, ends, strict=True)
    ]


# The formula --------------------------------------------------------------------------------------


def _sides(formula: str, proportion: bool) -> tuple[str | None, str]:
    pieces = [piece for _, piece in _cut(formula, "~")]
    if len(pieces) != 2:
        raise ValueError(
            f'the formula {formula!r} needs exactly one "~", as in "y ~ x + (1 | g)" or "~ x + (1 '
            '| g)"'
        )
    left = _mask(pieces[0])
    is_quotient = proportion and re.fullmatch(r"n+\s*/\s*n+", left)
    # formulaic would read a - b as "a, without the term b"
    if not re.fullmatch("(n+|f+)?", left) and not is_quotient:
        raise ValueError(
            f"the response {pieces[0]!r} must be a column or a call; write I(...) ~ ... for "
            "arithmetic"
        )
    if not pieces[1]:
        raise ValueError(
            f'the formula {formula!r} has nothing after "~"; write "y ~ 1 + (1 | g)" for an '
            "intercept"
        )
    return pieces[0] or None, pieces[1]


def _split_right(right: str) -> tuple[str, list[tuple[str, str]], tuple[str, ...]]:
    """The fixed part, the random terms in parentheses with their signs, and what stands in
    offset(...).
    """
    pieces = _summands(right)
    for _, piece in pieces:
        _refuse_structure(piece)
    bars = [(sign, piece) for sign, piece in pieces if _is_bar(piece)]
    offsets = [(sign, piece) for sign, piece in pieces if _is_offset(sign, piece)]
    fixed = _joined([pair for pair in pieces if pair not in bars and pair not in offsets])
    _check_operands(fixed)
    return fixed, bars, tuple(piece[piece.index("(") + 1 : -1].strip() for _, piece in offsets)


def _is_offset(sign: str, piece: str) -> bool:
    """Whether the summand is offset(...)."""
    if not re.fullmatch(r"offset\s*\(.*\)", piece, re.DOTALL) or not re.fullmatch(
        "f+", _mask(piece)
    ):
        return False
    if sign == "-":
        raise ValueError(
            f"an offset is a summand: leave '- {piece}' out, or write + offset(-(...))"
        )
    return True


def with_auxiliary(formula: Formula, **given: str | None) -> Formula:
    """The formula with predictors of other parameters, given as one-sided formulas:
    dispersion="~ site".
    """
    found = []
    for name, text in given.items():
        if text is None:
            continue
        if not isinstance(text, str) or not text.lstrip().startswith("~") or "|" in text:
            raise ValueError(
                f'{name}= takes a one-sided formula of fixed effects such as "~ x", not {text!r}'
            )
        right = text.lstrip()[1:].strip()
        _check_operands(right)
        found.append((name, right))
    return replace(formula, auxiliary=tuple(found))


def _summands(text: str) -> list[tuple[str, str]]:
    """Summands with their signs.

    Parentheses around random terms are opened: lme4 prints (x || g) with such.
    """
    found = []
    for sign, piece in _cut(text, "+-"):
        if not _encloses_bars(piece):
            found.append((sign, piece))
            continue
        inner = _summands(piece[1:-1])
        if sign == "-" and len(inner) > 1:
            raise ValueError(
                f"'- {piece}' takes several terms away; take each away by itself, as in - x - (1 "
                "| g)"
            )
        found += [(inner_sign or sign, inner_piece) for inner_sign, inner_piece in inner]
    return found


def _encloses_bars(piece: str) -> bool:
    """Whether the piece is of parentheses around random terms, and no such term itself."""
    mask = _mask(piece)
    depths = _depths(mask)
    bars = [depth for char, depth in zip(mask, depths, strict=True) if char == "|"]
    return bool(bars) and mask[0] == "(" and depths.index(0) == len(mask) - 1 and min(bars) > 1


def _combined(bars: Sequence[tuple[str, str]]) -> list[Term]:
    """The random terms, those taken away left out."""
    terms: list[Term] = []
    for sign, bar in bars:
        if sign != "-":
            terms += _terms(bar)
            continue
        away = {_meaning(term) for term in _terms(bar)}
        if away - {_meaning(term) for term in terms}:
            shown = ", ".join(dict.fromkeys(term.text for term in terms)) or "none"
            raise ValueError(
                f"'- {bar}' takes a term away that is not among those before it ({shown}); "
                "a random-effects term is a summand (1 + x | g)"
            )
        split = {term.text for term in terms if _meaning(term) in away}
        terms = [_alone(term, split) for term in terms if _meaning(term) not in away]
    return terms


def _meaning(term: Term) -> tuple[frozenset[tuple[str, str]], frozenset[str], bool]:
    """What two spellings of one term have in common."""
    pieces = [(sign or "+", re.sub(r"\s", "", piece)) for sign, piece in _cut(term.columns, "+-")]
    columns = frozenset(pair for pair in pieces if pair != ("+", "1"))
    return columns, frozenset(term.group), term.independent and len(columns) > 0


def _alone(term: Term, split: set[str]) -> Term:
    """The term with a text of its own, where another one of the same text was taken away."""
    if term.text not in split:
        return term
    names = ":".join(name if re.fullmatch(r"[\w.]+", name) else f"`{name}`" for name in term.group)
    return replace(term, text=f"({term.columns} {'||' if term.independent else '|'} {names})")


def _refuse_structure(piece: str) -> None:
    """`us(visit | id)` in a formula: elsewhere a random effect of visits, in mmrm the residual
    covariance.
    """
    found = re.fullmatch(r"(\w+)\s*\(([^()|]*)\|([^()|]*)\)", piece)
    if found and (found[1] in TAGS or found[1] in ("hetar1", "homcs", "homtoep")):
        raise ValueError(
            f"the term {piece!r}: a covariance structure of residuals is an argument, "
            f"residual={piece!r}; that of a random effect is (0 + {found[2].strip()} | "
            f"{found[3].strip()}) with cov="
        )


def _joined(pieces: Sequence[tuple[str, str]]) -> str:
    text = " ".join(f"{sign} {piece}" if sign else piece for sign, piece in pieces).strip()
    return text.removeprefix("+").strip() or "1"


def _is_bar(piece: str) -> bool:
    """Whether a piece is a random term; one with bars that is not of that form is an error."""
    mask = _mask(piece)
    if "|" not in mask:
        return False
    depths = _depths(mask)
    enclosed = mask[0] == "(" and depths.index(0) == len(mask) - 1
    if not enclosed or any(c == "|" and d != 1 for c, d in zip(mask, depths, strict=True)):
        raise ValueError(
            f"the term {piece!r} cannot be read; a random-effects term is a summand (1 + x | g)"
        )
    return True


def _check_operands(text: str) -> None:
    """Name what formulaic would only call a syntax error: a missing operator (a forgotten bar),
    a missing operand.
    """
    mask = _mask(text)
    for what, pattern in _MISSING.items():
        if re.search(pattern, mask):
            raise ValueError(
                f"{text!r} lacks an {what}; a random-effects term is written (1 + x | g)"
            )


_MISSING = {
    "operator between two names": r"[nvf)]\s+[nvf(]",
    "operand": r"[-+*/:^]\s*(\)|$)|\(\s*\)",
}


# Random effects -----------------------------------------------------------------------------------


def _terms(bar: str) -> list[Term]:
    """`(1 + x | a/b)` -> its terms."""
    pieces = _cut(bar[1:-1], "|")
    independent = len(pieces) == 3 and pieces[1][1] == ""
    columns, group = pieces[0][1], pieces[-1][1]
    if len(pieces) != 2 and not independent or not columns or not group:
        raise ValueError(
            f"the term {bar!r} cannot be read; write (slopes | factor), as in (1 + x | g) or (1 | "
            "g)"
        )
    _check_operands(columns)
    return [Term(columns, variables, independent, bar) for variables in _nested(group, bar)]


def _nested(group: str, where: str) -> list[tuple[str, ...]]:
    """`a/b/c` -> (c, b, a), (b, a), (a,); `a:b` -> (a, b)."""
    group = _FACTOR.sub(r"\1", group)
    mask = _mask(group)
    if not re.fullmatch(r"n+(\s*[:/]\s*n+)*", mask):
        raise ValueError(
            f"the grouping factor {group!r} of {where!r} must be a column name, or names joined "
            "by ':' or '/', as in (1 | g), (1 | a:b) or (1 | a/b); quote other names with "
            "backticks"
        )
    chain = [
        tuple(_unquoted(name) for _, name in _cut(segment, ":")) for _, segment in _cut(group, "/")
    ]
    chain = [
        tuple(name for segment in reversed(chain[:k]) for name in segment)
        for k in range(len(chain), 0, -1)
    ]
    return [tuple(dict.fromkeys(variables)) for variables in chain]


_FACTOR = re.compile(r"(?<![\w.])(?:as\.)?factor\(\s*(`[^`]+`|[\w.]+)\s*\)")
"R's `factor(g)` as a grouping factor, which any column is here."


def _unquoted(name: str) -> str:
    return name.strip("`")


def _intercepts(group: str) -> list[Term]:
    """The terms of `groups=`: names as in a formula, or any one column name taken as it is."""
    group = group.strip()
    if not group or "|" in group:
        raise ValueError(
            f'groups={group!r} must be a column name such as "g"; write random="(1 | g)" for terms'
        )
    if not re.search("[:/`]", group) and not re.fullmatch("n+", _try_mask(group)):
        group = f"`{group}`"
    bar = f"(1 | {group})"
    return _terms(bar)


def _try_mask(text: str) -> str:
    try:
        return _mask(text)
    except ValueError:
        return ""


def _only_bars(text: str) -> list[str]:
    """The terms of `random=`, which may be joined by +."""
    sides = _cut(text, "~")
    pieces = _summands(sides[0][1])
    if len(sides) > 1 or not all(sign != "-" and _is_bar(piece) for sign, piece in pieces):
        raise ValueError(
            f'random={text!r} cannot be read; write random="(1 + x | g)", or a list of such terms'
        )
    return [piece for _, piece in pieces]
