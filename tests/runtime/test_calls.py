"""Host code calls compiled code: float64 out, the user's configuration as it was, compilations
remembered.
"""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.fits import quiet_fit, sleepstudy
from jax.experimental.compilation_cache import compilation_cache
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_info

from interlace_jax.numerics.linalg.matrices import symmetric
from interlace_jax.runtime import calls, compilation, island

SETTINGS = (
    "jax_enable_x64",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def settings():
    return {name: getattr(jax.config, name) for name in SETTINGS}


def test_run_computes_in_float64_and_returns_numpy():
    found = calls.run(jax.jit(lambda x: {"a": x + 1e-12, "b": (x > 0,)}), np.ones(3))
    assert isinstance(found["a"], np.ndarray) and found["a"].dtype == np.float64
    assert_array_equal(found["a"], 1 + 1e-12)
    assert isinstance(found["b"][0], np.ndarray)


def test_fitting_leaves_the_configuration_and_the_threads_as_they_were():
    before, threads = settings(), [pool["num_threads"] for pool in threadpool_info()]
    rows = sleepstudy().iloc[:97]  # a shape of its own, so that something is compiled
    quiet_fit("Reaction ~ Days + (1 | Subject)", rows)
    assert settings() == before
    assert [pool["num_threads"] for pool in threadpool_info()] == threads


def test_an_error_inside_leaves_the_configuration_as_it_was():
    before = settings()

    def broken(x):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        calls.run(jax.jit(broken), np.ones(3))
    assert settings() == before


@pytest.mark.parametrize("crowded", [False, True])
def test_programs_are_forgotten_where_memory_maps_run_out_and_only_there(monkeypatch, crowded):
    monkeypatch.setattr(calls, "_CHECK_EVERY", 1)
    monkeypatch.setattr(calls, "_is_crowded", lambda: crowded)
    kept = jax.jit(growth)
    first = calls.run(kept, np.ones(3))
    calls.run(jax.jit(jnp.sin), np.ones(2))
    assert kept._cache_size() == (not crowded)
    assert_array_equal(calls.run(kept, np.ones(3)), first)


def growth(x):
    return jnp.cumsum(jnp.exp(x)) / jnp.sum(x)


def in_order_and_light(compiled):
    return compilation.light(compilation.in_order(compiled))


every_way = pytest.mark.parametrize(
    "how", [compilation.in_order, compilation.light, compilation.brief, in_order_and_light]
)


@every_way
def test_compiler_options_change_no_numbers(how):
    x = np.linspace(0.1, 1.0, 50)
    assert_allclose(
        calls.run(how(jax.jit(growth)), x), np.cumsum(np.exp(x)) / np.sum(x), rtol=1e-14
    )
    slope = how(jax.jit(jax.grad(lambda x: jnp.sum(x**3))))
    assert_allclose(calls.run(slope, x), 3.0 * x**2, rtol=1e-14)


@every_way
def test_compiler_options_that_jax_does_not_know_are_left_out(how, monkeypatch):
    for name in ("_IN_ORDER", "_LIGHT", "_BRIEF"):
        monkeypatch.setattr(compilation, name, {"xla_cpu_no_such_option": True})
    monkeypatch.setattr(compilation, "_are_known", compilation._are_known.__wrapped__)
    assert_allclose(calls.run(how(jax.jit(growth)), np.ones(2)), np.exp(1.0) * np.array([0.5, 1.0]))


def test_only_where_it_is_worth_it_is_a_light_function_compiled_lightly(monkeypatch):
    monkeypatch.setattr(compilation, "_LIGHT", {"xla_cpu_no_such_option": True})
    monkeypatch.setattr(compilation, "_are_known", lambda: True)
    function = compilation.light(jax.jit(growth), lambda x: len(x) < 3)
    assert_allclose(calls.run(function, np.ones(4)), np.exp(1.0) * np.array([0.25, 0.5, 0.75, 1.0]))
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        calls.run(function, np.ones(2))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Our cache folder, empty."""
    monkeypatch.setattr(calls.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    monkeypatch.delenv("INTERLACE_JAX_CACHE", raising=False)
    return tmp_path / "interlace_jax"


def files(folder):
    return (
        sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
    )


def fresh():
    """A function that JAX has not compiled yet."""
    return jax.jit(lambda x: jnp.cumsum(x * 3.0) - 1.0)


def test_compilations_are_kept_and_the_users_later_ones_are_not(folder):
    calls.run(fresh(), np.ones(3))
    kept = files(folder)
    assert kept
    jax.jit(lambda x: jnp.cumprod(x * 5.0) - 2.0)(np.ones(4, np.float32)).block_until_ready()
    assert files(folder) == kept


def test_the_cache_may_be_switched_off(folder, monkeypatch):
    monkeypatch.setenv("INTERLACE_JAX_CACHE", "0")
    calls.run(fresh(), np.ones(3))
    assert files(folder) == []


def test_a_cache_folder_of_the_users_own_is_used_as_it_is(folder, tmp_path):
    own = tmp_path / "own"
    before = settings()
    try:
        jax.config.update("jax_compilation_cache_dir", str(own))
        compilation_cache.reset_cache()
        calls.run(fresh(), np.ones(3))
        assert jax.config.jax_compilation_cache_dir == str(own)
        assert files(folder) == []
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.mark.slow
def test_importing_changes_nothing_and_a_second_process_finds_the_compilations(tmp_path):
    code = textwrap.dedent(f"""
        import jax
        names = {SETTINGS!r}
        before = [getattr(jax.config, name) for name in names]
        import interlace_jax
        assert [getattr(jax.config, name) for name in names] == before
        assert not jax._src.xla_bridge._backends, "importing started a backend"
        data = interlace_jax.load_dataset("dyestuff")
        print(interlace_jax.fit("Yield ~ 1 + (1 | Batch)", data).deviance)
        assert [getattr(jax.config, name) for name in names] == before
    """)
    environment = {k: v for k, v in os.environ.items() if k != "INTERLACE_JAX_CACHE"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "INTERLACE_JAX_EXECUTION": "xla"}
    found, stored = [], []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert run.returncode == 0, run.stderr
        found.append(float(run.stdout))
        stored.append([name for name in files(tmp_path) if name.endswith(".xla")])
    assert_allclose(found, 319.65428, atol=1e-5)
    assert stored[0] and stored[1] == stored[0]


def test_an_island_has_the_callers_type_and_float64_inside():
    f = island.island(lambda x: jnp.sum((x + 1e8) - 1e8))  # in float32 this is 0 or worse
    with jax.enable_x64(False):
        x = jnp.asarray([0.25, 0.5], jnp.float32)
        assert f(x).dtype == jnp.float32
        assert_allclose(f(x), 0.75, rtol=1e-6)


def test_an_island_differentiates_at_every_order_and_in_every_way():
    def f(x):
        return jnp.sum(jnp.sin(x) * x[0])

    x = np.array([0.3, 0.7])
    with jax.enable_x64(False):
        g, x32 = island.island(f), jnp.asarray(x, jnp.float32)
        ours = (
            jax.grad(g)(x32),
            jax.hessian(g)(x32),
            jax.jacrev(jax.grad(g))(x32),
            jax.jacfwd(jax.jacfwd(g))(x32),
            jax.grad(lambda x: jax.jvp(jax.grad(g), (x,), (x,))[1].sum())(x32),
            jax.vmap(g)(jnp.stack([x32, 2 * x32])),
            jax.jit(jax.grad(g))(x32),
        )
    with jax.enable_x64(True):
        theirs = (
            jax.grad(f)(x),
            jax.hessian(f)(x),
            jax.hessian(f)(x),
            jax.hessian(f)(x),
            jax.grad(lambda x: jax.jvp(jax.grad(f), (x,), (x,))[1].sum())(x),
            jnp.stack([f(x), f(2 * x)]),
            jax.grad(f)(x),
        )
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == jnp.float32
        assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_an_island_of_several_arguments_differentiates_in_each():
    with jax.enable_x64(False):
        f = island.island(lambda a, b: jnp.sum(a) * b**2)
        a, b = jnp.ones(3, jnp.float32), jnp.float32(2.0)
        da, db = jax.grad(f, (0, 1))(a, b)
        assert_allclose(da, 4)
        assert_allclose(db, 12)
        assert_allclose(jax.jacfwd(jax.grad(f, 1), 0)(a, b), 4)


def test_where_64_bits_are_on_an_island_is_the_function():
    with jax.enable_x64(True):
        f = island.island(lambda x: jnp.sum(x**2))
        assert f(jnp.ones(3)).dtype == jnp.float64
        assert_allclose(jax.hessian(f)(jnp.ones(2)), 2 * np.eye(2))


def test_a_function_that_wraps_a_kernel_is_not_taken_for_it():
    """A gradient bears the name of its function; the stored program of that function would be a
    silent wrong number.
    """
    value = compilation.jit(symmetric)
    assert calls._name(value) == f"{symmetric.__module__}:symmetric"
    assert calls._name(compilation.jit(jax.jacfwd(symmetric))) is None
    A = np.array([[1.0, 2.0], [0.0, 1.0]])
    assert_allclose(calls.run(value, A), 0.5 * (A + A.T))
    assert calls.run(compilation.jit(jax.jacfwd(symmetric)), A).shape == (2, 2, 2, 2)
