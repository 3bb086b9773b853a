"""Compiled programs by what they are made for: in memory, on disk, or compiled now. Imports JAX.

What is on disk is found without tracing. It is of one processor and one version of JAX. In memory
are those that were used last, so that a long session does not grow.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import eval_context
from jax.experimental import serialize_executable

from ..calls import cache_switches, float64, own_rules
from ..compilation import Jitted
from . import store
from .trees import Flat, rebuilt

MOST = 64  # executables in memory, of a megabyte or two each
PROCESSOR = ("flags", "Features")  # lines of /proc/cpuinfo that say what code may run
Failed = jax.errors.JaxRuntimeError
_loaded: OrderedDict[Hashable, Callable] = OrderedDict()
_lock = threading.Lock()


def are_possible() -> bool:
    """Whether programs are compiled for this processor, where they can be kept."""
    return jax.default_backend() == "cpu"


def in_memory(key: Hashable) -> Callable | None:
    """The executable of a key, if it is in memory."""
    with _lock:
        if key in _loaded:
            _loaded.move_to_end(key)
        return _loaded.get(key)


def find(key: Hashable, description: str | None) -> Callable | None:
    """The executable of a key, from memory or from disk."""
    found = in_memory(key)
    if found is None and description is not None:
        found = _read(description)
        return None if found is None else _remember(key, found)
    return found


def make(
    key: Hashable, description: str | None, function: Jitted, flat: Flat, goes_on=lambda: True
):
    """Compile a function for arguments taken apart, none of whose sizes is open.

    What is compiled takes their leaves. None where `goes_on` says, between two steps, that it is in
    vain.
    """

    def of_leaves(*leaves):
        return function.__wrapped__(*rebuilt(flat.tree, iter(leaves)))

    with eval_context(), float64(), own_rules():
        lowered = Jitted(of_leaves, function.options).lower(*flat.leaves)
        if not goes_on():
            return None
        before = cache_switches()
        found = lowered.compile()
        is_own = before == cache_switches() and not _is_kept_by_jax()
        if description is not None and is_own:
            payload = pickle.dumps(serialize_executable.serialize(found))
            store.keep_bytes(_full(description), zlib.compress(payload, 1))
    return _remember(key, found)


def remove(key: Hashable, description: str | None) -> None:
    """Let go of an executable that does not run, on disk too."""
    with _lock:
        _loaded.pop(key, None)
    if description is not None:
        store.remove_bytes(_full(description))


def call(executable: Callable, leaves) -> Any:
    """The result as NumPy arrays."""
    with eval_context(), float64(), own_rules():
        return jax.tree.map(np.asarray, executable(*leaves))


def _is_kept_by_jax() -> bool:
    """Whether JAX has a cache of compilations, the user's or ours; what comes from there lacks
    functions when it is written again.
    """
    return bool(jax.config.jax_compilation_cache_dir)


def forget() -> None:
    """Let go of all executables in memory."""
    with _lock:
        _loaded.clear()


def _remember(key: Hashable, found: Callable) -> Callable:
    with _lock:
        _loaded[key] = found
        while len(_loaded) > MOST:
            _loaded.popitem(last=False)
    return found


def _read(description: str) -> Callable | None:
    """An executable from disk; None where there is none, or JAX does not take it."""
    found = store.find_bytes(_full(description))
    if found is None:
        return None
    _have_lapack()
    try:
        with float64(), own_rules():
            return serialize_executable.deserialize_and_load(*pickle.loads(zlib.decompress(found)))
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the program is compiled anew
        return None


def _full(description: str) -> str:
    return f"{description}\n{_machine()}"


@functools.cache
def _machine() -> str:
    """What executables depend on beside their program."""
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib")]
    code = ""
    if (cpu := Path("/proc/cpuinfo")).exists():
        lines = cpu.read_text(errors="replace").splitlines()
        code = next((line for line in lines if line.startswith(PROCESSOR)), "")
    known = [platform.machine(), platform.system(), hashlib.sha256(code.encode()).hexdigest()]
    return " ".join([*versions, *known, os.environ.get("XLA_FLAGS", "")])


@functools.cache
def _have_lapack() -> None:
    """Have JAX find its LAPACK, which it does when it first lowers a program that needs it."""
    with float64(), own_rules():
        jax.jit(jax.lax.linalg.cholesky).lower(jax.ShapeDtypeStruct((2, 2), np.float64))
