"""Dataclasses that hold arrays, and sizes that programs leave open: what says so to JAX and to
stored programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
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


def stacked(dimension: str, described):
    """A description of arrays by the names of their dimensions, with one more before all others."""
    if isinstance(described, str):
        return f"{dimension} {described}".strip()
    if isinstance(described, tuple):
        parts = [stacked(dimension, part) for part in described]
        return type(described)(*parts) if hasattr(described, "_fields") else tuple(parts)
    if is_dataclass(described):
        arrays = [f.name for f in fields(described) if not f.metadata.get("static")]
        parts = {name: stacked(dimension, getattr(described, name)) for name in arrays}
        return replace(described, **parts)
    return described
