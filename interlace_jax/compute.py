"""Where host code calls compiled code: float64, one BLAS thread, and compilations remembered between processes.

Nothing of it outlives a call: JAX's configuration and the BLAS threads are as the user left them.
"""

import contextlib
import functools
import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
from jax.core import eval_context
from jax.experimental.compilation_cache import compilation_cache
from threadpoolctl import ThreadpoolController

_SWITCHES = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,  # the default stores no compilation under a second
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_IN_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
_LIGHT = _IN_ORDER | {"xla_cpu_use_fusion_emitters": False}
_BRIEF = _LIGHT | {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
_CHECK_EVERY = 8  # programs; each takes some 200 memory maps
_MAPS = "/proc/self/maps"
_lock = threading.RLock()
_compiled: set = set()


def run(function, *args):
    """Call a jitted function in float64 and return its result as NumPy arrays.

    A float64 JAX array that left the 64-bit context would silently become float32 at its next operation. Called while
    JAX traces a user's program, it is evaluated at once: its arguments are never traced.
    """
    with eval_context(), float64(), _one_blas_thread():
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


def _is_crowded() -> bool:
    """Whether compiled programs, in some hundred models, have used half of the memory maps that Linux allows."""
    if not os.path.exists(_MAPS):
        return False
    with open(_MAPS, "rb") as maps, open("/proc/sys/vm/max_map_count") as limit:
        return sum(1 for _ in maps) > int(limit.read()) // 2


def _forget_programs():
    """Drop all compiled programs: at the limit of memory maps the next one would end the process.

    Only JAX's caches as a whole let go of them. What is needed again comes back from the compilation cache.
    """
    jax.clear_caches()
    _compiled.clear()


def in_order(compiled):
    """A jitted function whose programs do one thing after another on a processor; not to be called while JAX traces.

    XLA would look for what can be done at the same time. Where all that takes long is parallel in itself, or there is
    nothing that takes long, this costs more than it brings.
    """
    return _with_options(compiled, _IN_ORDER)


def light(compiled, where=lambda *args: True):
    """The same, and the programs take half as long to compile; `compiled` itself for arguments not `where`.

    Of XLA's two generators of code for loops the older one is the quicker. Its programs are as fast where gathers
    dominate or matrices are small, and slower elsewhere: measure.
    """
    quick = _with_options(compiled, _LIGHT)

    @functools.wraps(compiled.__wrapped__)
    def call(*args):
        return (quick if where(*args) else compiled)(*args)

    return call


def brief(compiled):
    """The same for a function of so little work that its programs are compiled without optimising them."""
    return _with_options(compiled, _BRIEF)


def _with_options(compiled, options):
    function = compiled.__wrapped__
    made = functools.cache(lambda: jax.jit(function, compiler_options=options if _are_known() else None))
    return functools.wraps(function)(lambda *args: made()(*args))


@functools.cache
def _are_known() -> bool:
    """Whether JAX knows all these options."""
    try:
        jax.jit(lambda: 0.0, compiler_options=_BRIEF).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def float64():
    """JAX's 64-bit context; a thread of its own must enter it for itself."""
    return jax.enable_x64(True)


def float32():
    """The context in which no constant widens what is in single precision."""
    return jax.enable_x64(False)


def device() -> jax.Device:
    """Where compiled code runs: JAX's default device."""
    return local_devices()[0]


def devices() -> list[jax.Device]:
    """All devices, those of the other processes of a job included; JAX's default device alone where it is set."""
    chosen = jax.config.jax_default_device
    return [chosen] if isinstance(chosen, jax.Device) else jax.devices(chosen)


def local_devices() -> list[jax.Device]:
    """Those of `devices` that are this process's."""
    return [d for d in devices() if d.process_index == jax.process_index()]


def accelerator_memory() -> int | None:
    """Bytes that an accelerator lends to JAX; None on a processor."""
    return None if device().platform == "cpu" else (device().memory_stats() or {}).get("bytes_limit", 2**33)


def memory() -> int | None:
    """Bytes of memory where compiled code runs; None where the system does not say."""
    if device().platform != "cpu":
        return accelerator_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def workers() -> list[jax.Device]:
    """The device of every thread that is to run: one thread a core, or two an accelerator, where one prepares."""
    local = local_devices()
    return local * (2 if device().platform != "cpu" else max(1, (os.cpu_count() or 1) // len(local)))


def spread(function, jobs):
    """Yield function(job) for all jobs in order, computed on all local devices, unless JAX's default device is set."""
    free: queue.SimpleQueue = queue.SimpleQueue()
    for one in workers():
        free.put(one)

    def run_one(job):
        place = free.get()
        try:
            with float64(), jax.default_device(place):
                return function(job)
        finally:
            free.put(place)

    with session(), ThreadPoolExecutor(free.qsize()) as pool:
        yield from pool.map(run_one, jobs)


@contextlib.contextmanager
def session():
    """What `run` sets up, for work that keeps arrays in JAX over many calls."""
    with eval_context(), float64(), _one_blas_thread(), _compile_cache():
        yield


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _one_blas_thread():
    """JAX's CPU LAPACK spins on SciPy's BLAS threads: with a busy neighbour a factorisation takes 60 times as long."""
    return _blas().limit(limits=1, user_api="blas")


@contextlib.contextmanager
def _compile_cache():
    """Keep compilations in the user's cache folder, unless they have a folder of their own or INTERLACE_JAX_CACHE=0.

    The switch is process-wide; resetting the cache on both sides keeps the user's own compilations out of our folder.
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


def _switch(folder, settings):
    jax.config.update("jax_compilation_cache_dir", folder)
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def island(function):
    """`function` computed in float64 inside a float32 program: wider inside, the caller's dtype outside.

    A transposed program runs outside the 64-bit context, so the derivative rule is recursive: the tangent is an island
    of the Jacobian, and every order is evaluated inside. Takes arrays and returns a pytree of them; in 64-bit mode it
    is the function.
    """

    def wide(*args):
        if jax.config.jax_enable_x64:
            return function(*args)
        dtype = jnp.result_type(*args)
        with jax.enable_x64(True):
            found = function(*(jnp.asarray(a).astype(jnp.float64) for a in args))
            return jax.tree.map(lambda a: a.astype(dtype), found)

    inside = jax.custom_jvp(wide)

    @inside.defjvp
    def _(primals, tangents):
        found, jacobians = inside(*primals), island(jax.jacrev(function, argnums=tuple(range(len(primals)))))(*primals)

        def product(_, along):
            return sum(jnp.tensordot(J, t, t.ndim) for J, t in zip(along, tangents, strict=True))

        return found, jax.tree.map(product, found, jacobians)

    return inside
