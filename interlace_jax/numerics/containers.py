"""Which dataclasses hold arrays: what JAX must know to look into them, and others without importing JAX."""

from dataclasses import dataclass

from ..support.later import as_pytree


class Size(str):
    """The name of a size (of levels, rows, coefficients) that a program is to leave open; see `runtime.programs`."""

    is_open_size = True


def container(cls: type) -> type:
    """A frozen dataclass whose fields are arrays or hold arrays, but those with `metadata=dict(static=True)`."""
    made = dataclass(frozen=True)(cls)
    made.__container__ = True
    as_pytree(made)
    return made
