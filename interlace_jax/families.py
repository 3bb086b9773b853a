"""Covariance structures: how the columns of one level covary, and how the levels do.

    b_g ~ N(0, sigma^2 K(x) (x) Lambda(x) Lambda(x)')

*Within* a level, a `Structure` makes Lambda (k, k) from a few numbers; *across* levels, `Known` or a `Kernel` makes
K (m, m). All numbers are free (the search knows no bounds), relative to sigma and in the units of the data. What is
static here is hashable and holds no arrays: a model's arrays are leaves of its moments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .linalg import cholesky

SEMIDEFINITE = 1e-8  # negative eigenvalues of a known K up to this part of the largest are rounding

Prior = Callable[[Any], Any]


@dataclass(frozen=True)
class Structure:
    """Covariance of the k random-effect columns of one level: Lambda = s L(x), a scale s and free numbers x.

    A structure of your own is a frozen dataclass with `names` and `matrix` (or `factor`, where that is known):

    >>> @dataclass(frozen=True)
    ... class Banded(Structure):
    ...     def names(self, k):
    ...         return ("rho",)
    ...     def natural(self, x, k):
    ...         return 0.5 * jnp.tanh(x)
    ...     def matrix(self, x, k):
    ...         return jnp.eye(k) + self.natural(x, k) * (jnp.eye(k, k=1) + jnp.eye(k, k=-1))

    The scale is there without saying. prior: function of Lambda (k, k), on the user's scale and relative to sigma, to
    the log-density that is added to the log-likelihood; see `BoundaryAvoiding`.
    """

    prior: Prior | None = field(default=None, kw_only=True)

    pattern: ClassVar[bool] = False  # every entry of Lambda that is not zero is a parameter, term by term
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
        raise NotImplementedError(f"{type(self).__name__} must define matrix(x, k), or factor(x, k)")

    def factor(self, x, k: int):
        """L (k, k), lower triangular, with L L' = `matrix`."""
        return cholesky(self.matrix(x, k))

    def basis(self, k: int):
        """Matrices (r, k, k) whose combinations are the covariances, or None where these are no linear space."""
        return None


@dataclass(frozen=True)
class Unstructured(Structure):
    """Any covariance matrix: what a term `(1 + x | g)` has by default."""

    pattern: ClassVar[bool] = True


@dataclass(frozen=True)
class Diagonal(Structure):
    """A variance for each column and no correlations: what `(1 + x || g)` has."""

    pattern: ClassVar[bool] = True
    independent: ClassVar[bool] = True


@dataclass(frozen=True)
class HomogeneousDiagonal(Structure):
    """One variance for all columns and no correlations (nlme's pdIdent)."""

    independent: ClassVar[bool] = True

    def factor(self, x, k: int):
        """The identity."""
        return jnp.eye(k, dtype=x.dtype)

    def basis(self, k: int):
        """The identity."""
        return np.eye(k)[None]


@dataclass(frozen=True)
class _Correlated(Structure):
    """Correlations by one number rho; one variance for all columns, or with `heterogeneous` one each."""

    heterogeneous: bool = False

    def names(self, k: int) -> tuple[str, ...]:
        """SDs of the later columns over that of the first, and rho."""
        ratios = tuple(f"ratio{j}" for j in range(2, k + 1)) if self.heterogeneous else ()
        return (*ratios, "rho") if k > 1 else ()

    def natural(self, x, k: int):
        """Ratios and rho."""
        return jnp.append(jnp.exp(x[:-1]), self._rho(x[-1], k)) if k > 1 else x

    def factor(self, x, k: int):
        """The rows of the correlations' factor times the ratios."""
        if k == 1:
            return jnp.ones((1, 1), x.dtype)
        L = self._correlation_factor(x[-1], k)
        return jnp.append(1.0, jnp.exp(x[:-1]))[:, None] * L if self.heterogeneous else L


@dataclass(frozen=True)
class CompoundSymmetry(_Correlated):
    """One correlation rho between all columns, -1/(k-1) < rho < 1 (nlme's pdCompSymm, glmmTMB's homcs; heterogeneous:
    glmmTMB's cs).
    """

    def _rho(self, x, k):
        """X is the log of the ratio of the two eigenvalues, (1 + (k - 1) rho) / (1 - rho)."""
        return 1.0 - k / (k - 1.0) * jax.nn.sigmoid(jnp.log(k - 1.0) - x)

    def _correlation_factor(self, x, k):
        # With a = 1 - rho, what is left after j columns is a I + rho_j J, rho_j = rho a / (a + j rho).
        a, rho = k / (k - 1.0) * jax.nn.sigmoid(jnp.log(k - 1.0) - x), self._rho(x, k)
        left = rho * a / (a + jnp.arange(k) * rho)
        pivots = jnp.sqrt(a + left)
        return jnp.diag(pivots) + jnp.tril(jnp.broadcast_to((left / pivots)[None], (k, k)), -1)

    def basis(self, k: int):
        """Variance and covariance; none with variances that differ."""
        return None if self.heterogeneous else np.stack([np.eye(k), np.ones((k, k)) - np.eye(k)])[: min(k, 2)]


@dataclass(frozen=True)
class AR1(_Correlated):
    """Correlation rho^|i - j| between columns i and j, -1 < rho < 1: equally spaced times, as `(0 + C(time) | g)`."""

    def _rho(self, x, k):
        return jnp.tanh(x)

    def _correlation_factor(self, x, k):
        powers = jnp.append(1.0, jnp.cumprod(jnp.full(k - 1, jnp.tanh(x))))
        lag = np.subtract.outer(np.arange(k), np.arange(k))
        size = jnp.append(1.0, jnp.full(k - 1, 1.0 / jnp.cosh(x)))  # sqrt(1 - rho^2)
        return jnp.where(lag >= 0, powers[np.maximum(lag, 0)], 0.0) * size[None]


# Across levels -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A known covariance K (m, m) of the levels, up to its scale: kinship, phylogeny, an adjacency's inverse.

    K: a data frame labelled by the levels on both sides (others are left out), or an array in their sorted order. It
    may be semi-definite, as with clones. The variance of a factor is then that of a level whose K_ii is 1.
    """

    K: Any = None

    names: ClassVar[tuple[str, ...]] = ()
    start: ClassVar[tuple[float, ...]] = ()
    prior: ClassVar[None] = None
    linear: ClassVar[bool] = True

    @property
    def static(self):
        """What is hashable."""
        return Known()

    @property
    def data(self):
        """A root of K, as an array: L (m, m) with L L' = K."""
        if isinstance(self.K, jax.Array):  # perhaps traced: positive definite, or NaN
            return cholesky(self.K)
        return _root(np.asarray(self.K, float))

    def root(self, x, data):
        """L (m, m)."""
        return data


def _root(K: np.ndarray) -> np.ndarray:
    if not (K.ndim == 2 and K.shape[0] == K.shape[1] and np.isfinite(K).all()):
        raise ValueError(f"K must be a square matrix of finite numbers, not an array of shape {K.shape}")
    if not np.allclose(K, K.T, rtol=1e-8, atol=1e-10 * np.abs(K).max(initial=0.0)):
        raise ValueError("K is not symmetric: a covariance matrix of the levels is")
    values, vectors = np.linalg.eigh(0.5 * (K + K.T))
    if values[0] < -SEMIDEFINITE * values[-1] or values[-1] <= 0.0:
        raise ValueError(
            f"K is no covariance matrix: its smallest eigenvalue is {values[0]:.3g}, its largest {values[-1]:.3g}; "
            "none may be negative"
        )
    return vectors * np.sqrt(np.maximum(values, 0.0))


@dataclass(frozen=True)
class Kernel:
    """A covariance of the levels with parameters of its own, such as the length scale of a spatial process.

    fn: `fn(coordinates, *parameters)` -> K (m, m), positive definite, usually with ones on the diagonal; written with
    `jax.numpy`; a module-level function, if the fit is to be pickled. coordinates: an array with a row per level in
    their sorted order, or a data frame labelled by the levels; for distances label columns too. start: the parameters
    by name, with the values at which the search starts; all are positive, the search is on their logs. ridge: added to
    K's diagonal, so that near-copies do no harm. prior: function of the parameters (r,) to a log-density added to the
    log-likelihood.

    >>> Kernel(lambda distance, length: jnp.exp(-distance / length), distances, {"length": 1.0})
    """

    fn: Callable
    coordinates: Any
    start: Any
    ridge: float = 1e-8
    prior: Prior | None = field(default=None, kw_only=True)

    linear: ClassVar[bool] = False

    def __post_init__(self):
        start = tuple(self.start.items()) if isinstance(self.start, Mapping) else tuple(self.start)
        if not start or not all(value > 0.0 for _, value in start):
            raise ValueError(f'start must give each parameter a positive value, as in {{"length": 1.0}}, not {start}')
        object.__setattr__(self, "start", start)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(name for name, _ in self.start)

    @property
    def static(self):
        """What is hashable."""
        return replace(self, coordinates=None)

    @property
    def data(self):
        """The coordinates, as arrays."""
        return jax.tree.map(lambda a: a if isinstance(a, jax.Array) else np.asarray(a, float), self.coordinates)

    def root(self, x, data):
        """L (m, m), the Cholesky factor of K."""
        K = self.fn(data, *jnp.exp(x))
        return cholesky(K + self.ridge * jnp.eye(K.shape[0], dtype=K.dtype))


# Priors --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BoundaryAvoiding:
    """A prior that keeps estimates off the boundary and is otherwise nearly flat: (shape - 1) log|Lambda|.

    For one column it is the gamma density of the standard deviation relative to sigma, with this shape and a rate that
    goes to 0: shape 2 is Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013, Psychometrika 78, 685-709), 2.5 is blme's
    default. For k columns it is a Wishart density of the relative covariance with k + shape degrees of freedom and an
    infinite scale (Chung et al. 2015, J. Educ. Behav. Stat. 40, 136-157). It does not depend on units.
    """

    shape: float = 2.0

    def __call__(self, Lam):
        """Log-density up to a constant."""
        return (self.shape - 1.0) * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(Lam))))


def pair(given: Any) -> tuple[Structure | None, Known | Kernel | None]:
    """The structure within levels and the one across them: from either, or a tuple of both."""
    parts = given if isinstance(given, tuple) else (given,)
    within = [part for part in parts if isinstance(part, Structure)]
    across = [part for part in parts if isinstance(part, Known | Kernel)]
    if not parts or len(within) > 1 or len(across) > 1 or len(within) + len(across) < len(parts):
        raise TypeError(
            "a covariance is a structure such as AR1(), or Known(K) or Kernel(...) for the levels, or a tuple of one "
            f"of each; not {given!r}"
        )
    return (within or [None])[0], (across or [None])[0]
