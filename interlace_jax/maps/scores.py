"""Subjects' scores of a contrast in every model, under the null model: what sign flips and clusters
are made of.

With V0 and r0 = y - X0 beta0 - Z b0 the covariance and the conditional residuals of the null model,

    V0^-1 (y - X0 beta0) = W r0 / sigma^2              (Henderson's equations; any Z)
    Gamma = (X0'V0^-1X0)^-1 X0'V0^-1 x,   x~ = x - X0 Gamma,   u_s = x~_s'W_s r0_s,

the sum over the rows of subject s. The projected x~ matters: with x itself the sum of the u_s is
the same, but their flips have the wrong variance (effective scores: Hemerik, Goeman & Finos 2020,
JRSS B 82). Nothing is whitened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy

from ..design.design import Design
from ..many.chunks import Chunk, filled
from ..many.fits import ManyFits
from ..many.lanes import over_lanes
from ..models.linear_predictor import Rows, expected
from ..numerics.likelihood.elimination import reduce
from .modes import over_modes

_information = over_lanes(lambda m, reml, t: (reduce(t, m).XX, m.R))


@dataclass(frozen=True, eq=False)
class Contrast:
    """A contrast c'beta = 0 as a column x beside those of the null model, X0 = X N with N a
    basis of what c leaves.
    """

    weights: np.ndarray
    "(p,) c."
    rest: np.ndarray
    "(p, p - 1) N."
    design: Design
    "The null model's."
    x: np.ndarray
    "(n,)"

    @classmethod
    def of(cls, design: Design, weights: np.ndarray) -> Contrast:
        """Of the coefficients (p,) of a design."""
        rest = scipy.linalg.null_space(weights[None])
        names = tuple(f"rest{j}" for j in range(rest.shape[1]))
        null = replace(design, X=design.X @ rest, columns=names, dropped_columns=(), specs=None)
        return cls(weights, rest, null, design.X @ weights / (weights @ weights))


def null_fits(many: ManyFits, tested: Contrast) -> ManyFits:
    """The models fitted without the contrast."""
    return many.refitted(tested.design)


def scores(many: ManyFits, null: ManyFits, tested: Contrast, codes: np.ndarray) -> np.ndarray:
    """U (subjects, models) of the null fits; codes (n,): the subject of every row.

    NaN for what was not fitted.
    """
    u = np.full((int(codes.max()) + 1, len(many)), np.nan)
    gamma, _ = projections(many, null, tested)
    beta = null.fe_params.to_numpy()

    def of_chunk(chunk: Chunk, all_modes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        residuals = _weighted_residuals(null, chunk, beta[chunk.places], all_modes)
        return chunk.places, _by_subject(residuals, tested, gamma[chunk.places], codes)

    for places, values in over_modes(null, of_chunk):
        u[:, places] = values
    return u


def projections(many: ManyFits, null: ManyFits, tested: Contrast) -> tuple[np.ndarray, np.ndarray]:
    """Gamma (models, p - 1), and x~'V^-1 x~ sigma^2 (models,), at the variances of the null
    fits.
    """
    found = np.full((len(many), tested.rest.shape[1]), np.nan)
    information = np.full(len(many), np.nan)
    T = np.column_stack([tested.rest, tested.weights / (tested.weights @ tested.weights)])
    optima = null.optima

    def of_chunk(chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        t = optima[filled(chunk.places, chunk.lanes.count)]
        XX, R = (np.asarray(a)[: len(chunk.places)] for a in _information(chunk.lanes, True, t))
        A = T.T @ (R.mT @ XX @ R) @ T
        gamma = np.linalg.solve(A[:, :-1, :-1], A[:, :-1, -1:])[..., 0]
        return chunk.places, gamma, A[:, -1, -1] - np.sum(gamma * A[:, -1, :-1], axis=1)

    for places, gamma, left in many.over_chunks(of_chunk):
        found[places], information[places] = gamma, left
    return found, information


def _weighted_residuals(
    null: ManyFits, chunk: Chunk, beta: np.ndarray, all_modes: list[np.ndarray]
) -> np.ndarray:
    """W r0 (n, models), 0 where a response is missing."""
    design = chunk.designs[0]
    Y, W = null.work.adjusted(int(chunk.places.min()), int(chunk.places.max()) + 1)
    at = chunk.places - chunk.places.min()
    rows = Rows(design.X, [f.Z for f in design.factors], [f.codes for f in design.factors])
    r = Y[:, at] - expected(rows, beta.T, [np.moveaxis(b, 0, -1) for b in all_modes])
    return np.nan_to_num(r * (design.w[:, None] if W is None else W[:, at]))


def _by_subject(
    residuals: np.ndarray, tested: Contrast, gamma: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """Sums (subjects, models) over the rows of each subject of x~ W r0."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(int(codes.max()) + 1))
    u = np.add.reduceat((tested.x[:, None] * residuals)[order], starts)
    for column, g in zip(tested.design.X.T, gamma.T, strict=True):
        u -= g * np.add.reduceat((column[:, None] * residuals)[order], starts)
    return u
