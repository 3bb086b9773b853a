"""Options of XLA's compiler for programs that take longer to compile than to run."""

from __future__ import annotations

import functools

from ..support.later import jax

_IN_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
_LIGHT = _IN_ORDER | {"xla_cpu_use_fusion_emitters": False}
_BRIEF = _LIGHT | {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}


def jit(function, **options):
    """`jax.jit`, applied when the function is first called; `run` may do without."""
    made = functools.cache(lambda: jax.jit(function, **options))
    return functools.wraps(function)(lambda *args: made()(*args))


def in_order(compiled):
    """A jitted function whose programs do one thing after another on a processor; not to be called
    while JAX traces.

    XLA would look for what can be done at the same time. Where all that takes long is parallel in
    itself, or there is nothing that takes long, this costs more than it brings.
    """
    return _with_options(compiled, _IN_ORDER)


def light(compiled, where=lambda *args: True):
    """A jitted function whose programs take half as long to compile; `compiled` itself for
    arguments not `where`.

    Of XLA's two generators of code for loops the older one is the quicker. Its programs are as fast
    where gathers dominate or matrices are small, and slower elsewhere: measure.
    """
    quick = _with_options(compiled, _LIGHT)

    @functools.wraps(compiled.__wrapped__)
    def call(*args):
        return (quick if where(*args) else compiled)(*args)

    return call


def brief(compiled):
    """A jitted function of so little work that its programs are compiled without optimising
    them.
    """
    return _with_options(compiled, _BRIEF)


def _with_options(compiled, options):
    function = compiled.__wrapped__
    made = functools.cache(
        lambda: jax.jit(function, compiler_options=options if _are_known() else None)
    )
    return functools.wraps(function)(lambda *args: made()(*args))


@functools.cache
def _are_known() -> bool:
    """Whether JAX knows all these options."""
    try:
        jax.jit(lambda: 0.0, compiler_options=_BRIEF).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
