"""JAX and other slow imports, made when something of them is first used: a fit from stored programs
needs no JAX.

    from ..support.later import jax, jnp, lax

What needs JAX where a module is made (decorators, annotations that are evaluated) would import it
at once: kernels take `custom_jvp` from here, hosts `runtime.compilation.jit`, and modules begin
with `from __future__ import annotations`.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from typing import Any

_waiting: list = []  # containers that JAX is to know
_telling = threading.RLock()


class Later:
    """A module that is imported when something of it is first used."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if self._name.startswith("jax"):
            importlib.import_module("jax")  # waits for another thread that does; its parts do not
            _tell_jax()
        found = getattr(importlib.import_module(self._name), attribute)
        self.__dict__[attribute] = found
        return found


jax, jnp, lax = Later("jax"), Later("jax.numpy"), Later("jax.lax")
special = Later("scipy.special")


def is_imported() -> bool:
    """Whether JAX is there, imported by the user or here, and not still being imported."""
    module = sys.modules.get("jax")
    return module is not None and not getattr(module.__spec__, "_initializing", False)


def is_jax_array(value) -> bool:
    """Whether this is an array of JAX, traced or not."""
    return is_imported() and isinstance(value, jax.Array)


def is_traced(value) -> bool:
    """Whether this is an array of a program that JAX is tracing."""
    return is_imported() and isinstance(value, jax.core.Tracer)


def as_pytree(cls: type) -> None:
    """Have JAX look into a dataclass, once JAX is there."""
    _waiting.append(cls)
    if is_imported():
        _tell_jax()


def catch_up() -> None:
    """Register what was made before the user imported JAX."""
    if is_imported():
        _tell_jax()


def _tell_jax() -> None:
    """Register the containers that JAX does not know yet."""
    with _telling:
        while _waiting:
            importlib.import_module("jax.tree_util").register_dataclass(_waiting.pop())


class custom_jvp:  # noqa: N801 - as the one of JAX
    """`jax.custom_jvp`, applied when the function is first called."""

    def __init__(self, function):
        self._function, self._rule = function, None
        functools.update_wrapper(self, function)

    def defjvp(self, rule):
        """Take the rule of the derivative."""
        self._rule = rule
        return rule

    @functools.cached_property
    def _made(self):
        made = jax.custom_jvp(self._function)
        made.defjvp(self._rule)
        return made

    def __call__(self, *args):
        """What the function returns."""
        return self._made(*args)
