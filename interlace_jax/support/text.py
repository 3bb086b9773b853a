"""Numbers, p-values and paragraphs as text."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable

import numpy as np

LINE = 80  # characters to which text is wrapped
NUMBER = 14  # characters; a column with longer numbers turns to scientific notation
DIGITS = 4  # significant digits of the smallest number of a column

STARS = {0.001: "***", 0.01: "**", 0.05: "*", 0.1: "."}
LEGEND = "Signif. codes: 0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


def _decimals(values: Iterable[float]) -> int:
    """How many the smallest number (but 0) needs to show its significant digits."""
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return max(0, DIGITS - 1 - int(np.floor(np.log10(sizes.min())))) if len(sizes) else DIGITS - 1


def _fixed(values: Iterable[float], decimals: int) -> list[str]:
    """The numbers of one column with the same decimals, or in scientific notation when one gets
    too long.
    """
    values = [float(v) for v in values]
    shown = [_number(v, f"z.{decimals}f") for v in values]
    return (
        shown
        if all(len(s) <= NUMBER for s in shown)
        else [_number(v, f".{DIGITS}e") for v in values]
    )


def _significant(values: Iterable[float]) -> list[str]:
    return _fixed(values, _decimals(values))


def _number(value: float, form: str) -> str:
    if np.isfinite(value):
        return format(value, form)
    return "NaN" if np.isnan(value) else "Inf" if value > 0 else "-Inf"


def _p_value(p: float) -> str:
    if p < 2e-16:
        return "<2e-16"
    return _number(p, ".2e" if p < 0.001 else ".4f")


def _stars(p: float) -> str:
    return next((stars for bound, stars in STARS.items() if p < bound), "")


def wrapped(text: str) -> str:
    """Lines of at most LINE characters; words stay whole."""
    fill = textwrap.TextWrapper(
        LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    ).fill
    return "\n".join(map(fill, text.split("\n")))


def padded(cell: str, wide: int, align: str) -> str:
    """The cell filled with blanks on the side that its alignment leaves: `l`, `r` or `c`."""
    space = wide - width(cell)
    before = {"l": 0, "r": space, "c": space // 2}[align]
    return " " * before + cell + " " * (space - before)


def width(text: str) -> int:
    """Columns of a terminal that the text takes: none for accents, two for East Asian letters."""
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text
    )


def free_name(name: str, taken: Iterable[str]) -> str:
    """A name for a column beside others: itself, or with underscores after it where it is taken."""
    while name in taken:
        name += "_"
    return name
