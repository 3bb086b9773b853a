"""Where host code calls compiled code: float64, one BLAS thread, and compilations remembered
between processes.

Nothing of it outlives a call: JAX's configuration and the BLAS threads are as the user left them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from typing import Any

import numpy as np
import platformdirs
from threadpoolctl import ThreadpoolController

from ..support.later import Later, is_imported, jax
from .compilation import Jitted
from .programs import tiers
from .programs.dimensions import DIMENSIONS

compilation_cache = Later("jax.experimental.compilation_cache.compilation_cache")
PACKAGE = __name__.partition(".")[0] + "."
_SWITCHES = {
    # the default stores no compilation under a second
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}

_TRANSFERS = ("host_to_device", "device_to_host", "device_to_device")
_CHECK_EVERY = 8  # programs; each takes some 200 memory maps
_MAPS = "/proc/self/maps"
_lock = threading.RLock()
_compiled: set = set()
_switched = [0]  # times that JAX's cache was turned on or off


def run(function, *args):
    """Call a jitted function in float64 and return its result as NumPy arrays.

    A float64 JAX array that left the 64-bit context would silently become float32 at its next
    operation. Called while JAX traces a user's program, it is evaluated at once: its arguments are
    never traced.
    """
    name = _name(function)
    if name is not None:
        with _BLAS:
            done, result = tiers.result(name, function, args, DIMENSIONS.get(name))
        if done:
            return result
    tiers.ran("xla")
    with jax.core.eval_context(), float64(), own_rules(), _BLAS:
        leaves, tree = jax.tree.flatten(args)
        key = function, tree, tuple((np.shape(a), getattr(a, "dtype", type(a))) for a in leaves)
        if key in _compiled:
            return jax.tree.map(np.asarray, function(*args))
        if len(_compiled) % _CHECK_EVERY == 0 and _is_crowded():
            _forget_programs()
        with _compile_cache():
            result = jax.tree.map(np.asarray, function(*args))
        _compiled.add(key)
        return result


def run_inside(function, *args):
    """Call a jitted function inside of a `session`: arrays of JAX stay there, others are as in
    `run`.
    """
    name = _name(function)
    if name is not None:
        done, result = tiers.result(name, function, args, DIMENSIONS.get(name))
        if done:
            return result
    return function(*args)


def placed(tree, always: bool = False):
    """Arrays as they are where work on them is small enough to run as NumPy, else, or always, as
    JAX's.
    """
    small = not always and tiers.is_small(jax.tree.leaves(tree)) and jax.default_backend() == "cpu"
    return tree if small else jax.device_put(tree)


def _name(function) -> str | None:
    """By what name stored programs know a jitted function of the package; None where it is not one
    of a module's own.

    What wraps another function, as its gradient does, bears that function's name without being it.
    """
    if not isinstance(function, Jitted):
        return None
    kernel = function.__wrapped__
    if not (kernel.__module__ or "").startswith(PACKAGE):
        return None
    known = getattr(sys.modules.get(kernel.__module__), kernel.__qualname__, None)
    return (
        f"{kernel.__module__}:{kernel.__qualname__}"
        if known is kernel or known is function
        else None
    )


def _is_crowded() -> bool:
    """Whether compiled programs, in some hundred models, have used half of the memory maps that
    Linux allows.
    """
    if not os.path.exists(_MAPS):
        return False
    with open(_MAPS, "rb") as maps, open("/proc/sys/vm/max_map_count") as limit:
        return sum(1 for _ in maps) > int(limit.read()) // 2


def _forget_programs():
    """Drop all compiled programs: at the limit of memory maps the next one would end the process.

    Only JAX's caches as a whole let go of them. What is needed again comes back from the
    compilation cache.
    """
    jax.clear_caches()
    _compiled.clear()


def float64():
    """JAX's 64-bit context; a thread of its own must enter it for itself."""
    return jax.enable_x64(True)


def float32():
    """The context in which no constant widens what is in single precision."""
    return jax.enable_x64(False)


@contextlib.contextmanager
def session():
    """What `run` sets up, for work that keeps arrays in JAX over many calls."""
    with jax.core.eval_context(), float64(), own_rules(), _BLAS, _compile_cache():
        yield


@contextlib.contextmanager
def own_rules():
    """JAX's usual rules, whatever those of the caller's own program: the checks of a thread are for
    what it wrote.

    Transfers and promotions are allowed, programs are compiled, and intermediate infinities, which
    selections leave out, are no errors. Where JAX is not imported there is nothing to set.
    """
    if not is_imported() or _are_usual():
        yield
        return
    with (
        jax.transfer_guard("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
    ):
        yield


def _are_usual() -> bool:
    """Whether JAX's rules are already those: to ask costs a tenth of setting them."""
    known = jax.config
    guards = (getattr(known, f"jax_transfer_guard_{way}", "unknown") for way in _TRANSFERS)
    return (
        known.jax_numpy_dtype_promotion == "standard"
        and not (known.jax_disable_jit or known.jax_debug_nans or known.jax_debug_infs)
        and all(guard in (None, "allow") for guard in guards)
    )


class _OneBlasThread:
    """JAX's CPU LAPACK spins on SciPy's BLAS threads: with a busy neighbour a factorisation takes
    60 times as long.

    Their number is the process's. The first of several threads that are inside at once sets it, and
    the last to leave puts back what the first found.
    """

    def __init__(self):
        self._lock, self._inside = threading.Lock(), 0
        self._found: list[tuple[Any, int]] = []  # libraries, and their threads before

    @functools.cached_property
    def _libraries(self) -> list:
        return ThreadpoolController().select(user_api="blas").lib_controllers

    def __enter__(self):
        with self._lock:
            if self._inside == 0:
                self._found = [(library, library.num_threads) for library in self._libraries]
                self._set(1)
            self._inside += 1

    def __exit__(self, *_):
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(None)

    def _set(self, number: int | None) -> None:
        """So many threads, or those that were found, where it was another number."""
        for library, before in self._found:
            if before != 1:
                library.set_num_threads(before if number is None else number)


_BLAS = _OneBlasThread()


@contextlib.contextmanager
def _compile_cache():
    """Keep compilations in the user's cache folder, unless they have a folder of their own or
    INTERLACE_JAX_CACHE=0.

    The switch is process-wide; resetting the cache on both sides keeps the user's own compilations
    out of our folder.
    """
    if jax.config.jax_compilation_cache_dir or os.environ.get("INTERLACE_JAX_CACHE") == "0":
        yield
        return
    with _lock:
        before = {name: getattr(jax.config, name) for name in _SWITCHES}
        try:
            _switch(platformdirs.user_cache_dir("interlace_jax"), _SWITCHES)
            yield
        finally:
            _switch(None, before)


def cache_switches() -> int:
    """How often JAX's cache has been turned on or off here: other threads may compile meanwhile."""
    return _switched[0]


def _switch(folder, settings):
    _switched[0] += 1
    jax.config.update("jax_compilation_cache_dir", folder)
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
