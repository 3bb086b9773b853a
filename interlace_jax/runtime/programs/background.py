"""One piece of work at a time beside the caller's. Imports no JAX."""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Callable

_lock = threading.Lock()
_thread: threading.Thread | None = None
_ends = threading.Event()  # the process does


def start(work: Callable[[Callable[[], bool]], None]) -> bool:
    """Begin `work(goes_on)` in a thread of its own; False where other work is going on.

    goes_on(): whether the result is still wanted. Work that is going on when the process ends is
    waited for, up to the next time that it asks: the process would crash where the compiler is cut
    off.
    """
    global _thread
    if _ends.is_set() or not _lock.acquire(blocking=False):
        return False
    try:
        if _thread is not None and _thread.is_alive():
            return False
        _wait_at_exit()
        _thread = threading.Thread(target=work, args=(_goes_on,), name="interlace_jax", daemon=True)
        _thread.start()
    finally:
        _lock.release()
    return True


def wait() -> None:
    """Return when nothing is going on."""
    if _thread is not None:
        _thread.join()


def _goes_on() -> bool:
    return not _ends.is_set()


@functools.cache
def _wait_at_exit() -> None:
    atexit.register(_end)


def _end() -> None:
    _ends.set()
    wait()
