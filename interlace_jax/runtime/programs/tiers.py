"""Which way a program runs: as NumPy at once, or compiled by XLA where that pays. Imports no JAX.

Small work runs as NumPy source: from memory, from the store, or written now from a trace. A program
that has run so for some time is compiled meanwhile, in a thread of its own, and taken when it is
ready; large work is compiled at once. INTERLACE_JAX_EXECUTION says otherwise: "numpy" or "xla" for
all of it, or "auto".

JAX is imported by the thread that calls: while another thread imports it, a user's `import
jax.numpy` would find half of it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...support.later import Later, is_imported
from . import background, store
from .trees import Conflict, Flat, Unnamed, described

LARGE = 1 << 20  # numbers of a program's arguments from which on it is compiled at once
# the same where an argument says `is_lean`: most of its numbers are indices or used once
LARGE_AND_LEAN = 1 << 24
PATIENCE = 1.0  # seconds that a program runs as NumPy before it is compiled: what that takes
PATIENCE_IF_LEAN = 10.0  # there compilation takes longer, and brings less
SOON = 0.1  # the same where it was compiled before and lies on disk
MOST_ENTRIES = 512  # programs in memory; some 100 kB each
PLAIN = (np.ndarray, np.generic, bool, float)
MODES = ("auto", "numpy", "xla")
trace = Later(f"{__package__}.trace")  # brings JAX with it, as does the next
executables = Later(f"{__package__}.executables")
_ways: ContextVar[set[str] | None] = ContextVar("ways", default=None)


@dataclass(eq=False)
class _Use:
    """A program at exact sizes: how long it has run as NumPy, and whether it is compiled."""

    run: Callable | None = None  # as NumPy; None where it is not written
    is_new: bool = True
    runs: int = 0
    seconds: float = 0.0
    quickest: float = math.inf
    was_sought: bool = False  # on disk
    is_compiled: bool = False
    gave_up: bool = False  # not to be compiled here

    def add(self, seconds: float) -> None:
        """Count a run; one that others on the machine have held up counts as twice the quickest
        at most.
        """
        self.runs += 1
        self.quickest = min(self.quickest, seconds)
        self.seconds += min(seconds, 2.0 * self.quickest)


@dataclass
class _Program:
    """What is asked for: a kernel's name, what compiles it, arguments whole and taken apart."""

    name: str
    function: Any
    arguments: tuple
    flat: Flat

    @property
    def kind(self):
        """What NumPy source is made for."""
        return self.name, self.flat.tree

    @property
    def is_lean(self) -> bool:
        """Whether it does little with each of its numbers."""
        return any(getattr(a, "is_lean", False) for a in self.arguments)

    @functools.cached_property
    def key(self):
        """What compiled code is made for."""
        return self.function, *self.kind, *self.flat.sizes.items()

    @functools.cached_property
    def open(self) -> str | None:
        """The kind as text, for the store; None where something has no name."""
        return self._described(self.flat.tree)

    @functools.cached_property
    def leaves(self) -> list:
        """The arrays, numbers too."""
        return [a if isinstance(a, np.ndarray) else np.asarray(a)[()] for a in self.flat.leaves]

    def executable(self, use: _Use, goes_on: Callable[[], bool] | None = None, anew: bool = False):
        """The compiled program from memory or disk; else, or where it is wanted anew, compiled now
        while `goes_on` says so.
        """
        exact, function = Flat(self.arguments, general=False), self.function.of(*self.arguments)
        text = self._described(exact.tree, repr(function.options))
        if anew:
            executables.remove(use, text)
        found = None if anew else executables.find(use, text)
        if found is None and goes_on is not None:
            return executables.make(use, text, function, exact, goes_on)
        return found

    def _described(self, tree, *more: str) -> str | None:
        try:
            return "\n".join([self.name, *more, described(tree)])
        except Unnamed:
            return None


_written: dict[Any, Callable | None] = {}  # NumPy programs, by kind; None where there is none
_uses: dict[Any, _Use] = {}  # by key
_writing = threading.RLock()


def mode() -> str:
    """How programs run, by INTERLACE_JAX_EXECUTION."""
    wanted = os.environ.get("INTERLACE_JAX_EXECUTION", "auto").lower()
    if wanted not in MODES:
        raise ValueError(
            f"INTERLACE_JAX_EXECUTION must be one of {', '.join(MODES)}, not {wanted!r}"
        )
    return wanted


@contextlib.contextmanager
def ways() -> Iterator[set[str]]:
    """Which ways programs run inside: a set that comes to hold "numpy", "xla" or both."""
    found: set[str] = set()
    token = _ways.set(found)
    try:
        yield found
    finally:
        _ways.reset(token)


def ran(way: str) -> None:
    """Say that a program has run in some way."""
    found = _ways.get()
    if found is not None:
        found.add(way)


def result(name: str, function, arguments: tuple, dims) -> tuple[bool, Any]:
    """Whether the program has run here, and its result.

    name: of the kernel, the same in every process; function: a `compilation.Jitted` of it; dims: of
    its arguments, as `Flat` takes them.
    """
    wanted = mode()
    for general in (True, False):
        try:
            program = _Program(name, function, arguments, Flat(arguments, dims, general))
        except Conflict:
            continue
        if not all(isinstance(leaf, PLAIN) for leaf in program.flat.leaves):
            return False, None  # arrays of JAX stay where they are
        try:
            use = _uses.get(program.key)
        except TypeError:  # what cannot be hashed
            return False, None
        if use is None:
            use = _remember(_uses, program.key, _Use())
        is_last = not program.flat.sizes
        if _runs_as_numpy(program, use, wanted):
            done, found = _by_numpy(program, use, wanted)
            if done:
                return True, found
        if is_last or use.is_compiled or wanted == "xla":
            return _by_xla(program, use)
    return False, None


def _runs_as_numpy(program: _Program, use: _Use, wanted: str) -> bool:
    """Whether this time it runs as NumPy, which is written if need be."""
    if wanted == "xla" or (wanted == "auto" and use.is_compiled):
        return False
    if use.run is None and use.is_new:
        limit = LARGE_AND_LEAN if program.is_lean else LARGE
        if wanted == "auto" and _are_many(program.flat.leaves, limit):
            return False
        use.is_new, use.run = False, _written_program(program)
    return use.run is not None


def _by_numpy(program: _Program, use: _Use, wanted: str) -> tuple[bool, Any]:
    """Run it as NumPy; not done where that fails, as XLA has the last word."""
    leaves, sizes = program.leaves, program.flat.sizes
    began = time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            found = use.run(*leaves, **sizes)
    except Exception:
        if wanted == "numpy":
            raise
        use.run = None
        return False, None
    use.add(time.perf_counter() - began)
    ran("numpy")
    if wanted == "auto":
        _compile_if_it_pays(program, use)
    return True, found


def _by_xla(program: _Program, use: _Use) -> tuple[bool, Any]:
    """Run it compiled, in memory, on disk, or compiled now; not done where JAX is to do it."""
    if use.gave_up or not executables.are_possible():
        return False, None
    found = executables.in_memory(use) or program.executable(use, _always)
    use.is_compiled = True
    ran("xla")
    try:
        return True, executables.call(found, program.leaves)
    except executables.Failed:  # what came from disk lacks something, or there is a true error
        anew = program.executable(use, _always, anew=True)
        return True, executables.call(anew, program.leaves)


def _always() -> bool:
    return True


def _compile_if_it_pays(program: _Program, use: _Use) -> None:
    """Fetch a program from disk, or begin to compile it, when it has run for long enough, and more
    than once: much of what a fit asks is asked once, and to fetch takes as long as many a run.
    """
    if use.gave_up or use.runs == 1 or use.seconds < SOON:
        return
    if not use.was_sought and is_imported():
        use.was_sought = True
        use.is_compiled = executables.are_possible() and program.executable(use) is not None
    if use.is_compiled or use.seconds < (PATIENCE_IF_LEAN if program.is_lean else PATIENCE):
        return
    if not executables.are_possible():
        use.is_compiled = use.gave_up = True  # JAX compiles it when it is called next
        return

    def work(goes_on):
        try:
            use.is_compiled = program.executable(use, goes_on) is not None
        except Exception:  # noqa: BLE001 - then it stays NumPy
            use.gave_up = True

    background.start(work)


def is_small(arrays) -> bool:
    """Whether programs run as NumPy on so many numbers, as far as one can say before."""
    wanted = mode()
    return wanted == "numpy" or (wanted == "auto" and not _are_many(arrays))


def _are_many(arrays, limit: int = LARGE) -> bool:
    return sum(np.size(a) for a in arrays) > limit


def _written_program(program: _Program) -> Callable | None:
    """The NumPy function from memory or the store, or written now; None where there is none."""
    kind = program.kind
    if kind not in _written:
        with _writing:  # other threads that want it wait
            if kind not in _written:
                stored = None if program.open is None else store.find(program.open)
                kernel = program.function.__wrapped__
                found = stored or trace.program(kernel, program.flat, program.open)
                _remember(_written, kind, found)
    return _written[kind]


def _remember(known: dict, key, value):
    """Keep something, in place of the oldest where there are very many."""
    if len(known) >= MOST_ENTRIES:
        known.pop(next(iter(known)), None)
    known[key] = value
    return value


def forget() -> None:
    """Drop what is known of all programs."""
    _written.clear()
    _uses.clear()
    if is_imported():
        executables.forget()
