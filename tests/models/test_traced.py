"""Fits of a formula inside JAX's transformations: the rows of a compiled model may be traced."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import quick_jit
from helpers.fits import fitted, sleepstudy
from numpy.testing import assert_allclose

import interlace_jax as interlace

THETA = np.array([0.8, 0.1, 0.3])
WIDTHS = pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])


@pytest.fixture(scope="module")
def model():
    return interlace.compile("Reaction ~ Days + (1 + Days | Subject)", sleepstudy())


def along(model, step):
    """The response moved a little along a fixed direction."""
    return model.design.y + step * np.random.default_rng(0).standard_normal(len(model.design.y))


@WIDTHS
def test_loglik_and_estimate_have_derivatives_by_the_response(model, wide):
    def numbers(y):
        traced = model.with_response(y)
        e = traced.estimate()
        return traced.loglik(THETA.astype(y.dtype)), e.deviance, e.sigma, *e.beta

    with jax.enable_x64(wide):
        y = jnp.asarray(model.design.y)
        values, jacobian = quick_jit(lambda y: (numbers(y), jax.jacrev(numbers)(y)))(y)
        assert all(a.dtype == y.dtype for a in (*values, *jacobian))
    fit = fitted("sleepstudy_slope_REML")
    # Outside 64-bit mode y itself is rounded; all else is computed in float64 and rounded once.
    rtol = 1e-8 if wide else 1e-6
    assert_allclose(
        values, [model.loglik(THETA), fit.deviance, fit.sigma, *fit.fe_params], rtol=rtol
    )
    step = 1.0
    ends = [
        [m.loglik(THETA), *(lambda f: (f.deviance, f.sigma, *f.fe_params))(m.fit())]
        for m in (model.with_response(along(model, s * step)) for s in (-2, -1, 1, 2))
    ]
    expected = (ends[0] - 8 * np.array(ends[1]) + 8 * np.array(ends[2]) - ends[3]) / (12 * step)
    products = [
        np.asarray(row, float) @ (along(model, 1.0) - along(model, 0.0)) for row in jacobian
    ]
    assert_allclose(products, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_weights_and_offset_may_be_traced_too(model):
    ones = np.ones(180)
    with jax.enable_x64(True):

        def deviance(w, offset):
            return model.with_response(model.design.y, weights=w, offset=offset).deviance(THETA)

        by_weights, by_offset = quick_jit(jax.grad(deviance, (0, 1)))(ones, 0.0 * ones)
        by_response = quick_jit(jax.grad(lambda y: model.with_response(y).deviance(THETA)))(
            model.design.y
        )
    assert_allclose(by_offset, -np.asarray(by_response), rtol=1e-9, atol=1e-12)
    moved = [
        model.with_response(model.design.y, weights=ones + s * np.arange(180) / 180).deviance(THETA)
        for s in (1e-4, -1e-4)
    ]
    assert_allclose(
        np.asarray(by_weights) @ np.arange(180) / 180, (moved[0] - moved[1]) / 2e-4, rtol=1e-6
    )


def test_a_fresh_model_can_be_compiled_before_it_was_ever_called():
    fresh = interlace.compile("Reaction ~ Days + (1 | Subject)", sleepstudy())
    found = jax.jit(fresh.loglik)(jnp.array([1.0]))
    assert_allclose(found, fresh.loglik(np.ones(1)), rtol=1e-6)


def test_outside_a_transformation_the_estimate_is_that_of_fit(model):
    assert_allclose(model.estimate().theta, fitted("sleepstudy_slope_REML").theta, rtol=1e-12)
    assert isinstance(model.with_response(jnp.asarray(model.design.y)), interlace.Model)


@pytest.mark.parametrize(
    "rows, message",
    [
        (dict(y=np.ones(3)), r"y has shape \(3,\), but the model has 180 rows"),
        (dict(weights=np.zeros(180)), "weights must be positive"),
        (dict(offset=np.full(180, np.nan)), "offset has 180 missing"),
    ],
)
def test_rows_are_checked_where_they_are_known(model, rows, message):
    with pytest.raises(ValueError, match=message):
        model.with_response(**dict(y=model.design.y) | rows)
    with pytest.raises(ValueError, match="y has shape"):
        jax.jit(lambda y: model.with_response(y).loglik(THETA))(jnp.ones(3))


@WIDTHS
def test_the_loss_has_derivatives_by_theta_response_and_columns(model, wide):
    """Against differences of the log-likelihood of models with moved rows."""
    y, X = model.design.y, model.design.X
    assert_allclose(model.loss(THETA), -model.loglik(THETA), rtol=1e-6)
    rng = np.random.default_rng(1)
    v = [0.1 * THETA, rng.standard_normal(180), 0.01 * rng.standard_normal((180, 2))]
    with jax.enable_x64(wide):
        at = [jnp.asarray(a) for a in (THETA, y, X)]
        slopes = quick_jit(jax.grad(model.loss, argnums=(0, 1, 2)))(*at)
    for j, (slope, along) in enumerate(zip(slopes, v, strict=True)):
        ends = []
        for s in (1e-4, -1e-4):
            moved = [THETA, y, X]
            moved[j] = moved[j] + s * along
            design = replace(model.design, y=moved[1], X=moved[2])
            ends.append(-model.with_design(design).loglik(moved[0]))
        expected = (ends[0] - ends[1]) / 2e-4
        # Rounding y, of some 300, to single precision moves a derivative by 1e-5 of itself.
        assert_allclose(np.vdot(np.asarray(slope, float), along), expected, rtol=1e-3, atol=1e-4)


def test_columns_for_a_loss_are_one_row_a_row(model):
    with pytest.raises(ValueError, match=r"X has shape \(3, 2\).*it must be \(180, columns\)"):
        model.loss(THETA, X=np.ones((3, 2)))
