"""Numbers as papers print them: as many decimals as their uncertainty allows, p-values without a
leading zero.
"""

from __future__ import annotations

import numpy as np

from ..support.text import _number

LEAST = 2  # decimals that papers print, even of large numbers
LONG = 1e7  # from here on numbers are in scientific notation
SMALL = 1e-5


def decimals(uncertainty: float, digits: int = 2) -> int:
    """How many show a standard error to so many significant digits; LEAST where it is large or
    not known.
    """
    if not np.isfinite(uncertainty) or uncertainty <= 0.0:
        return LEAST
    return max(LEAST, digits - 1 - int(np.floor(np.log10(uncertainty))))


def shown(value: float, places: int) -> str:
    """A number with so many decimals; empty if it is missing, in scientific notation if it would
    be long.
    """
    if np.isnan(value):
        return ""
    too_long = abs(value) >= LONG or places > -np.log10(SMALL)
    return _number(value, f".{LEAST}e" if too_long else f"z.{places}f")


def interval(low: float, high: float, places: int) -> str:
    """Limits in brackets; empty if they are missing."""
    return (
        "" if np.isnan(low) or np.isnan(high) else f"[{shown(low, places)}, {shown(high, places)}]"
    )


def p_value(p: float) -> str:
    """`<.001` or three decimals; empty if it is missing."""
    if np.isnan(p):
        return ""
    return (
        "<.001"
        if p < 0.0005
        else _number(min(p, 0.9999), ".3f").removeprefix("0")
        if p < 0.9995
        else "1.000"
    )


def degrees(df: float) -> str:
    """One decimal; `Inf` for the normal distribution, empty if they are missing."""
    return "" if np.isnan(df) else _number(df, ".1f")
