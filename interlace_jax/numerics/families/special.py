"""Functions that log-densities are made of, accurate in their tails and in their derivatives of every order.

All are plain arithmetic, elementwise: derivatives of library gamma functions are chains of polygammas, which cost more
and lose digits.
"""

import jax
import jax.numpy as jnp

HALF_LOG_2PI = 0.9189385332046727


@jax.custom_jvp
def softplus(x):
    """log(1 + e^x); its derivatives of every order come from the sigmoid."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _(primals, tangents):
    return softplus(*primals), sigmoid(*primals) * tangents[0]


@jax.custom_jvp
def sigmoid(x):
    """1 / (1 + e^-x)."""
    z = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, 1.0, z) / (1.0 + z)


@sigmoid.defjvp
def _(primals, tangents):
    """P (1 - p) without the difference: both factors keep their digits."""
    return sigmoid(*primals), sigmoid(primals[0]) * sigmoid(-primals[0]) * tangents[0]


def log1mexp(x):
    """log(1 - e^-x) for x > 0; either branch sees arguments of its own, so that derivatives are finite too."""
    small = x < 0.6931471805599453
    near = jnp.where(small, x, 1.0)
    far = jnp.where(small, 1.0, x)
    return jnp.where(small, jnp.log(-jnp.expm1(-near)), jnp.log1p(-jnp.exp(-far)))


def _stirling(x):
    """gammaln(x) - [(x - 1/2) log x - x + log(2 pi)/2] for x >= 8."""
    z = 1.0 / (x * x)
    tail = 1 / 1260 - z * (1 / 1680 - z * (1 / 1188 - z * (691 / 360360)))
    return (1 / 12 - z * (1 / 360 - z * tail)) / x


def _raised(x):
    """X + 8, and gammaln(x + 8) - gammaln(x) = log of x (x+1) ... (x+7)."""
    low = x * (x + 1) * (x + 2) * (x + 3)
    high = (x + 4) * (x + 5) * (x + 6) * (x + 7)
    return x + 8, jnp.log(low) + jnp.log(high)


def lgamma(x):
    """Log of the gamma function of x > 0."""
    big, shift = _raised(x)
    return (big - 0.5) * jnp.log(big) - big + HALF_LOG_2PI + _stirling(big) - shift


def lgamma_ratio(size, y):
    """gammaln(size + y) - gammaln(size) for y >= 0, without cancellation where size is large; 0 where y is."""
    a, b = size + 8, size + y + 8
    # (b - 1/2) log b - (a - 1/2) log a - (b - a), with b = a + y
    main = (a - 0.5) * jnp.log1p(y / a) + y * jnp.log(b) - y
    # The product of 1 + y / (size + j) less 1, without cancellation: one logarithm for seven
    product = y / (size + 1)
    for j in range(2, 8):
        e = y / (size + j)
        product = product + e + product * e
    return main + _stirling(b) - _stirling(a) - jnp.log1p(product) - _log_ratio(size, y)


def _log_ratio(size, y):
    """log((size + y) / size), where y / size may overflow."""
    great = y > size
    near = jnp.where(great, 0.0, y / jnp.where(great, 1.0, size))
    far = jnp.where(great, y, 1.0)
    return jnp.where(great, jnp.log(size + far) - jnp.log(size), jnp.log1p(near))
