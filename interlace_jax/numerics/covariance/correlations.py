"""Correlations of repeated measurements: of visits in an order, or of points some distance apart.

They make the residuals of a subject covary (`residual`); over the columns of a random effect they
serve `cov` too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...support.later import jax, jnp
from ..linalg.matrices import cholesky
from .structures import STEEPEST, Correlated, fisher, lags


def mean_by_lag(C, k: int):
    """Mean of C (k, k) over the pairs of visits that are 0, 1, ... steps apart: (k,)."""
    return jnp.stack([jnp.mean(jnp.diagonal(C, j)) for j in range(k)])


@dataclass(frozen=True)
class FreeCorrelations(Correlated):
    """Any correlation matrix, as the rows of its Cholesky factor before they are made of length
    1.
    """

    def shape_names(self, k: int) -> tuple[str, ...]:
        """A number for each pair, row by row below the diagonal."""
        return tuple(f"rho{i},{j}" for i in range(2, k + 1) for j in range(1, i))

    def shape_natural(self, x, k: int):
        """The correlations themselves: each depends on all numbers of its row and those before."""
        return self.correlation(x, k)[np.tril_indices(k, -1)]

    def correlation(self, x, k: int):
        """C = L L', rows of L of length 1."""
        rows = jnp.eye(k, dtype=x.dtype).at[np.tril_indices(k, -1)].set(x)
        L = rows / jnp.sqrt(jnp.sum(rows**2, 1, keepdims=True))
        return L @ L.T

    def near(self, C, k: int):
        """The numbers of C itself."""
        L = cholesky(C)
        return (L / jnp.diagonal(L)[:, None])[np.tril_indices(k, -1)]


@dataclass(frozen=True)
class Toeplitz(Correlated):
    """A correlation for each number of steps between visits (SAS's and mmrm's toep; heterogeneous:
    toeph).

    The free numbers are partial autocorrelations, which make every positive definite matrix of this
    form and no other (Barndorff-Nielsen & Schou 1973, J. Multivariate Analysis 3, 408-419).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.Toeplitz()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.residual_correlation.iloc[:3, :3].round(2)
         0    1    2
    0  1.0  0.8  0.7
    1  0.8  1.0  0.8
    2  0.7  0.8  1.0
    """

    over: ClassVar[str] = "lags"

    def shape_names(self, k: int) -> tuple[str, ...]:
        """A correlation for every lag."""
        return tuple(f"rho{j}" for j in range(1, k))

    def shape_natural(self, x, k: int):
        """Correlations by lag."""
        return autocorrelations(jnp.tanh(x))[1:]

    def correlation(self, x, k: int):
        """By lag."""
        return autocorrelations(jnp.tanh(x))[lags(k)]

    def near(self, C, k: int):
        """Partial autocorrelations of the mean correlations by lag."""
        return fisher(partial_autocorrelations(mean_by_lag(C, k)))

    def held(self, x, value):
        """For the correlation of each lag to have Fisher's z of this value; NaN where the shorter
        lags do not allow it.
        """
        expected, left = _from_shorter_lags(jnp.tanh(x))
        partial = (jnp.tanh(value) - expected) / left
        is_possible = jnp.abs(partial) < 1.0
        return jnp.where(is_possible, jnp.arctanh(jnp.where(is_possible, partial, 0.0)), jnp.nan)


def autocorrelations(partial):
    """Correlations at lags 0 to k (k + 1,) from partial ones (k,), by Durbin and Levinson's
    recursion.
    """
    expected, left = _from_shorter_lags(partial)
    return jnp.append(1.0, expected + left * partial)


def _from_shorter_lags(partial):
    """By lag from 1 the correlation that those of shorter lags predict, and what the partial one
    (k,) moves it by: two arrays (k,).
    """
    found, weights, left = [], partial[:0], jnp.ones((), partial.dtype)
    expected, lefts = [], []
    for j in range(len(partial)):
        earlier = jnp.stack(found[::-1]) if j else partial[:0]
        expected.append(weights @ earlier)
        lefts.append(left)
        found.append(partial[j] * left + expected[j])
        weights = jnp.append(weights - partial[j] * weights[::-1], partial[j])
        left = left * (1.0 - partial[j] ** 2)
    return jnp.stack(expected), jnp.stack(lefts)


def partial_autocorrelations(r):
    """Partial autocorrelations (k,) of correlations at lags 0 to k (k + 1,), each kept within
    +-STEEPEST.
    """
    found, weights, left = [], r[:0], 1.0
    for j in range(len(r) - 1):
        partial = jnp.clip((r[j + 1] - weights @ r[1 : j + 1][::-1]) / left, -STEEPEST, STEEPEST)
        weights = jnp.append(weights - partial * weights[::-1], partial)
        left = left * (1.0 - partial**2)
        found.append(partial)
    return jnp.stack(found)


@dataclass(frozen=True)
class Antedependence(Correlated):
    """First-order ante-dependence: visits correlate by the product of the correlations of
    neighbours between them.

    Gabriel 1962, Ann. Math. Stat. 33, 201-212; SAS's ante(1) is heterogeneous, mmrm's ad and adh
    are both here.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.Antedependence()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.residual_correlation.iloc[:3, :3].round(2)
          0    1     2
    0  1.00  0.9  0.81
    1  0.90  1.0  0.90
    2  0.81  0.9  1.00
    """

    over: ClassVar[str] = "order"

    def shape_names(self, k: int) -> tuple[str, ...]:
        """A correlation for every pair of neighbours."""
        return tuple(f"rho{j},{j + 1}" for j in range(1, k))

    def correlation(self, x, k: int):
        """Products of successive correlations."""
        rho, band = jnp.tanh(x), jnp.ones(k, x.dtype)
        upper = jnp.zeros((k, k), x.dtype)
        for lag in range(1, k):
            band = band[:-1] * rho[lag - 1 :]
            upper = upper + jnp.diag(band, lag)
        return jnp.eye(k, dtype=x.dtype) + upper + upper.T

    def near(self, C, k: int):
        """The correlations of neighbours in C."""
        return fisher(jnp.diagonal(C, 1))


@dataclass(frozen=True)
class ARMA11(Correlated):
    """An autoregression with a moving average, ARMA(1, 1): rho1 phi^(lag - 1), as nlme's
    corARMA(p = 1, q = 1).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.ARMA11()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.residual_correlation.iloc[:3, :3].round(2)
          0    1     2
    0  1.00  0.8  0.71
    1  0.80  1.0  0.80
    2  0.71  0.8  1.00
    """

    over: ClassVar[str] = "lags"

    def shape_names(self, k: int) -> tuple[str, ...]:
        """Autoregressive and moving-average number, both between -1 and 1."""
        return ("phi", "theta")

    def correlation(self, x, k: int):
        """By lag."""
        phi, theta = jnp.tanh(x[0]), jnp.tanh(x[1])
        first = (1.0 + phi * theta) * (phi + theta) / (1.0 + 2.0 * phi * theta + theta**2)
        powers = jnp.append(1.0, jnp.cumprod(jnp.broadcast_to(phi, (k - 1,))))
        return jnp.append(1.0, first * powers[:-1])[lags(k)]

    def near(self, C, k: int):
        """An AR(1) of the mean correlation of neighbours."""
        return jnp.append(fisher(jnp.mean(jnp.diagonal(C, 1))), 0.0)


# Distances ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spatial(Correlated):
    """Correlations that fall with the distance between two points; `nugget`: a part of the variance
    correlates not.

    Distances are in units of the typical gap between points, in which the search for the range
    starts at 1.
    """

    nugget: bool = False

    over: ClassVar[str] = "distances"

    def decay(self, ratio):
        """The correlation at a distance over the range, elementwise."""
        raise NotImplementedError

    def shape_names(self, k: int) -> tuple[str, ...]:
        """The range, and the nugget where there is one."""
        return ("range", "nugget") if self.nugget else ("range",)

    def shape_natural(self, x, k: int):
        """The range is positive, the nugget between 0 and 1."""
        return jnp.append(jnp.exp(x[:1]), jax.nn.sigmoid(x[1:]))

    def between(self, x, distance):
        """Correlations of different points: one number an entry of x, scalars or (P,); distance
        (..., P).
        """
        x = [value.reshape((1,) * (jnp.ndim(distance) - value.ndim) + value.shape) for value in x]
        left = 1.0 - jax.nn.sigmoid(x[1]) if self.nugget else 1.0
        return left * self.decay(distance * jnp.exp(-x[0]))

    def correlation(self, x, k: int):
        """Of points one step apart from the next: columns of a random effect."""
        return jnp.where(np.eye(k, dtype=bool), 1.0, self.between(x, jnp.asarray(lags(k), x.dtype)))

    def near(self, C, k: int):
        """A range of one typical gap, and a fifth of the variance as nugget."""
        return jnp.array([0.0, -1.4])[: len(self.shape_names(k))]


@dataclass(frozen=True)
class Exponential(Spatial):
    """exp(-distance / range): continuous-time AR(1) in one dimension (SAS's and mmrm's sp(exp),
    nlme's corExp).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.Exponential()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.structure.round(2)
           estimate    se  lower  upper
    range      4.48  1.07   2.81   7.15
    """

    def decay(self, ratio):
        """exp(-ratio)."""
        return jnp.exp(-ratio)


@dataclass(frozen=True)
class SquaredExponential(Spatial):
    """exp(-(distance / range)^2): a smooth process (SAS's sp(gau), nlme's corGaus).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.SquaredExponential(nugget=True)
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.structure.round(2)
            estimate    se  lower  upper
    range       5.69  1.09   3.91   8.30
    nugget      0.21  0.05   0.13   0.32
    """

    def decay(self, ratio):
        """exp(-ratio^2)."""
        return jnp.exp(-(ratio**2))


@dataclass(frozen=True)
class Matern(Spatial):
    """Matern's correlations with nu = 1/2, 3/2 or 5/2, distances in units of range / sqrt(2 nu).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.Matern(nu=1.5)
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.structure.round(2)
           estimate    se  lower  upper
    range       1.5  0.13   1.27   1.78
    """

    nu: float = 1.5

    def __post_init__(self):
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"nu of a Matern correlation must be 0.5, 1.5 or 2.5, not {self.nu!r}")

    def decay(self, ratio):
        """Polynomial times exponential (Rasmussen & Williams 2006, eq. 4.16)."""
        a = ratio * np.sqrt(2.0 * self.nu)
        polynomial = {0.5: 1.0, 1.5: 1.0 + a, 2.5: 1.0 + a + a**2 / 3.0}[self.nu]
        return polynomial * jnp.exp(-a)
