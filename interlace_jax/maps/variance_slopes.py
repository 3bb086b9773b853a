"""Derivatives of quadratic forms u'Vu by the variance parameters t, for very many u at a time.

Rows times the root of R^-1, V = I + sum_f B (I x S) B' with S = Lambda Lambda', and B = Z (L x I)
for levels of covariance K = L L'. A form needs u through z = B'u alone,

    u'dV u = sum_f z' (I x dS + L^-1 dK L^-T x S) z + u' (L_R^-1 dR L_R^-T) u,   R = L_R L_R',

so that without covarying residuals it costs a few numbers a level, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..inference.prediction import theta_by_t
from ..models.fitted import FittedModel
from ..models.parameters import level_roots, relative_factors
from ..models.residual import matrices_by_pattern, row_blocks

STEP = 1e-5  # of central differences by t, which is of the size of 1


@dataclass(frozen=True, eq=False)
class _OfFactor:
    """Derivatives of the covariance of one factor's effects."""

    size: int
    "m k, effects of all levels."
    S: np.ndarray
    "(k, k) Lambda Lambda'."
    within: np.ndarray
    "(d, k, k) its derivatives."
    across: np.ndarray | None
    "(d, m, m) L^-1 dK L^-T; None where K does not depend on t."

    def forms(self, z: np.ndarray) -> np.ndarray:
        """(d, r) for z (m k, r)."""
        k = len(self.S)
        z = z.reshape(-1, k, z.shape[1])
        found = np.einsum("dij,ijr->dr", self.within, np.einsum("mir,mjr->ijr", z, z))
        if self.across is not None:
            Sz = np.einsum("ij,mjr->mir", self.S, z)
            moved = (np.tensordot(D, Sz, 1) for D in self.across)
            found = found + np.stack([np.einsum("mir,mir->r", part, z) for part in moved])
        return found


@dataclass(frozen=True, eq=False)
class VarianceSlopes:
    """dV / dt of a fit, as forms."""

    factors: list[_OfFactor]
    residual: list[Any]
    "By parameter (n, n) L_R^-1 dR L_R^-T, sparse; empty without covarying residuals."

    @classmethod
    def of(cls, fit: FittedModel) -> VarianceSlopes:
        """Those at the estimates of a fit, by central differences of what V is made of."""
        design, theta = fit.design, fit.theta
        steps = STEP * theta_by_t(fit).T

        def slopes(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            ends = [(function(theta + step), function(theta - step)) for step in steps]
            return np.stack([(ahead - behind) / (2.0 * STEP) for ahead, behind in ends])

        factors = [_of_factor(fit, f, slopes) for f in range(len(design.factors))]
        if design.residual is None:
            return cls(factors, [])
        inverse = np.linalg.inv(np.linalg.cholesky(matrices_by_pattern(design, theta)))
        dR = inverse @ slopes(lambda x: matrices_by_pattern(design, x)) @ inverse.mT
        return cls(factors, [row_blocks(design.residual.rows, D) for D in dR])

    def forms(self, z: np.ndarray, u: np.ndarray | None) -> np.ndarray:
        """(d, r) for z (q, r) = B'u; u (n, r) itself counts where residuals covary."""
        ends = np.cumsum([f.size for f in self.factors])
        parts = np.split(z, ends)[:-1]
        each = (f.forms(own) for f, own in zip(self.factors, parts, strict=True))
        found = sum(each, np.zeros(z.shape[1]))
        if self.residual:
            found = found + np.stack([np.einsum("nr,nr->r", u, D @ u) for D in self.residual])
        return found


def _of_factor(fit: FittedModel, f: int, slopes: Callable) -> _OfFactor:
    factors = fit.design.factors

    def within(theta: np.ndarray) -> np.ndarray:
        Lam = relative_factors(factors, theta)[f]
        return Lam @ Lam.T

    def across(theta: np.ndarray) -> np.ndarray:
        L = level_roots(factors, theta)[f]
        return L @ L.T

    own, L = factors[f], fit.level_roots[f]
    size = len(own.levels) * len(own.columns)
    if L is None or not own.across.names:
        return _OfFactor(size, within(fit.theta), slopes(within), None)
    inverse = np.linalg.inv(L)
    return _OfFactor(size, within(fit.theta), slopes(within), inverse @ slopes(across) @ inverse.T)
