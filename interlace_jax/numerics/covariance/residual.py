"""R(psi): how the residuals of one subject covary, relative to sigma^2.

    eps_i ~ N(0, sigma^2 W_i^-1/2 R_i W_i^-1/2),   R_i = D_i C_i D_i

C_i is the correlation matrix of a subject's rows, D_i their relative SDs: by visit, by group of
subjects, and log-linear in covariates. R_i is 1 on the diagonal at the reference (first group,
first visit, covariates 0), so that sigma is the SD there. Subjects whose rows have the same visits,
group and covariates share a *pattern*, and R_i.

psi holds free numbers, group after group: [log SD of the group's first visit over the reference's,
but for the first group], log SDs of the later visits over that of the first, numbers of the
correlations; then coefficients of log SD.
"""

from __future__ import annotations

import functools
from dataclasses import field
from typing import Any, ClassVar

import numpy as np

from ...support.containers import container
from ...support.later import jnp
from ..linalg.levels import inverse_factors
from .structures import Correlated, Structure


@container
class Patterns:
    """What tells the subjects' covariance matrices apart: P patterns of at most m rows each."""

    seen: Any  # (m, P) bool: which places of a pattern have a row
    group: Any  # (P,) group of the subjects
    position: Any  # (m, P) place of every row among the positions that the correlations know
    visit: Any  # (m, P) place among the visits that have an SD of their own
    # (m, m, P) between rows, in typical gaps; None where correlations do not fall with distance
    distance: Any
    slopes: Any  # (h, m, P) covariates of log SD
    count: Any  # (P,) subjects of the pattern, which all have the same rows

    sizes: ClassVar[dict[str, int]] = {}

    @functools.cached_property
    def generalised(self) -> Patterns:
        """The same for any number of patterns, dimensions in place of arrays."""
        return Patterns(
            seen="_ patterns",
            group="patterns",
            position="_ patterns",
            visit="_ patterns",
            distance=None if self.distance is None else "_ _ patterns",
            slopes="_ _ patterns",
            count="patterns",
        )


STATIC = dict(static=True)


@container
class ResidualCovariance:
    """The form of R(psi), without numbers: static wherever it stands among arrays."""

    # of a subject's rows; None: no correlations
    within: Structure | None = field(default=None, metadata=STATIC)
    positions: int = field(default=1, metadata=STATIC)  # that the correlations know
    visits: int = field(default=1, metadata=STATIC)  # with SDs of their own
    groups: int = field(default=1, metadata=STATIC)  # with parameters of their own
    slopes: int = field(default=0, metadata=STATIC)  # coefficients of log SD

    @property
    def shape(self) -> int:
        """Numbers of the correlations of one group."""
        return 0 if self.within is None else len(_shape_names(self.within, self.positions))

    @property
    def own(self) -> int:
        """Numbers of one group, of which the reference lacks the first."""
        return self.visits + self.shape

    @property
    def size(self) -> int:
        """Length of psi."""
        return self.groups * self.own - 1 + self.slopes

    def split(self, psi):
        """Log SDs (groups, visits), numbers of the correlations (groups, shape), coefficients of
        log SD (slopes,).
        """
        cut = self.groups * self.own - 1
        by_group = jnp.append(0.0, psi[:cut]).reshape(self.groups, self.own)
        log_sd = by_group[:, :1] + jnp.append(
            jnp.zeros((self.groups, 1), psi.dtype), by_group[:, 1 : self.visits], 1
        )
        return log_sd, by_group[:, self.visits :], psi[cut:]

    def held(self, psi, value):
        """What each entry of psi (r,) has to be, the others as they are, for a profile to hold at a
        value the number that it stands for.
        """
        whole = jnp.full_like(psi, value)
        if not isinstance(self.within, Correlated):
            return whole
        cut, (_, x, _) = self.groups * self.own - 1, self.split(psi)
        by_group = jnp.append(value, whole[:cut]).reshape(self.groups, self.own)
        shapes = jnp.stack([self.within.held(values, value) for values in x])
        by_group = by_group.at[:, self.visits :].set(shapes)
        return jnp.append(by_group.ravel()[1:], whole[cut:])

    def log_sds(self, psi, patterns: Patterns):
        """Log SD of every row of every pattern, relative to the reference: (m, P)."""
        log_sd, _, slopes = self.split(psi)
        by_visit = log_sd[patterns.group[None], patterns.visit]
        return by_visit + jnp.einsum("h,hmp->mp", slopes, patterns.slopes)

    def correlations(self, psi, patterns: Patterns):
        """Correlations (m, m, P) of the rows of every pattern."""
        _, x, _ = self.split(psi)
        alone = np.eye(patterns.position.shape[0], dtype=bool)[:, :, None]
        if self.within is None:
            return jnp.where(
                alone, 1.0, jnp.zeros((*alone.shape[:2], patterns.group.shape[0]), psi.dtype)
            )
        if patterns.distance is not None:
            return jnp.where(
                alone, 1.0, self.within.between(x[patterns.group].T, patterns.distance)
            )
        by_group = jnp.stack(
            [_relative(self.within, x[g], self.positions) for g in range(self.groups)]
        )
        at = patterns.position
        return by_group[patterns.group[None, None], at[:, None], at[None]]

    def matrices(self, psi, patterns: Patterns):
        """R (m, m, P) of every pattern, the identity where a place has no row."""
        sd = jnp.exp(self.log_sds(psi, patterns))
        R = self.correlations(psi, patterns) * sd[:, None] * sd[None]
        return masked(R, patterns.seen)


def masked(R, seen):
    """R (m, m, P) with the rows and columns of the identity where a place has no row."""
    return jnp.where(seen[:, None] & seen[None], R, jnp.eye(R.shape[0], dtype=R.dtype)[:, :, None])


def whiteners(R, count):
    """Log-determinant of R = L L' summed over subjects, and L^-1 (m, m, P) of every pattern;
    count (P,) subjects.
    """
    inverse = inverse_factors(R)
    pivots = jnp.diagonal(inverse, axis1=0, axis2=1)  # (P, m)
    return -2.0 * jnp.sum(count[:, None] * jnp.log(pivots)), inverse


def _shape_names(within: Structure, k: int):
    return within.shape_names(k) if isinstance(within, Correlated) else within.names(k)


def _relative(within: Structure, x, k: int):
    """Correlations of k positions; of a structure of one's own its matrix over that of the first
    position.
    """
    if isinstance(within, Correlated):
        return within.correlation(x, k)
    M = within.matrix(x, k)
    return M / M[0, 0]


def precisions(structure: ResidualCovariance, psi, patterns: Patterns):
    """R^-1 (m, m, P) of every pattern."""
    _, half = whiteners(structure.matrices(psi, patterns), patterns.count)
    return jnp.einsum("iap,ibp->abp", half, half)


def reported(structure: ResidualCovariance, psi, sigma, unit):
    """The numbers as they are reported, and as a search or an interval has them, without bounds:
    two arrays (r,).

    Group after group SDs of the visits, where there are several visits or groups, and numbers of
    the correlations (a range in units of distance); then coefficients of log SD.
    """
    log_sd, x, slopes = structure.split(psi)
    log_sd = log_sd + jnp.log(sigma)
    natural, free = [], []
    for g in range(structure.groups):
        if structure.visits > 1 or structure.groups > 1:
            natural.append(jnp.exp(log_sd[g]))
            free.append(log_sd[g])
        if structure.shape:
            values, unbounded = _shape_reported(structure.within, x[g], structure.positions, unit)
            natural.append(values)
            free.append(unbounded)
    return jnp.concatenate([*natural, slopes]), jnp.concatenate([*free, slopes])


def _shape_reported(within, x, k, unit):
    if not isinstance(within, Correlated):
        values = within.natural(x, k)
        return values, values
    values = within.shape_natural(x, k)
    if within.over == "distances":
        scale = jnp.where(np.arange(len(x)) == 0, unit, 1.0)
        return values * scale, x + jnp.log(scale)
    return values, jnp.arctanh(values)
