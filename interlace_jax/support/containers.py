"""Dataclasses that hold arrays, and sizes that programs leave open: what says so to JAX and to
stored programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

from .later import as_pytree

T = TypeVar("T")


class Size(str):
    """The name of a size (of levels, rows, coefficients) that a program takes as an argument, or an
    expression of some.

    It stands in place of the size where arguments are described for any size; see
    `runtime.programs.trees`.
    """

    __slots__ = ()


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def container(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are arrays or hold arrays, but those with
    `metadata=dict(static=True)`.
    """
    made: Any = dataclass(frozen=True)(cls)
    made.__container__ = True
    as_pytree(made)
    return made
