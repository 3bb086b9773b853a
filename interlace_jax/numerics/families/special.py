"""Functions that log-densities are made of, accurate in their tails and in their derivatives of
every order.

All are plain arithmetic, elementwise, with rules that keep derivatives of every order as short as
the functions.
"""

from __future__ import annotations

import functools
import math

from ...support.later import custom_jvp, jnp

HALF_LOG_2PI = 0.9189385332046727
# by which the argument of an asymptotic series is raised, so that the series is good to rounding
RAISE = 8
# of (1 + a) Phi(-a) / phi(a) in (a - 5) / (a + 5): least squares on 20,000 Chebyshev points
# against `scipy.special.erfcx`
MILLS = (
    1.1568486282918944,
    -0.22948753825211773,
    0.0777815988687477,
    0.02507217930205731,
    -0.06617760077933556,
    0.0615050458288687,
    -0.03802659218366768,
    0.016348231420314212,
    -0.004201290339762902,
    1.95296951232794e-05,
    0.00045704395476767174,
    -0.00013437040053807854,
    -2.4805897025793865e-05,
    2.2699415048912056e-05,
    -1.7626199255748727e-07,
    -3.2597560971661133e-06,
    3.204911745288312e-07,
    4.72378742415458e-07,
    -6.586895324289801e-08,
    -6.381655111908913e-08,
    9.089708328247072e-09,
    5.527399480342865e-09,
    -7.078051567077637e-10,
)
FARTHEST = 1e10  # from which on the argument of that series stays as it is
# numbers B_2, B_4, ...
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


@custom_jvp
def softplus(x):
    """log(1 + e^x); its derivatives of every order come from the sigmoid."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _(primals, tangents):
    return softplus(*primals), sigmoid(*primals) * tangents[0]


@custom_jvp
def sigmoid(x):
    """1 / (1 + e^-x)."""
    z = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, 1.0, z) / (1.0 + z)


@sigmoid.defjvp
def _(primals, tangents):
    """P (1 - p) without the difference: both factors keep their digits."""
    return sigmoid(*primals), sigmoid(primals[0]) * sigmoid(-primals[0]) * tangents[0]


def log1mexp(x):
    """log(1 - e^-x) for x > 0; either branch sees arguments of its own, so that derivatives are
    finite too.
    """
    small = x < 0.6931471805599453
    near = jnp.where(small, x, 1.0)
    far = jnp.where(small, 1.0, x)
    return jnp.where(small, jnp.log(-jnp.expm1(-near)), jnp.log1p(-jnp.exp(-far)))


@custom_jvp
def log_normal_cdf(x):
    """Logarithm of Phi(x) of the standard normal; derivatives of every order come from
    phi / Phi.
    """
    tail, density = _tail(x)
    low = x < 0
    log = jnp.log1p(jnp.where(low, tail - 1.0, -density * tail))
    return log - jnp.where(low, 0.5 * x * x + HALF_LOG_2PI, 0.0)


@log_normal_cdf.defjvp
def _(primals, tangents):
    return log_normal_cdf(*primals), _inverse_mills_ratio(*primals) * tangents[0]


@custom_jvp
def _inverse_mills_ratio(x):
    """phi(x) / Phi(x), which is near -x far below 0."""
    tail, density = _tail(x)
    return jnp.where(x < 0, 1.0, density) / jnp.where(x < 0, tail, 1.0 - density * tail)


@_inverse_mills_ratio.defjvp
def _(primals, tangents):
    ratio = _inverse_mills_ratio(*primals)
    return ratio, -ratio * (ratio + primals[0]) * tangents[0]


def _tail(x):
    """Phi(-|x|) / phi(x), to 1e-15 of itself, and phi(x).

    A polynomial in (a - 5) / (a + 5) makes (1 + a) Phi(-a) / phi(a), as Shepherd & Laframboise
    (1981, Math. Comp. 36) do for erfc.
    """
    a = jnp.minimum(jnp.abs(x), FARTHEST)
    t, product = (a - 5.0) / (a + 5.0), 0.0
    for coefficient in reversed(MILLS):
        product = product * t + coefficient
    return product / (1.0 + a), jnp.exp(-0.5 * x * x - HALF_LOG_2PI)


def _stirling(x):
    """gammaln(x) - [(x - 1/2) log x - x + log(2 pi)/2] for x >= 8."""
    z = 1.0 / (x * x)
    tail = 1 / 1260 - z * (1 / 1680 - z * (1 / 1188 - z * (691 / 360360)))
    return (1 / 12 - z * (1 / 360 - z * tail)) / x


def polygamma(order: int, x):
    """Derivative number `order` of the digamma function (0: itself) at x > 0.

    By the asymptotic series at x + 8 (Abramowitz & Stegun 1964, 6.4.11) and the recurrence down to
    x.
    """
    return _polygamma(order)(x)


@functools.cache
def _polygamma(order):
    """Polygamma of one order, whose derivative is that of the next."""
    made = custom_jvp(
        functools.partial(_digamma) if order == 0 else functools.partial(_higher, order)
    )

    @made.defjvp
    def _(primals, tangents):
        return made(*primals), polygamma(order + 1, *primals) * tangents[0]

    return made


def _digamma(x):
    big = x + RAISE
    z = 1.0 / (big * big)
    series = 0.0
    for n, B in reversed(list(enumerate(BERNOULLI, 1))):
        series = z * (B / (2 * n) + series)
    return jnp.log(big) - 0.5 / big - series - sum(1.0 / (x + j) for j in range(RAISE))


def _higher(order, x):
    big = x + RAISE
    z = 1.0 / (big * big)
    series = 0.0
    for n, B in reversed(list(enumerate(BERNOULLI, 1))):
        series = z * (B * math.factorial(2 * n + order - 1) / math.factorial(2 * n) + series)
    whole = math.factorial(order)
    leading = whole / order + 0.5 * whole / big + series
    total = leading / big**order + whole * sum(1.0 / (x + j) ** (order + 1) for j in range(RAISE))
    return total if order % 2 else -total


@custom_jvp
def lgamma(x):
    """Log of the gamma function of x > 0."""
    low = x * (x + 1) * (x + 2) * (x + 3)
    high = (x + 4) * (x + 5) * (x + 6) * (x + 7)
    big = x + RAISE
    return (
        (big - 0.5) * jnp.log(big)
        - big
        + HALF_LOG_2PI
        + _stirling(big)
        - (jnp.log(low) + jnp.log(high))
    )


@lgamma.defjvp
def _(primals, tangents):
    return lgamma(*primals), polygamma(0, *primals) * tangents[0]


@custom_jvp
def lgamma_ratio(size, y):
    """gammaln(size + y) - gammaln(size) for y >= 0, without cancellation where size is large; 0
    where y is.
    """
    a, b = size + RAISE, size + y + RAISE
    # (b - 1/2) log b - (a - 1/2) log a - (b - a), with b = a + y
    main = (a - 0.5) * jnp.log1p(y / a) + y * jnp.log(b) - y
    # The product of 1 + y / (size + j) less 1, without cancellation: one logarithm for seven
    product = y / (size + 1)
    for j in range(2, RAISE):
        e = y / (size + j)
        product = product + e + product * e
    return main + _stirling(b) - _stirling(a) - jnp.log1p(product) - _log_ratio(size, y)


@lgamma_ratio.defjvp
def _(primals, tangents):
    size, y = primals
    by_size, by_y = digamma_ratio(size, y), polygamma(0, size + y)
    return lgamma_ratio(size, y), by_size * tangents[0] + by_y * tangents[1]


@custom_jvp
def digamma_ratio(size, y):
    """Difference digamma(size + y) - digamma(size), without cancellation where size is large; 0
    where y is.
    """
    a, b = size + RAISE, size + y + RAISE
    total = jnp.log1p(y / a) + 0.5 * y / (a * b)
    for n, B in enumerate(BERNOULLI, 1):
        total = total + B / (2 * n) * (a ** (-2 * n) - b ** (-2 * n))
    return total + sum(y / (size + j) / (size + y + j) for j in range(RAISE))


@digamma_ratio.defjvp
def _(primals, tangents):
    size, y = primals
    above = polygamma(1, size + y)
    return digamma_ratio(size, y), (above - polygamma(1, size)) * tangents[0] + above * tangents[1]


def _log_ratio(size, y):
    """log((size + y) / size), where y / size may overflow."""
    great = y > size
    near = jnp.where(great, 0.0, y / jnp.where(great, 1.0, size))
    far = jnp.where(great, y, 1.0)
    return jnp.where(great, jnp.log(size + far) - jnp.log(size), jnp.log1p(near))
