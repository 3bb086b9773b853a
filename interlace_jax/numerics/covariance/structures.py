"""How the columns of one level covary: structures of Lambda with few parameters, and priors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ...support.later import jax, jnp
from ..linalg.matrices import cholesky

Prior = Callable[[Any], Any]

STEEPEST = 0.9  # size of the largest correlation that a search starts with


@dataclass(frozen=True)
class Structure:
    """Covariance of the k random-effect columns of one level: Lambda = s L(x), a scale s and free
    numbers x.

    A structure of your own is a frozen dataclass with `names` and `matrix` (or `factor`, where that
    is known), as in the example. The scale is there without saying. prior: function of Lambda (k,
    k), on the user's scale and relative to sigma, to the log-density that is added to the
    log-likelihood; see `BoundaryAvoiding`.

    >>> from dataclasses import dataclass
    >>> import jax.numpy as jnp
    >>> @dataclass(frozen=True)
    ... class Banded(interlace_jax.Structure):
    ...     def names(self, k):
    ...         return ("rho",)
    ...     def natural(self, x, k):
    ...         return 0.5 * jnp.tanh(x)
    ...     def matrix(self, x, k):
    ...         return jnp.eye(k) + self.natural(x, k)[0] * (jnp.eye(k, k=1) + jnp.eye(k, k=-1))
    >>> print(Banded().matrix(jnp.ones(1), 3).round(2))
    [[1.   0.38 0.  ]
     [0.38 1.   0.38]
     [0.   0.38 1.  ]]
    """

    prior: Prior | None = field(default=None, kw_only=True)

    # every entry of Lambda that is not zero is a parameter, term by term
    pattern: ClassVar[bool] = False
    independent: ClassVar[bool] = False  # the columns do not correlate

    def names(self, k: int) -> tuple[str, ...]:
        """Names of the numbers x."""
        return ()

    def start(self, k: int) -> tuple[float, ...]:
        """Where the search for x starts; also what x is when s is 0."""
        return (0.0,) * len(self.names(k))

    def natural(self, x, k: int):
        """The numbers as they are reported, each an increasing function of its own entry of x."""
        return x

    def matrix(self, x, k: int):
        """Positive definite matrix (k, k), the covariance up to s^2."""
        raise NotImplementedError(
            f"{type(self).__name__} must define matrix(x, k), or factor(x, k)"
        )

    def factor(self, x, k: int):
        """L (k, k), lower triangular, with L L' = `matrix`."""
        return cholesky(self.matrix(x, k))

    def basis(self, k: int):
        """Matrices (r, k, k) whose combinations are the covariances, or None where these are no
        linear space.
        """
        return None


@dataclass(frozen=True)
class Unstructured(Structure):
    """Any covariance matrix: what a term `(1 + x | g)` has by default.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.Unstructured()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.residual_correlation.iloc[:3, :3].round(2)
          0     1     2
    0  1.00  0.79  0.51
    1  0.79  1.00  0.77
    2  0.51  0.77  1.00
    """

    pattern: ClassVar[bool] = True


@dataclass(frozen=True)
class Diagonal(Structure):
    """A variance for each column and no correlations: what `(1 + x || g)` has.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> cov = {"Subject": interlace_jax.Diagonal()}
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep, cov=cov)
    >>> fit.varcorr[["grp", "var1", "var2", "sdcor"]].round(2)
            grp         var1  var2  sdcor
    0   Subject  (Intercept)  None  25.05
    1   Subject         Days  None   5.99
    2  Residual          NaN  None  25.57
    """

    pattern: ClassVar[bool] = True
    independent: ClassVar[bool] = True


@dataclass(frozen=True)
class HomogeneousDiagonal(Structure):
    """One variance for all columns and no correlations (nlme's pdIdent).

    >>> cake = interlace_jax.load_dataset("cake")
    >>> formula = "angle ~ temp + (0 + recipe | replicate)"
    >>> cov = {"replicate": interlace_jax.HomogeneousDiagonal()}
    >>> model = interlace_jax.compile(formula, cake, cov=cov)
    >>> len(model.theta0)  # one SD, relative to sigma, for the three recipes
    1
    """

    independent: ClassVar[bool] = True

    def factor(self, x, k: int):
        """The identity."""
        return jnp.eye(k, dtype=x.dtype)

    def basis(self, k: int):
        """The identity."""
        return np.eye(k)[None]


@dataclass(frozen=True)
class Correlated(Structure):
    """Correlations of k columns or visits; one variance for all of them, or with `heterogeneous`
    one each.

    over: what the correlations of visits know of them: which visit each is ("visits"), which follow
    each other ("order"), how many steps lie between two of them ("lags"), or how far apart two
    points are ("distances").
    """

    heterogeneous: bool = False

    over: ClassVar[str] = "visits"

    def shape_names(self, k: int) -> tuple[str, ...]:
        """Names of the numbers that make the correlations."""
        return ("rho",)

    def shape_natural(self, x, k: int):
        """Those numbers as they are reported."""
        return jnp.tanh(x)

    def correlation(self, x, k: int):
        """Correlation matrix (k, k) of the numbers x."""
        raise NotImplementedError

    def near(self, C, k: int):
        """Numbers x whose correlations are close to those of C (k, k)."""
        raise NotImplementedError

    def held(self, x, value):
        """What each entry of x has to be, the others as they are, for a profile to hold its number
        at a value: here the value itself. NaN where no entry does.
        """
        return jnp.full_like(x, value)

    def names(self, k: int) -> tuple[str, ...]:
        """SDs of the later columns over that of the first, then the numbers of the correlations."""
        ratios = tuple(f"ratio{j}" for j in range(2, k + 1)) if self.heterogeneous else ()
        return (*ratios, *self.shape_names(k)) if k > 1 else ()

    def natural(self, x, k: int):
        """Ratios, and the numbers of the correlations."""
        ratios = k - 1 if self.heterogeneous else 0
        return jnp.append(jnp.exp(x[:ratios]), self.shape_natural(x[ratios:], k)) if k > 1 else x

    def factor(self, x, k: int):
        """The rows of the correlations' factor times the ratios."""
        if k == 1:
            return jnp.ones((1, 1), x.dtype)
        ratios = k - 1 if self.heterogeneous else 0
        L = self.correlation_factor(x[ratios:], k)
        return jnp.append(1.0, jnp.exp(x[:ratios]))[:, None] * L if self.heterogeneous else L

    def correlation_factor(self, x, k: int):
        """L (k, k), lower triangular, with L L' = `correlation`."""
        return cholesky(self.correlation(x, k))


def lags(k: int):
    """Steps between k visits, (k, k)."""
    return np.abs(np.subtract.outer(np.arange(k), np.arange(k)))


def fisher(r):
    """Fisher's z of correlations, which are kept away from -1 and 1."""
    return jnp.arctanh(jnp.clip(r, -STEEPEST, STEEPEST))


@dataclass(frozen=True)
class CompoundSymmetry(Correlated):
    """One correlation rho between all columns, -1/(k-1) < rho < 1 (nlme's pdCompSymm, glmmTMB's
    homcs; heterogeneous: glmmTMB's cs).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.CompoundSymmetry()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.structure.round(2)
                               estimate    se  lower  upper
    rho | Days within Subject      0.59  0.09   0.38   0.74
    """

    def shape_natural(self, x, k: int):
        """rho; x is the log of the ratio of the two eigenvalues, (1 + (k - 1) rho) / (1 - rho)."""
        return 1.0 - k / (k - 1.0) * jax.nn.sigmoid(jnp.log(k - 1.0) - x)

    def correlation(self, x, k: int):
        """Rho off the diagonal."""
        return jnp.where(np.eye(k, dtype=bool), 1.0, self.shape_natural(x, k)[:, None])

    def near(self, C, k: int):
        """The mean correlation."""
        rho = jnp.clip(
            (jnp.sum(C) - jnp.trace(C)) / (k * (k - 1.0)), -STEEPEST / (k - 1.0), STEEPEST
        )
        return jnp.log((1.0 + (k - 1.0) * rho) / (1.0 - rho))[None]

    def correlation_factor(self, x, k: int):
        """By columns."""
        # With a = 1 - rho, what is left after j columns is a I + rho_j J, rho_j = rho a / (a + j
        # rho).
        a, rho = (
            k / (k - 1.0) * jax.nn.sigmoid(jnp.log(k - 1.0) - x[0]),
            self.shape_natural(x[0], k),
        )
        left = rho * a / (a + jnp.arange(k) * rho)
        pivots = jnp.sqrt(a + left)
        return jnp.diag(pivots) + jnp.tril(jnp.broadcast_to((left / pivots)[None], (k, k)), -1)

    def basis(self, k: int):
        """Variance and covariance; none with variances that differ."""
        return (
            None
            if self.heterogeneous
            else np.stack([np.eye(k), np.ones((k, k)) - np.eye(k)])[: min(k, 2)]
        )


@dataclass(frozen=True)
class AR1(Correlated):
    """Correlation rho^|i - j| between columns i and j, -1 < rho < 1: equally spaced times, as
    `(0 + C(time) | g)`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> structure = interlace_jax.AR1()
    >>> residual = interlace_jax.Residual(structure, time="Days", subject="Subject")
    >>> fit = interlace_jax.fit("Reaction ~ Days", sleep, residual=residual)
    >>> fit.residual_correlation.iloc[:3, :3].round(2)
          0    1     2
    0  1.00  0.8  0.64
    1  0.80  1.0  0.80
    2  0.64  0.8  1.00
    """

    over: ClassVar[str] = "lags"

    def correlation(self, x, k: int):
        """Powers of rho."""
        return jnp.append(1.0, jnp.cumprod(jnp.full(k - 1, jnp.tanh(x[0]))))[lags(k)]

    def near(self, C, k: int):
        """The mean correlation of neighbours."""
        return fisher(jnp.mean(jnp.diagonal(C, 1)))[None]

    def correlation_factor(self, x, k: int):
        """By columns."""
        powers = jnp.append(1.0, jnp.cumprod(jnp.full(k - 1, jnp.tanh(x[0]))))
        lag = np.subtract.outer(np.arange(k), np.arange(k))
        size = jnp.append(1.0, jnp.full(k - 1, 1.0 / jnp.cosh(x[0])))  # sqrt(1 - rho^2)
        return jnp.where(lag >= 0, powers[np.maximum(lag, 0)], 0.0) * size[None]


@dataclass(frozen=True)
class BoundaryAvoiding:
    """A prior that keeps estimates off the boundary and is otherwise nearly flat: (shape - 1)
    log|Lambda|.

    For one column it is the gamma density of the standard deviation relative to sigma, with this
    shape and a rate that goes to 0: shape 2 is Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013,
    Psychometrika 78, 685-709), 2.5 is blme's default. For k columns it is a Wishart density of the
    relative covariance with k + shape degrees of freedom and an infinite scale (Chung et al. 2015,
    J. Educ. Behav. Stat. 40, 136-157). It does not depend on units.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> cov = {"Subject": interlace_jax.Unstructured(prior=interlace_jax.BoundaryAvoiding())}
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep, cov=cov)
    >>> fit.varcorr[["grp", "var1", "var2", "sdcor"]].round(2)
            grp         var1  var2  sdcor
    0   Subject  (Intercept)   NaN  26.25
    1   Subject         Days   NaN   6.21
    2   Subject  (Intercept)  Days   0.02
    3  Residual          NaN   NaN  25.37
    """

    shape: float = 2.0

    def __call__(self, Lam):
        """Log-density up to a constant."""
        return (self.shape - 1.0) * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(Lam))))
