"""Warnings that say what is the matter with a fit. Wrong input is a ValueError or TypeError where it is found."""

from collections.abc import Iterable
from typing import Any


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
