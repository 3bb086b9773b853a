"""Each number of the residual covariance as one coordinate of psi, so that a profile can hold it.

An SD is one through log sd = log sigma + (that of the group) + (that of the visit); most numbers of
correlations and all coefficients of log SD are coordinates themselves. A correlation of an
unstructured matrix is one once its two visits are the first: the numbers are then those of the
visits in that order. One of a Toeplitz matrix takes the place of its partial autocorrelation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..design.residual_groups import ResidualGroups
from ..models.residual import residual_names
from ..numerics.covariance.correlations import FreeCorrelations, Toeplitz
from ..numerics.covariance.residual import ResidualCovariance
from ..numerics.covariance.structures import Correlated
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.later import jax, jnp


class Coordinate(NamedTuple):
    """c = psi[at] + sum of psi[others] + (log sigma, of an SD); at -1: nothing but log sigma.

    of_lag: c is Fisher's z of a correlation, which psi[at] depends on.
    """

    at: int
    others: tuple[int, ...] = ()
    is_log_sd: bool = False
    order: tuple[int, ...] = ()
    "Visits in the order in which their correlations are numbered; () as they are."
    of_lag: bool = False


def residual_coordinates(given: ResidualGroups) -> dict[str, Coordinate | None]:
    """By the name of a number its coordinate; None where it has none."""
    covariance = given.covariance
    found: list[Coordinate | None] = []
    for g in range(covariance.groups):
        first = g * covariance.own - 1  # the group's first SD, which the reference has not
        own = (first,) if g else ()
        if covariance.visits > 1 or covariance.groups > 1:
            found.append(Coordinate(first, is_log_sd=True) if g else Coordinate(-1, is_log_sd=True))
            found += [Coordinate(first + v, own, True) for v in range(1, covariance.visits)]
        start = first + covariance.visits
        found += [_of_shape(covariance, start, j) for j in range(covariance.shape)]
    slopes = covariance.groups * covariance.own - 1
    found += [Coordinate(slopes + h) for h in range(covariance.slopes)]
    return dict(zip(residual_names(given), found, strict=True))


def _of_shape(covariance: ResidualCovariance, start: int, j: int) -> Coordinate | None:
    within, k = covariance.within, covariance.positions
    if not isinstance(within, Correlated):
        return None
    if isinstance(within, Toeplitz):
        return Coordinate(start + j, of_lag=True)
    if not isinstance(within, FreeCorrelations):
        return Coordinate(start + j)
    b, a = (int(places[j]) for places in np.tril_indices(k, -1))
    return Coordinate(start, order=(a, b, *(v for v in range(k) if v not in (a, b))))


def in_order(
    covariance: ResidualCovariance, psi: np.ndarray, order: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Psi (r,) with the correlations numbered in another order of the visits, and its derivatives
    (r, r) by psi.
    """
    return run(_in_order, psi, covariance, np.array(order))


def _reordered(psi, covariance, order):
    _, x, slopes = covariance.split(psi)
    k = covariance.positions
    correlations = [covariance.within.correlation(values, k)[order][:, order] for values in x]
    again = jnp.stack([covariance.within.near(C, k) for C in correlations])
    cut = covariance.groups * covariance.own - 1
    by_group = jnp.append(0.0, psi[:cut]).reshape(covariance.groups, covariance.own)
    by_group = by_group.at[:, covariance.visits :].set(again)
    return jnp.append(by_group.ravel()[1:], slopes)


@jit
def _in_order(psi, covariance, order):
    return _reordered(psi, covariance, order), jax.jacfwd(_reordered)(psi, covariance, order)
