"""Helpers of the densities against SciPy and mpmath's values, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from interlace_jax.numerics.families.special import (
    lgamma,
    lgamma_ratio,
    log1mexp,
    log_normal_cdf,
    polygamma,
    sigmoid,
    softplus,
)

pytestmark = pytest.mark.usefixtures("x64")


def test_softplus_and_sigmoid_keep_their_digits_in_both_tails():
    x = jnp.array([-700.0, -40.0, -1e-3, 0.0, 3.0, 40.0, 700.0])
    np.testing.assert_allclose(softplus(x), np.logaddexp(0.0, x), rtol=1e-14)
    np.testing.assert_allclose(sigmoid(x), special.expit(x), rtol=1e-14)
    slopes = jax.vmap(jax.grad(jax.grad(softplus)))(x)
    np.testing.assert_allclose(slopes, special.expit(x) * special.expit(-x), rtol=1e-14)


def test_log1mexp_is_exact_near_zero_and_far_out():
    x = jnp.array([1e-300, 1e-10, 0.5, 0.7, 5.0, 700.0])
    middle = [np.log(-np.expm1(-0.5)), np.log(-np.expm1(-0.7)), np.log1p(-np.exp(-5.0))]
    exact = [np.log(1e-300), np.log(1e-10) - 5e-11, *middle, -np.exp(-700.0)]
    np.testing.assert_allclose(log1mexp(x), exact, rtol=1e-14)
    assert np.isfinite(jax.vmap(jax.grad(jax.grad(log1mexp)))(x[1:])).all()


def test_the_log_of_the_normal_distribution_keeps_its_digits_in_both_tails():
    x = jnp.concatenate([jnp.linspace(-8.0, 8.0, 161), jnp.array([-1e5, -400.0, -40.0, 60.0])])
    np.testing.assert_allclose(log_normal_cdf(x), special.log_ndtr(x), rtol=1e-14)
    below = np.sqrt(2 / np.pi) / special.erfcx(np.maximum(-x, 0.0) / np.sqrt(2))
    above = np.exp(-x * x / 2) / np.sqrt(2 * np.pi) / special.ndtr(np.maximum(x, 0.0))
    ratio = np.where(x < 0, below, above)
    np.testing.assert_allclose(jax.vmap(jax.grad(log_normal_cdf))(x), ratio, rtol=1e-14)
    middle = x[:161]  # below, r + x loses x^2 roundings
    second = jax.vmap(jax.grad(jax.grad(log_normal_cdf)))(middle)
    np.testing.assert_allclose(second, -ratio[:161] * (ratio[:161] + middle), rtol=1e-12)


def test_lgamma_is_that_of_scipy():
    x = jnp.array([1e-8, 0.1, 0.5, 1.0, 1.5, 2.0, 7.3, 8.0, 100.0, 1e6, 1e12])
    np.testing.assert_allclose(lgamma(x), special.gammaln(x), rtol=2e-15, atol=2e-14)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(lgamma))(x), special.digamma(x), rtol=1e-13, atol=1e-13
    )
    np.testing.assert_allclose(
        jax.vmap(jax.grad(jax.grad(lgamma)))(x), special.polygamma(1, x), rtol=1e-11
    )


@pytest.mark.parametrize("order", range(6))
def test_polygammas_are_those_of_scipy(order):
    x = jnp.array([1e-3, 0.1, 0.5, 1.0, 2.0, 7.3, 8.0, 100.0, 1e6])
    exact = special.digamma(x) if order == 0 else special.polygamma(order, x)
    np.testing.assert_allclose(polygamma(order, x), exact, rtol=2e-13, atol=1e-15)


def test_derivatives_of_ratios_keep_their_digits_at_great_sizes():
    size, y = jnp.array([0.3, 5.0, 80.0, 1e9]), jnp.array([2.0, 17.0, 0.0, 3.0])
    by_size, by_y = jax.vmap(jax.grad(lgamma_ratio, (0, 1)))(size, y)
    exact = [
        np.sum(1.0 / (s + np.arange(k)))
        for s, k in zip(np.array(size), np.array(y, int), strict=True)
    ]
    np.testing.assert_allclose(by_size, exact, rtol=1e-13)
    np.testing.assert_allclose(by_y, special.digamma(size + y), rtol=1e-13)
    (second, mixed), (_, by_y) = jax.vmap(jax.hessian(lgamma_ratio, (0, 1)))(size, y)
    np.testing.assert_allclose(mixed, special.polygamma(1, size + y), rtol=1e-12)
    np.testing.assert_allclose(by_y, mixed, rtol=1e-14)
    np.testing.assert_allclose(
        second, special.polygamma(1, size + y) - special.polygamma(1, size), atol=1e-15, rtol=1e-9
    )


def test_lgamma_ratio_does_not_cancel_at_great_sizes():
    size, y = (
        jnp.array(a.ravel())
        for a in np.meshgrid([1e-6, 0.3, 5.0, 80.0], [0.0, 1.0, 2.0, 17.0, 300.0])
    )
    exact = (
        np.log([np.prod(1.0) if k == 0 else 1.0 for k in y])
        + special.loggamma(size + y)
        - special.loggamma(size)
    )
    np.testing.assert_allclose(lgamma_ratio(size, y), exact, rtol=1e-13, atol=1e-13)
    # log of size (size + 1) (size + 2) at 1e12, where the difference of two loggammas has four
    # digits
    whole = 3 * np.log(1e12) + np.log1p(1e-12) + np.log1p(2e-12)
    assert lgamma_ratio(jnp.array(1e12), jnp.array(3.0)) == pytest.approx(whole, rel=1e-15)
    assert (lgamma_ratio(size, 0.0 * y) == 0.0).all()
