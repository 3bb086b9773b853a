"""Predictions from the rows that a new row covaries with, where residuals are not independent and
of one variance.

A target u = z'b + (if its residual is predicted too) eps has, given theta and the observed rows o
that covary with it,

    E(x'beta + u | y_o) = x'beta^ + C V_oo^-1 (y_o - X_o beta^),          C = Cov(u, y_o)
    Var = Var(u) - C V_oo^-1 C' + a'Phi a,   a = x - X_o'V_oo^-1 C',   Phi = Cov(beta^)

over sigma^2 (Henderson 1975; SAS's outp=, mmrm's conditional predictions). The matrices are formed
block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..design.residual_groups import SubjectRows
from ..models.covariance import LARGEST, components
from ..models.fitted import FittedModel
from ..models.linear_predictor import Rows
from ..models.parameters import level_roots, relative_factors
from ..models.residual import matrices_of, of_rows, psi_of
from ..support.arguments import listed

STEP = 1e-4  # of the differences that derivatives by theta are made of


class Conditional(NamedTuple):
    """Predictions of new rows, and Var of their errors; derivatives by t on a last axis."""

    fitted: np.ndarray
    "(n,)"
    variance: np.ndarray
    "(n,)"
    fitted_by_t: np.ndarray
    "(n, d)"
    variance_by_t: np.ndarray
    "(n, d)"


class _Parameters(NamedTuple):
    theta: np.ndarray
    beta: np.ndarray
    vcov: np.ndarray


def conditional(
    fit: FittedModel,
    rows: Rows,
    subjects: SubjectRows,
    weights: np.ndarray | None,
    included: tuple[str, ...],
    with_residual: bool,
    new_response: bool,
    by_t: tuple[np.ndarray, np.ndarray] | None,
) -> Conditional:
    """Predictions of rows without missing values.

    subjects: of these rows. weights: of rows of the fit; new ones have 1. included: factors whose
    effects are predicted. with_residual: predict the residual too. new_response: the variance is
    that of the error for a new response, not for its expectation. by_t: derivatives of beta (p, d)
    by t and of theta (d, d) by t, where those of the result are wanted.
    """
    e = fit.estimate
    problem = _Problem(fit, rows, subjects, weights, included, with_residual, new_response)
    at = _Parameters(e.theta, e.beta, np.asarray(e.vcov) / fit.scale)
    fitted, variance = problem.evaluated(at)
    if by_t is None:
        none = np.zeros((len(fitted), 0))
        return Conditional(fitted, fit.scale * variance, none, none)
    beta_by_t, theta_by_t = by_t
    along = zip(theta_by_t.T, beta_by_t.T, fit.curvature.dvcov[:-1], strict=True)
    slopes = [
        problem.slope(at, _Parameters(theta, beta, V / fit.scale)) for theta, beta, V in along
    ]
    moved, changed = (np.stack(parts, -1) for parts in zip(*slopes, strict=True))
    return Conditional(fitted, fit.scale * variance, moved, fit.scale * changed)


class _Problem:
    """New rows and the rows of the fit as one set: those of the fit first."""

    def __init__(
        self, fit, rows: Rows, subjects: SubjectRows, weights, included, with_residual, new_response
    ):
        self.fit, self.rows, self.included = fit, rows, included
        self.with_residual, self.new_response = with_residual, new_response
        design, new = fit.design, len(rows.X)
        self.n = len(design.X)
        parts = zip(design.residual.by_row, subjects, strict=True)
        joined = SubjectRows(*(None if a is None else np.concatenate([a, b]) for a, b in parts))
        self.layout = joined.layout()
        self.sd = 1.0 / np.sqrt(
            np.concatenate([design.w, np.ones(new) if weights is None else weights])
        )
        pairs = list(zip(design.factors, rows.Z, rows.codes, strict=True))
        self.Z = [np.concatenate([f.Z, Z]) for f, Z, _ in pairs]
        self.codes = [
            np.concatenate([f.codes, _apart(codes, len(f.levels))]) for f, _, codes in pairs
        ]
        self.targets = (
            list(self._targets(joined.subject))
            if included or with_residual
            else [self._unconditional()]
        )

    def _unconditional(self):
        return np.arange(0), np.arange(len(self.rows.X))

    def _targets(self, subject) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the fit, and the new rows that covary with these and no others."""
        label, n = components(self.fit.design), self.n
        found: list[set[int]] = [set() for _ in range(len(self.rows.X))]
        for codes in (*self.codes, subject):
            block = np.full(codes.max() + 1, -1)
            block[codes[:n]] = label
            for i, of_row in enumerate(block[codes[n:]]):
                found[i] |= {int(of_row)} - {-1}
        groups: dict[frozenset, list[int]] = {}
        for i, labels in enumerate(found):
            groups.setdefault(frozenset(labels), []).append(i)
        for labels, new in groups.items():
            old = np.flatnonzero(np.isin(label, list(labels)))
            if len(old) > LARGEST:
                raise ValueError(
                    f"a prediction from {len(old)} rows that share random effects needs their "
                    f"covariance matrix, made for at most {LARGEST} rows; use include_re=False"
                )
            yield old, np.array(new)

    def slope(self, at: _Parameters, along: _Parameters) -> list[np.ndarray]:
        """Derivatives of fitted values and variances along a direction."""
        moves = [
            _Parameters(*(a + step * b for a, b in zip(at, along, strict=True)))
            for step in (STEP, -STEP)
        ]
        up, down = map(self.evaluated, moves)
        return [(a - b) / (2.0 * STEP) for a, b in zip(up, down, strict=True)]

    def evaluated(self, at: _Parameters) -> tuple[np.ndarray, np.ndarray]:
        """Fitted values, and variances over sigma^2 (n,), at some parameters."""
        design, rows = self.fit.design, self.rows
        Lambdas = relative_factors(design.factors, at.theta)
        roots = level_roots(design.factors, at.theta)
        R = matrices_of(self.layout, design.residual, psi_of(design, at.theta))
        fitted, variance = np.empty((2, len(rows.X)))
        for old, new in self.targets:
            V, target = self._covariances(old, new, R, Lambdas, roots)
            o = len(old)
            C, own = target[o:, :o], np.diag(target)[o:]
            weighed = np.linalg.solve(V[:o, :o], C.T)
            a = rows.X[new] - weighed.T @ design.X[old]
            e = design.y[old] - design.shift[old] - design.X[old] @ at.beta
            shift = 0.0 if rows.offset is None else rows.offset[new]
            fitted[new] = rows.X[new] @ at.beta + shift + weighed.T @ e
            explained = np.einsum("no,on->n", C, weighed)
            of_beta = np.einsum("np,pq,nq->n", a, at.vcov, a)
            around = np.diag(V)[o:] - own if self.new_response else 0.0
            variance[new] = own - explained + of_beta + around
        return fitted, variance

    def _covariances(
        self, old: np.ndarray, new: np.ndarray, R: Any, Lambdas: Any, roots: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Over sigma^2, of the responses of old and new rows together, and of what is predicted."""
        factors = self.fit.design.factors
        joint = np.concatenate([old, self.n + new])
        sizes = np.outer(self.sd[joint], self.sd[joint])
        residual = of_rows(self.layout, R, joint[None])[0] * sizes
        effects = [
            _effects(Z[joint] @ Lam, codes[joint], L)
            for Z, codes, Lam, L in zip(self.Z, self.codes, Lambdas, roots, strict=True)
        ]
        V = residual + sum(effects)
        target = residual if self.with_residual else np.zeros_like(V)
        for factor, effect in zip(factors, effects, strict=True):
            if factor.name in self.included:
                target = target + effect
        return V, target


def _apart(codes: np.ndarray, levels: int) -> np.ndarray:
    """Codes of new rows, unseen levels each one of its own."""
    found = codes.astype(np.int64)
    unseen = found < 0
    found[unseen] = levels + np.arange(unseen.sum())
    return found


def _effects(U: np.ndarray, codes: np.ndarray, L: np.ndarray | None) -> np.ndarray:
    """Covariance (n, n) of the effects of a factor in rows U = Z Lambda; L (m, m): a root of
    that across levels.
    """
    same = codes[:, None] == codes[None]
    if L is not None:
        known = np.minimum(codes, len(L) - 1)
        same = np.where(
            (codes < len(L))[:, None] & (codes < len(L))[None],
            (L @ L.T)[np.ix_(known, known)],
            same,
        )
    return (U @ U.T) * same


def refuse_observed(fit: FittedModel, subjects: SubjectRows, index) -> None:
    """Refuse to predict the residual of a row that the fit has."""
    given = fit.design.residual
    known = {key: i for i, key in enumerate(_moments_in_time(given.by_row))}
    for i, key in enumerate(_moments_in_time(subjects)):
        if key in known:
            who = listed([given.subjects[subjects.subject[i]]])
            raise ValueError(
                f"row {index[i]!r} of newdata is a row of the fit, of {given.residual.subject} "
                f"{who}: its value is known, {fit.design.y[known[key]]:g}; include_residual=True "
                "is for rows that were not observed"
            )


def _moments_in_time(rows: SubjectRows) -> list[tuple]:
    """Whose each row is, and when or where."""
    when = [rows.order] if rows.coordinates is None else rows.coordinates.T
    return list(zip(rows.subject.tolist(), *(a.tolist() for a in when), strict=True))
