"""Compiled programs come back in another process without being traced, where they belong."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from interlace_jax.runtime.compilation import jit
from interlace_jax.runtime.programs import executables, store
from interlace_jax.runtime.programs.trees import Flat


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setattr(store.platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.delenv("INTERLACE_JAX_CACHE", raising=False)
    executables.forget()
    return tmp_path / "programs"


CODE = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from interlace_jax.runtime.compilation import jit
    from interlace_jax.runtime.programs import executables, store
    from interlace_jax.runtime.programs.trees import Flat
    store.platformdirs.user_cache_dir = lambda name: {home!r}

    def factors(x):
        L = jnp.linalg.cholesky(x @ x.T + jnp.eye(3))
        solved = jax.scipy.linalg.solve_triangular(L, x, lower=True)
        return L, solved, jnp.linalg.eigh(x + x.T), jnp.linalg.qr(x), jnp.linalg.det(x)

    x = (np.arange(9.0).reshape(3, 3) ** 1.5,)
    found = executables.find("key", "factors")
    assert (found is not None) == {second}
    found = found or executables.make("key", "factors", jit(factors), Flat(x, general=False))
    print(jax.tree.map(lambda a: a.tolist(), executables.call(found, x)))
"""


@pytest.mark.slow
def test_a_second_process_runs_the_same_code(tmp_path):
    """LAPACK's routines included: JAX finds them when it lowers a program, which is not done."""
    outputs = []
    for second in (False, True):
        code = textwrap.dedent(CODE.format(home=str(tmp_path), second=second))
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1] != ""


@pytest.fixture
def kept():
    """A program in memory and on disk."""
    made = executables.make("key", "of this test", plus_one(), of(np.ones(3)))
    assert np.array_equal(executables.call(made, (np.arange(3.0),)), [1, 2, 3])
    return made


def of(*arguments):
    """Arguments taken apart."""
    return Flat(arguments, general=False)


def plus_one():
    """A function that is not compiled yet."""
    return jit(lambda x: x + 1.0)


def test_it_is_found_in_memory_and_then_on_disk(kept, home):
    assert executables.find("key", "of this test") is kept
    executables.forget()
    found = executables.find("key", "of this test")
    assert found is not None and found is not kept
    assert np.array_equal(executables.call(found, (np.arange(3.0),)), [1, 2, 3])
    assert executables.find("another", "another") is None


def test_another_processor_or_version_compiles_its_own(kept, monkeypatch):
    executables.forget()
    monkeypatch.setattr(executables, "_machine", lambda: "another")
    assert executables.find("key", "of this test") is None


def test_what_is_no_executable_is_not_believed(kept):
    executables.forget()
    store.keep_bytes(executables._full("of this test"), b"no executable")
    assert executables.find("key", "of this test") is None


def test_those_not_used_for_longest_leave_memory(monkeypatch):
    monkeypatch.setattr(executables, "MOST", 2)
    for i in range(3):
        executables.make(i, None, plus_one(), of(np.ones(i + 1)))
        executables.find(0, None)
    assert [executables.find(i, None) is not None for i in range(3)] == [True, False, True]


def test_work_that_is_no_longer_wanted_stops(home):
    assert executables.make("key", "given up", plus_one(), of(np.ones(3)), lambda: False) is None
    assert not home.exists()


def test_what_may_come_from_jax_s_cache_is_not_written_again(monkeypatch):
    """It would lack functions: a session of another thread turns that cache on and off."""
    switched = iter(range(2))
    monkeypatch.setattr(executables, "cache_switches", lambda: next(switched))
    executables.make("key", "of this test", plus_one(), of(np.ones(3)))
    executables.forget()
    assert executables.find("key", "of this test") is None
