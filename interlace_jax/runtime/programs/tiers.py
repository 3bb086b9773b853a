"""Which way a program runs: as NumPy at once, or compiled by XLA where that pays. Imports no JAX.

Small work runs as NumPy source: from memory, from the store, or written now from a trace. A program
that has run so for as long as its compilation takes is compiled from then on, and large work is at
once. INTERLACE_JAX_EXECUTION says otherwise: "numpy" or "xla" for all of it, or "auto".
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...support.later import Later
from . import store
from .trees import Conflict, Flat, Unnamed, described

LARGE = 1 << 20  # numbers of a program's arguments from which on it is compiled at once
PATIENCE = 2.5  # seconds that a program may have run as NumPy before it is compiled
trace = Later(f"{__package__}.trace")  # brings JAX with it
MOST_ENTRIES = 512  # programs in memory; some 100 kB each
PLAIN = (np.ndarray, np.generic, bool, float)
MODES = ("auto", "numpy", "xla")


@dataclass
class _Entry:
    """What is known of a program for one kind of arguments."""

    run: Callable | None = None  # NumPy; None where it cannot be written
    seconds: float = 0.0
    quickest: float = math.inf

    def add(self, seconds: float) -> None:
        """Count a run; one that others on the machine have held up counts as twice the quickest
        at most.
        """
        self.quickest = min(self.quickest, seconds)
        self.seconds += min(seconds, 2.0 * self.quickest)

    @property
    def pays(self) -> bool:
        """Whether it is time to compile it."""
        return self.seconds > PATIENCE


_entries: dict[Any, _Entry] = {}


def mode() -> str:
    """How programs run, by INTERLACE_JAX_EXECUTION."""
    wanted = os.environ.get("INTERLACE_JAX_EXECUTION", "auto").lower()
    if wanted not in MODES:
        raise ValueError(
            f"INTERLACE_JAX_EXECUTION must be one of {', '.join(MODES)}, not {wanted!r}"
        )
    return wanted


def numpy_result(name: str, kernel: Callable, arguments: tuple, dims) -> tuple[bool, Any]:
    """Whether the program has run as NumPy, and its result.

    name: of the kernel, the same in every process; kernel: a function that finds it, if it must be
    traced; dims: of its arguments, as `Flat` takes them.
    """
    wanted = mode()
    if wanted == "xla":
        return False, None
    found = _found(name, kernel, arguments, dims, wanted)
    if found is None:
        return False, None
    entry, flat = found
    leaves = [
        leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)[()] for leaf in flat.leaves
    ]
    began = time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            result = entry.run(*leaves, **flat.sizes)
    except Exception:
        if wanted == "numpy":
            raise
        entry.run = None  # XLA has the last word
        return False, None
    entry.add(time.perf_counter() - began)
    return True, result


def _found(name, kernel, arguments, dims, wanted):
    """A program that is to run as NumPy, with its arguments taken apart; None where it is to be
    compiled.
    """
    for general in (True, False):
        try:
            flat = Flat(arguments, dims, general)
            key = name, flat.tree
            entry = _entries.get(key)
        except Conflict:
            continue
        except TypeError:  # what cannot be hashed
            return None
        if not all(isinstance(leaf, PLAIN) for leaf in flat.leaves):
            return None  # arrays of JAX stay where they are
        if entry is None:
            if wanted == "auto" and sum(np.size(leaf) for leaf in flat.leaves) > LARGE:
                return None
            entry = _remember(key, _Entry(_program(name, kernel, flat)))
        if entry.run is not None:
            return None if wanted == "auto" and entry.pays else (entry, flat)
        if not flat.sizes:
            return None
    return None


def _program(name, kernel, flat) -> Callable | None:
    """The NumPy function from the store, or written now; None where there is none."""
    try:
        description = "\n".join([name, described(flat.tree)])
    except Unnamed:
        description = None
    stored = description and store.find(description)
    if stored:
        return stored
    return trace.program(kernel(), flat, description)


def _remember(key, entry: _Entry) -> _Entry:
    """Keep an entry, in place of the oldest where there are very many."""
    if len(_entries) >= MOST_ENTRIES:
        _entries.pop(next(iter(_entries)))
    _entries[key] = entry
    return entry


def forget() -> None:
    """Drop what is known of all programs."""
    _entries.clear()
