"""Array functions given numbers of every type, concrete and traced: the numbers of floats, or a
refusal in words.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose

import interlace_jax as interlace

WIDTHS = pytest.mark.parametrize("wide", [False, True])
KINDS = ["int8", "int32", "int64", "uint8", "uint64", "float16", "float32", "float64", "bool"]
THETA = np.array([1, 0, 1])
CODES = np.repeat(np.arange(8), 5)
SLOPES = np.tile(np.arange(5.0), 8)


def data():
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(40), SLOPES])
    y = np.round(
        20
        + 2 * SLOPES
        + rng.normal(0, 3, 8)[CODES]
        + rng.normal(0, 2, 8)[CODES] * SLOPES
        + rng.normal(size=40)
    )
    return y, X, [(CODES, X)]


@pytest.fixture(scope="module")
def model():
    y, X, _ = data()
    frame = {"y": y, "x": X[:, 1], "g": CODES}
    return interlace.compile("y ~ x + (1 + x | g)", pd.DataFrame(frame))


@pytest.mark.parametrize("kind", KINDS)
@WIDTHS
def test_a_theta_of_any_type_is_the_same_numbers(model, kind, wide):
    right = model.deviance(THETA.astype(float))
    with jax.enable_x64(wide):
        theta = jnp.asarray(THETA.astype(kind))
        m = interlace.moments(*data())
        found = [
            model.deviance(theta),
            jax.jit(model.deviance)(theta),
            interlace.deviance(theta, m),
        ]
        found += [
            interlace.deviance(THETA.astype(kind), m),
            jax.jit(lambda t: interlace.deviance(t, m))(theta),
        ]
        effects = interlace.random_effects(theta, m)[0]
        assert_allclose(effects, interlace.random_effects(THETA * 1.0, m)[0], rtol=1e-6, atol=1e-5)
    half = 1e-3 if kind == "float16" else 1e-6  # the deviance has theta's own type
    assert_allclose(np.array(found, float), right, rtol=half)


@pytest.mark.parametrize("kind", ["int16", "int64", "uint8", "float32"])
@WIDTHS
def test_rows_of_any_type_are_the_same_numbers_when_traced(model, kind, wide):
    y = data()[0]
    w = 1 + CODES % 3
    right = model.with_response(y, weights=w).estimate()
    with jax.enable_x64(wide):
        rows = jnp.asarray(y.astype(kind)), jnp.asarray(w.astype(kind))

        @quick_jit
        def of(y, w):
            traced = model.with_response(y, weights=w)
            return traced.estimate().beta, traced.moments

        found, m = of(*rows)
    assert_allclose(found, right.beta, rtol=1e-5)
    assert all(jnp.issubdtype(a.dtype, jnp.floating) for a in jax.tree.leaves(m))


@WIDTHS
def test_complex_numbers_are_refused(model, wide):
    y, X, groups = data()
    with jax.enable_x64(wide):
        m = interlace.moments(y, X, groups)
        for call in (
            lambda: interlace.moments(y + 0j, X, groups),
            lambda: interlace.moments(y, X * 1j, groups),
            lambda: interlace.deviance(THETA * 1j, m),
            lambda: interlace.deviance(jnp.asarray(THETA * 1j), m),
            lambda: model.deviance(jnp.asarray(THETA * 1j)),
        ):
            with pytest.raises(TypeError, match="complex"):
                call()


@WIDTHS
def test_codes_are_looked_at_before_they_are_cast(wide):
    """Unknown levels have the population's value: -1, NaN, too large, and what an int32 would
    wrap around.
    """
    y, X, groups = data()
    with jax.enable_x64(wide):
        m = interlace.moments(y, X, groups)
        fitted = interlace.estimate(m)
        four = X[:4]
        codes = np.array([2, -1, 2**32 + 1, 8], np.int64)
        b = interlace.random_effects(fitted, m)[0]
        right = four @ fitted.beta + np.append(four[0] @ b[2], np.zeros(3))
        for given in (codes, codes.astype(float), np.array([2, np.nan, np.inf, -np.inf])):
            assert_allclose(interlace.predict(fitted, m, four, [(given, four)]), right, rtol=1e-5)
        traced = jnp.array([2.0, np.nan, 1e10, 0.7])
        found = jax.jit(lambda c: interlace.predict(fitted, m, four, [(c, four)]))(traced)
        assert_allclose(found, right, rtol=1e-5)
        with pytest.raises(ValueError, match="whole numbers"):
            interlace.predict(fitted, m, four, [(np.array([2, 0.7, 0, 1]), four)])
        for wrong in (np.array(["a"] * 4), np.array([True] * 4)):
            with pytest.raises(TypeError, match="whole numbers"):
                interlace.predict(fitted, m, four, [(wrong, four)])
    with pytest.raises(ValueError, match="at most"):
        interlace.moments(y[:1], X[:1], [(np.array([2**31]), X[:1])])


def fitted(y, X, Z, w, offset):
    return interlace.estimate(interlace.moments(y, X, [(CODES, Z)], w, offset))


@quick_jit
def by_response(*rows):
    """Derivatives of the slope by the response."""
    return jax.grad(lambda y: fitted(y, *rows[1:]).beta[1])(rows[0])


@pytest.mark.parametrize("filler", [np.nan, np.inf, 1e30, 1e200])
def test_rows_of_weight_zero_are_not_there_whatever_stands_in_them(filler):
    y, X, ((_, Z),) = data()
    w = np.where(np.arange(40) % 7 == 3, 0.0, 1.5)
    used = w > 0
    y, X, Z, offset = (
        np.where(used.reshape(-1, *(1,) * (a.ndim - 1)), a, filler) for a in (y, X, Z, 0 * y)
    )
    with jax.enable_x64(True):
        right = interlace.estimate(
            interlace.moments(y[used], X[used], [(CODES[used], Z[used])], w[used])
        )
        found = fitted(y, X, Z, w, offset)
        slope = by_response(y, X, Z, w, offset)
    assert_allclose(found.beta, right.beta, rtol=1e-7)
    assert_allclose(found.deviance, right.deviance, rtol=1e-9)
    assert np.isfinite(slope).all() and not np.asarray(slope)[~used].any()


def test_moments_of_a_64_bit_context_that_ended_are_used_in_single_precision():
    with jax.enable_x64(True):
        m = interlace.moments(*data())
        right = float(interlace.deviance(THETA, m))
    with jax.enable_x64(False):
        assert_allclose(interlace.deviance(THETA, m), right, rtol=1e-5)
        assert_allclose(
            interlace.estimate(m).deviance,
            interlace.estimate(interlace.moments(*data())).deviance,
            rtol=1e-5,
        )
