"""Second-order facts of many fits: what t and F tests of any contrast of coefficients need, lane by
lane.

With V the covariance of beta, x = (t, log sigma) the variance parameters and W = U U' their
covariance,

    M_k = sum_i U_ik dV/dx_i,   v(c) = c'Vc,
    g'Wg = sum_k (c'M_k c)^2,   nu(c) = 2 v^2 / sum_k (c'M_k c)^2,

so that a lane is V and the M_k, d + 2 symmetric matrices, and a contrast costs two quadratic forms
(Satterthwaite's rule: Giesbrecht & Burns 1985).
"""

from __future__ import annotations

import functools
from typing import NamedTuple, Self

import numpy as np

from ..design.design import Design
from ..numerics.uncertainty.curvature import derivatives, in_user_units
from ..runtime.calls import run_inside
from ..support.later import jax
from .chunks import Chunk, filled, theta_names_of
from .lanes import over_lanes

CACHED = 256  # lanes whose second derivatives stay in the processor's cache
KEPT = 2**30  # bytes that the curvature of all lanes may take to be kept


class LaneCurvatures(NamedTuple):
    """Curvatures of some lanes, r of them, on the p coefficients that all models have together."""

    places: np.ndarray
    "(r,) of the lanes among all."
    vcov: np.ndarray
    "(r, p, p) V, 0 for coefficients that a lane does not have."
    along: np.ndarray
    "(r, d + 1, p, p) the M_k."
    present: np.ndarray
    "(r, p) which coefficients a lane has."

    def variances(self, L: np.ndarray) -> np.ndarray:
        """Variances (r, q) of contrasts L (q, p), NaN where a lane lacks a coefficient of
        theirs.
        """
        lacking = np.any((L != 0.0)[None] & ~self.present[:, None], axis=-1)
        return np.where(lacking, np.nan, _quadratic_forms(self.vcov, L))

    def degrees_of_freedom(self, L: np.ndarray) -> np.ndarray:
        """Satterthwaite's degrees of freedom (r, q) of contrasts L (q, p)."""
        variances = self.variances(L)
        with np.errstate(divide="ignore", invalid="ignore"):
            # relative, or squares underflow
            slopes = _quadratic_forms(self.along, L) / variances[:, None]
            return 2.0 / np.sum(slopes**2, axis=1)

    def select(self, lanes: np.ndarray) -> Self:
        """Some of the lanes."""
        return type(self)(*(a[lanes] for a in self))


def _quadratic_forms(S: np.ndarray, L: np.ndarray) -> np.ndarray:
    """Forms c'Sc of symmetric matrices S (..., p, p) and every row c of L (q, p): (..., q)."""
    return np.sum((S @ L.T) * L.T, axis=-2)


def curvatures(
    chunk: Chunk, reml: bool, coefficients: list[str], t: np.ndarray, log_sigma: np.ndarray
) -> LaneCurvatures:
    """Curvatures of the models of a chunk at the estimates t (models, d) and log sigma (models,) of
    all models.

    coefficients: the names of all that some model has.
    """
    every = filled(chunk.places, chunk.lanes.count)
    at = t[every, : len(theta_names_of(chunk.designs[0]))], log_sigma[every]
    found = run_inside(_derivatives, chunk.lanes, reml, *at)
    found = run_inside(_in_user_units, chunk.lanes, reml, *at, found)
    found = jax.tree.map(lambda a: np.asarray(a)[: len(chunk.places)], found)
    values, vectors = np.linalg.eigh(found.W)
    U = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
    along = np.einsum("rik,ripq->rkpq", U, found.dvcov)
    parts = [_on_all(chunk, *part, found.vcov, along, coefficients) for part in chunk.alike()]
    return joined(parts)


def joined(parts: list[LaneCurvatures]) -> LaneCurvatures:
    """Curvatures of several chunks in one, in the order of the models."""
    most = max(part.along.shape[1] for part in parts)
    parts = [part._replace(along=_padded(part.along, most)) for part in parts]
    whole = LaneCurvatures(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return whole.select(np.argsort(whole.places))


def _padded(along: np.ndarray, size: int) -> np.ndarray:
    """M_k of models with fewer variance parameters: further ones that are 0."""
    return np.pad(along, ((0, 0), (0, size - along.shape[1]), (0, 0), (0, 0)))


def _on_all(
    chunk: Chunk,
    lanes: np.ndarray,
    design: Design,
    vcov: np.ndarray,
    along: np.ndarray,
    coefficients: list[str],
) -> LaneCurvatures:
    """Curvatures of lanes with the coefficients of a design, among all coefficients."""
    at = np.array([coefficients.index(name) for name in design.columns], int)
    p = len(coefficients)
    rows, columns = np.ix_(at, at)
    V, M = np.zeros((len(lanes), p, p)), np.zeros((len(lanes), along.shape[1], p, p))
    V[:, rows, columns], M[:, :, rows, columns] = vcov[lanes], along[lanes]
    present = np.broadcast_to(np.isin(np.arange(p), at), (len(lanes), p))
    return LaneCurvatures(chunk.places[lanes], V, M, present)


@functools.partial(over_lanes, size=CACHED)
def _derivatives(m, reml, t, log_sigma):
    return derivatives(t, log_sigma, m, reml)


@over_lanes
def _in_user_units(m, reml, t, log_sigma, found):
    return in_user_units(found, t, log_sigma, m)
