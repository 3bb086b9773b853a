"""Settings for every test.

Whether JAX is 64 bits wide everywhere is left to JAX_ENABLE_X64, as it is to users.
"""

import os

import jax
import pytest
from threadpoolctl import threadpool_limits

from interlace_jax.runtime import calls

jax.config.update("jax_numpy_rank_promotion", "raise")

# Most programs of the tests run once: compiled without optimising they take a third of the time.
# Processes that tests start inherit it. XLA_FLAGS of your own, empty ones too, are left alone.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)


def pytest_collection_modifyitems(items):
    """Mark the tests that set JAX's width themselves, all of them or for each width (`wide`)."""
    for item in items:
        if {"x64", "wide"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("own_width")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """Small matrices gain nothing from BLAS threads, and lose a factor of five when another
    process is busy.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file():
    """Forget compiled programs after each file: thousands in one process exhaust the kernel's limit
    of memory maps.

    Those that another file needs again come back from the compilation cache.
    """
    yield
    jax.clear_caches()
    calls._compiled.clear()


@pytest.fixture
def x64():
    """Run the test in 64 bits, whatever the process's setting: for functions that work in the
    dtype they are given.
    """
    with jax.enable_x64(True):
        yield
