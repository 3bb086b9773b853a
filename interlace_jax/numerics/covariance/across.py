"""How the levels of a factor covary: a known matrix, or a kernel of distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from ...support.later import is_jax_array, jax, jnp
from ..linalg.matrices import cholesky
from .structures import Prior, Structure

SEMIDEFINITE = 1e-8  # negative eigenvalues of a known K up to this part of the largest are rounding


@dataclass(frozen=True)
class Known:
    """A known covariance K (m, m) of the levels, up to its scale: kinship, phylogeny, an
    adjacency's inverse.

    K: a data frame labelled by the levels on both sides (others are left out), or an array in their
    sorted order. It may be semi-definite, as with clones. The variance of a factor is then that of
    a level whose K_ii is 1.

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> people = sleep["Subject"].unique()
    >>> kinship = pd.DataFrame(0.5 * np.eye(18) + 0.5, people, people)
    >>> cov = {"Subject": interlace_jax.Known(kinship)}
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 | Subject)", sleep, cov=cov)
    >>> fit.varcorr[["grp", "sdcor"]].round(1)
            grp  sdcor
    0   Subject   52.5
    1  Residual   31.0
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
        raise ValueError(
            f"K must be a square matrix of finite numbers, not an array of shape {K.shape}"
        )
    if not np.allclose(K, K.T, rtol=1e-8, atol=1e-10 * np.abs(K).max(initial=0.0)):
        raise ValueError("K is not symmetric: a covariance matrix of the levels is")
    values, vectors = np.linalg.eigh(0.5 * (K + K.T))
    if values[0] < -SEMIDEFINITE * values[-1] or values[-1] <= 0.0:
        raise ValueError(
            f"K is no covariance matrix: its smallest eigenvalue is {values[0]:.3g}, its largest "
            f"{values[-1]:.3g}; none may be negative"
        )
    return vectors * np.sqrt(np.maximum(values, 0.0))


@dataclass(frozen=True)
class Kernel:
    """A covariance of the levels with parameters of its own, such as the length scale of a spatial
    process.

    fn: `fn(coordinates, *parameters)` -> K (m, m), positive definite, usually with ones on the
    diagonal; written with `jax.numpy`; a module-level function, if the fit is to be pickled.
    coordinates: an array with a row per level in their sorted order, or a data frame labelled by
    the levels; for distances label columns too. start: the parameters by name, with the values at
    which the search starts; all are positive, the search is on their logs. ridge: added to K's
    diagonal, so that near-copies do no harm. prior: function of the parameters (r,) to a
    log-density added to the log-likelihood.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> days = np.arange(10.0)
    >>> kernel = interlace_jax.Kernel(
    ...     lambda distance, length: jnp.exp(-distance / length),
    ...     abs(days[:, None] - days),
    ...     {"length": 3.0},
    ... )
    >>> formula = "Reaction ~ 1 + (1 | Subject) + (1 | Days)"
    >>> interlace_jax.compile(formula, sleep, cov={"Days": kernel})
    <Model of Reaction ~ 1 + (1 | Subject) + (1 | Days), 180 rows>
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
            raise ValueError(
                'start must give each parameter a positive value, as in {"length": 1.0}, not '
                f"{start}"
            )
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
        return jax.tree.map(
            lambda a: a if is_jax_array(a) else np.asarray(a, float), self.coordinates
        )

    def root(self, x, data):
        """L (m, m), the Cholesky factor of K."""
        K = self.fn(data, *jnp.exp(x))
        return cholesky(K + self.ridge * jnp.eye(K.shape[0], dtype=K.dtype))


def pair(given: Any) -> tuple[Structure | None, Known | Kernel | None]:
    """The structure within levels and the one across them: from either, or a tuple of both."""
    parts = given if isinstance(given, tuple) else (given,)
    within = [part for part in parts if isinstance(part, Structure)]
    across = [part for part in parts if isinstance(part, Known | Kernel)]
    if not parts or len(within) > 1 or len(across) > 1 or len(within) + len(across) < len(parts):
        raise TypeError(
            "a covariance is a structure such as AR1(), or Known(K) or Kernel(...) for the "
            f"levels, or a tuple of one of each; not {given!r}"
        )
    return (within or [None])[0], (across or [None])[0]
