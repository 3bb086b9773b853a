"""Devices, their memory, and the processes of a job (`jax.distributed`): who computes what, and
how all get it.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..support.later import Later, is_imported, jax
from .calls import float64, own_rules, session

multihost_utils = Later("jax.experimental.multihost_utils")


def _may_accelerate() -> bool:
    """Whether JAX could find another device than the processor: a plugin of it is installed."""
    return any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))


def device() -> jax.Device:
    """Where compiled code runs: JAX's default device."""
    return local_devices()[0]


def devices() -> list[jax.Device]:
    """All devices, those of the other processes of a job included; JAX's default device alone
    where it is set.
    """
    chosen = jax.config.jax_default_device
    return [chosen] if isinstance(chosen, jax.Device) else jax.devices(chosen)


def local_devices() -> list[jax.Device]:
    """The `devices` that belong to this process."""
    return [d for d in devices() if d.process_index == jax.process_index()]


def accelerator_memory() -> int | None:
    """Bytes that an accelerator lends to JAX; None on a processor."""
    return (
        None
        if device().platform == "cpu"
        else (device().memory_stats() or {}).get("bytes_limit", 2**33)
    )


def memory() -> int | None:
    """Bytes of memory where compiled code runs; None where the system does not say."""
    if (is_imported() or _may_accelerate()) and device().platform != "cpu":
        return accelerator_memory()
    return (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    )


def workers() -> list[jax.Device]:
    """The device of every thread that is to run: one thread a core, or two an accelerator, where
    one prepares.
    """
    local = local_devices()
    return local * (
        2 if device().platform != "cpu" else max(1, (os.cpu_count() or 1) // len(local))
    )


def spread(function, jobs):
    """Yield function(job) for all jobs in order, computed on all local devices, unless JAX's
    default device is set.
    """
    free: queue.SimpleQueue = queue.SimpleQueue()
    for one in workers():
        free.put(one)

    def run_one(job):
        place = free.get()
        try:
            with float64(), own_rules(), jax.default_device(place):
                return function(job)
        finally:
            free.put(place)

    with session(), ThreadPoolExecutor(free.qsize()) as pool:
        yield from pool.map(run_one, jobs)


def share(count: int) -> range:
    """Which of so many jobs are this process's."""
    return range(jax.process_index(), count, jax.process_count())


def is_first() -> bool:
    """Whether this process speaks for the job."""
    return jax.process_index() == 0


def gathered(items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of the processes; all of them must call this."""
    if jax.process_count() == 1:
        return items
    mine = np.frombuffer(pickle.dumps(items), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(mine)], np.int32)).ravel()
    padded = np.concatenate([mine, np.zeros(sizes.max() - len(mine), np.uint8)])
    texts = zip(multihost_utils.process_allgather(padded), sizes, strict=True)
    return [item for text, size in texts for item in pickle.loads(text[:size].tobytes())]
