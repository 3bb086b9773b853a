"""Options of XLA's compiler for programs that take longer to compile than to run."""

from __future__ import annotations

import functools

from ..support.later import jax

_IN_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
_LIGHT = _IN_ORDER | {"xla_cpu_use_fusion_emitters": False}
_BRIEF = _LIGHT | {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}


class Jitted:
    """`jax.jit` of a function, applied when it is first needed; `run` may do without."""

    def __init__(self, function, options=None, **settings):
        functools.update_wrapper(self, function)
        self.options, self._settings = options, settings

    def of(self, *args) -> Jitted:
        """The one that compiles for such arguments."""
        return self

    @functools.cached_property
    def _made(self):
        known = self.options if self.options and _are_known() else None
        return jax.jit(self.__wrapped__, compiler_options=known, **self._settings)

    def __call__(self, *args):
        """What the function returns."""
        return self._made(*args)

    def lower(self, *args):
        """The program for such arguments, to be compiled."""
        return self._made.lower(*args)


class _Choice(Jitted):
    """One of two, by the arguments."""

    def __init__(self, quick, usual, where):
        super().__init__(quick.__wrapped__)
        self._quick, self._usual, self._where = quick, usual, where

    def of(self, *args):
        return (self._quick if self._where(*args) else self._usual).of(*args)

    def __call__(self, *args):
        return self.of(*args)(*args)

    def lower(self, *args):
        return self.of(*args).lower(*args)


def jit(function, **settings):
    """`jax.jit`, applied when the function is first called; `run` may do without."""
    return Jitted(function, **settings)


def in_order(compiled):
    """A jitted function whose programs do one thing after another on a processor; not to be called
    while JAX traces.

    XLA would look for what can be done at the same time. Where all that takes long is parallel in
    itself, or there is nothing that takes long, this costs more than it brings.
    """
    return Jitted(compiled.__wrapped__, _IN_ORDER)


def light(compiled, where=None):
    """A jitted function whose programs take half as long to compile; for arguments `where` only.

    Of XLA's two generators of code for loops the older one is the quicker. Its programs are as fast
    where gathers dominate or matrices are small, and slower elsewhere: measure.
    """
    quick = Jitted(compiled.__wrapped__, _LIGHT)
    if where is None:
        return quick
    usual = compiled if isinstance(compiled, Jitted) else Jitted(compiled.__wrapped__)
    return _Choice(quick, usual, where)


def brief(compiled):
    """A jitted function of so little work that its programs are compiled without optimising."""
    return Jitted(compiled.__wrapped__, _BRIEF)


@functools.cache
def _are_known() -> bool:
    """Whether JAX knows all these options."""
    try:
        jax.jit(lambda: 0.0, compiler_options=_BRIEF).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
