"""Leverages, and pulls of groups, where residuals are not independent and of one variance: from V,
block by block.

With V and R the covariances over sigma^2 of the responses and of the residuals, C = (X'V^-1 X)^-1
and P = V^-1 - V^-1 X C X'V^-1, the residuals y - X beta^ - Z b^ are R P y and have the covariance
sigma^2 R P R.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..design.grouping import Factor
from ..inference.prediction import theta_by_t
from ..models.covariance import blocks, covariance, covariance_at
from ..models.fitted import FittedModel
from ..models.residual import residual_covariances

STEP = 1e-4  # of the differences that derivatives of V by theta are made of
INSTEAD = "kind='pearson' has no such limit"


class CorrelatedLeverages(NamedTuple):
    """Leverages as those of independent rows, and what their residuals vary by."""

    overall: np.ndarray
    "(n,) d fitted / d y of each row itself."
    fixed: np.ndarray
    "(n,) diagonal of X (X'V^-1 X)^-1 X'V^-1."
    VXC: np.ndarray
    "(n, p) V^-1 X (X'V^-1 X)^-1."
    variance: np.ndarray
    "(n,) of the residual, over sigma^2."


class Pull(NamedTuple):
    """What the count of each group does to the estimates at first order."""

    gradient: np.ndarray
    "(groups, d + 1) derivatives of the joint deviance's gradient by (t, log sigma)."
    beta: np.ndarray
    "(groups, p) derivatives of beta with (t, log sigma) held."


def correlated_leverages(fit: FittedModel) -> CorrelatedLeverages:
    """Leverages of the rows used."""
    design, C = fit.design, np.asarray(fit.estimate.vcov) / fit.scale
    n, p = design.X.shape
    overall, fixed, variance = np.empty((3, n))
    VXC = np.empty((n, p))
    for rows in blocks(design, "leverages need", INSTEAD):
        V, R, X = (
            covariance(fit, rows),
            residual_covariances(design, fit.theta, rows),
            design.X[rows],
        )
        VX, VR = np.linalg.solve(V, X), np.linalg.solve(V, R)
        VXC[rows] = VX @ C
        RVX = R @ VX
        fixed[rows] = np.einsum("brp,brp->br", X, VXC[rows])
        overall[rows] = 1.0 - np.einsum("brr->br", VR) + np.einsum("brp,brp->br", RVX @ C, VX)
        variance[rows] = np.einsum("brs,bsr->br", R, VR) - np.einsum("brp,brp->br", RVX @ C, RVX)
    return CorrelatedLeverages(overall, fixed, VXC, variance)


def pulls(fit: FittedModel, by: Factor) -> Pull:
    """The pull of each group; groups share neither random effects nor residuals.

    The joint deviance with group g counted c_g times is sum_g c_g (log|V_g| + r_g'V_g^-1 r_g /
    sigma^2 + 2 n_g log sigma) + [REML] log|sum_g c_g X_g'V_g^-1 X_g|, and d beta / d c_g = C
    X_g'V_g^-1 r_g.
    """
    design, e = fit.design, fit.estimate
    G, p, d = len(by.levels), design.X.shape[1], len(e.t)
    C = np.asarray(e.vcov) / fit.scale
    e_rows = design.y - design.shift - design.X @ e.beta
    score, information, own = np.zeros((G, p)), np.zeros((G, p, p)), np.zeros((G, d + 1))
    by_score, by_information = np.zeros((G, d, p)), np.zeros((G, d, p, p))
    directions = theta_by_t(fit).T
    for rows in blocks(design, "the jackknife needs", "use the bootstrap"):
        group, X, r = by.codes[rows[:, 0]], design.X[rows], e_rows[rows][..., None]
        V = covariance(fit, rows)
        VX, Vr = np.linalg.solve(V, X), np.linalg.solve(V, r)
        np.add.at(score, group, (X.mT @ Vr)[..., 0])
        np.add.at(information, group, X.mT @ VX)
        lack = (r.mT @ Vr)[:, 0, 0] / fit.scale
        np.add.at(own, (group, d), 2.0 * rows.shape[1] - 2.0 * lack)
        for j, direction in enumerate(directions):
            slope = _slope(fit, rows, direction)
            by_trace = np.einsum("brr->b", np.linalg.solve(V, slope))
            np.add.at(own, (group, j), by_trace - (Vr.mT @ slope @ Vr)[:, 0, 0] / fit.scale)
            np.add.at(by_score, (group, j), (VX.mT @ slope @ Vr)[..., 0])
            np.add.at(by_information, (group, j), VX.mT @ slope @ VX)
    beta = score @ C
    own[:, :d] += 2.0 * beta @ by_score.sum(0).T / fit.scale
    if fit.method == "REML":
        whole = by_information.sum(0)
        own[:, :d] -= np.einsum("pq,gjqp->gj", C, by_information)
        own[:, :d] += np.einsum("pq,gqr,rs,jsp->gj", C, information, C, whole, optimize=True)
    return Pull(own, beta)


def _slope(fit: FittedModel, rows: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Derivative of V (blocks, size, size) along a direction of theta."""
    up, down = (
        covariance_at(fit.design, fit.theta + side * direction, rows) for side in (STEP, -STEP)
    )
    return (up - down) / (2.0 * STEP)
