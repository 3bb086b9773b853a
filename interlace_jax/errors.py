"""Warnings that say what is the matter with a fit, and words for errors, which are ValueErrors and TypeErrors."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np


class SingularFitWarning(UserWarning):
    """A variance is estimated at 0 or a correlation at -1 or 1: the data do not support all random effects."""


class ConvergenceWarning(UserWarning):
    """The optimiser ended where the deviance may still fall; the message carries the numbers."""


class RankWarning(UserWarning):
    """Fixed-effects columns that depend linearly on the others were left out."""


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")


def whole_number(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small a one."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")


def numbers(name: str, values: Any) -> np.ndarray:
    """Values as an array of floats."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError) as err:
        raise ValueError(f"{name} must be numbers: {err}") from None


def listed(names: Iterable[Any], most: int = 10) -> str:
    """Names for a message: the first of them, quoted, and how many there are."""
    names = [name.item() if isinstance(name, np.number | np.bool_ | np.str_) else name for name in names]
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")
