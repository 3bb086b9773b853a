"""Checks of arguments, in words: what was expected, and what was given."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")


def chosen(name: str, value: str, allowed: Iterable[str]) -> str:
    """The one of the values allowed that is given, in capitals or not: R writes "Kenward-Roger"."""
    found = value.lower() if isinstance(value, str) else value
    one_of(name, found, allowed)
    return found


def whole_number(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small a one."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")


def texts(name: str, value: Any, example: str) -> tuple[str, ...]:
    """One text or several of them, as a tuple; None is none."""
    if hasattr(value, "to_numpy") and not isinstance(value, str):
        raise TypeError(
            f'{name} takes text such as "{example}", the name of a column and not its values'
        )
    found = () if value is None else (value,) if isinstance(value, str) else value
    if isinstance(found, Iterable):
        found = tuple(found)
        if all(isinstance(text, str) for text in found):
            return found
    raise TypeError(
        f'{name} must be text such as "{example}" or a list of such texts, not {value!r}'
    )


def check_mapping(name: str, value: Any, example: str) -> None:
    """Refuse what is neither a mapping nor None."""
    if not isinstance(value, Mapping | None):
        raise TypeError(f"{name} must be a mapping such as {example}, not {value!r}")


def check_level(level: float, name: str = "level") -> None:
    """Refuse a probability that is none."""
    if not (isinstance(level, int | float) and 0 < level < 1):
        raise ValueError(
            f"{name} must lie between 0 and 1, as in {0.95 if name == 'level' else 0.05}, not "
            f"{level!r}"
        )


def numbers(name: str, values: Any) -> np.ndarray:
    """Values as an array of floats, NaN where they are masked."""
    try:
        if np.iscomplexobj(values):
            raise TypeError("these are complex; take their real part, absolute value or angle")
        if np.ma.isMaskedArray(values):
            return values.astype(float).filled(np.nan)
        return np.asarray(values, float)
    except (TypeError, ValueError) as err:
        raise ValueError(f"{name} must be numbers: {err}") from None


def listed(names: Iterable[Any], most: int = 10) -> str:
    """Names for a message: the first of them, quoted, and how many there are."""
    names = [
        name.item() if isinstance(name, np.number | np.bool_ | np.str_) else name for name in names
    ]
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")
