"""The caller's settings of JAX and BLAS: verbs work under each, and leave each as it was."""

import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.fits import quiet_fit, sleepstudy
from numpy.testing import assert_allclose
from threadpoolctl import threadpool_info

import interlace_jax as interlace
from interlace_jax.runtime import calls

SETTINGS = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
    "debug_infs": lambda: jax.debug_infs(True),
    "debug_nans": lambda: jax.debug_nans(True),
    "no jit": lambda: jax.disable_jit(),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
}


def verbs():
    """Numbers of the main verbs, those that take JAX arrays too."""
    frame = sleepstudy()
    fit = quiet_fit("Reaction ~ Days + (1 | Subject)", frame)
    yield fit.llf, 1e-9
    yield fit.fe_df, 1e-6
    yield fit.confint("profile", parm="sigma").to_numpy(), 1e-6
    yield fit.predict(interval="prediction").to_numpy()[:3], 1e-6
    yield fit.model.loglik(THETA), 1e-5
    yield fit.model.loglik([0.5]), 1e-9
    m = interlace.moments(fit.design.y, fit.design.X, fit.design.groups)
    yield interlace.deviance(THETA, m), 1e-5
    yield (
        interlace.predict(
            interlace.estimate(m), m, fit.design.X[:3], [(np.arange(3), np.ones((3, 1)))]
        ),
        1e-3,
    )


THETA = jnp.array([0.5])


@pytest.fixture(scope="module")
def right():
    return [np.asarray(value) for value, _ in verbs()]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_main_verbs_work_under_the_settings_of_the_caller(right, setting):
    with SETTINGS[setting]():
        found = list(verbs())
    for (value, tolerance), wanted in zip(found, right, strict=True):
        assert_allclose(np.asarray(value), wanted, rtol=tolerance)


def test_gradients_can_be_taken_under_a_transfer_guard():
    model = interlace.compile("Reaction ~ Days + (1 | Subject)", sleepstudy())
    right = jax.grad(model.loglik)(THETA)
    with jax.transfer_guard("disallow"):
        # outside jit JAX itself transfers the 1 that it starts with
        found = jax.jit(jax.grad(model.loglik))(THETA)
    assert_allclose(found, right)


def threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_blas_threads_end_as_they_began_however_calls_overlap():
    """The second thread enters while the first is inside, and leaves last."""
    before, entered, left = threads(), threading.Event(), threading.Event()

    def second():
        with calls.session():
            entered.set()
            left.wait()

    other = threading.Thread(target=second)
    with contextlib.ExitStack() as stack:
        stack.enter_context(calls._BLAS)
        other.start()
        entered.wait()
    left.set()
    other.join()
    assert threads() == before
