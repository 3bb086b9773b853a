"""Sandwich covariances of the coefficients: right however rows of one cluster covary, if clusters
are independent.

With rows whitened by V = L L' (X* = L^-1 X, u = L^-1 (y - X beta), Phi = (X*'X*)^-1, H_i = X*_i Phi
X*_i' for the rows of cluster i), the covariance is Phi [ sum_i X*_i' A_i u_i u_i' A_i X*_i ] Phi
with

    CR0  A_i = I                          Liang & Zeger 1986
    CR2  A_i = (I - H_i)^-1/2             unbiased if V is right; the symmetric root (Bell &
                                          McCaffrey 2002), as mmrm's
    CR3  A_i = (I - H_i)^-1               close to the jackknife

Degrees of freedom of c'beta follow Bell & McCaffrey with V as the working model: u = (I - H) e
makes the variance a quadratic form in e with the matrix G = g'g, g_i = (I - H)_i A_i X*_i Phi c,
and df = tr(G)^2 / tr(G^2).
Joint hypotheses have Hotelling's T^2 (Pustejovsky & Tipton 2018, J. Bus. Econ. Stat. 36).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..models.covariance import blocks, covariance
from ..models.fitted import FittedModel
from ..support.arguments import one_of
from .coefficients import Coefficients, FTest, independent, wald_test
from .contrasts import Hypothesis

KINDS = ("CR0", "CR2", "CR3")
# eigenvalues of I - H_i below this are 0: combinations of rows that the model fits perfectly
ALL_LEVERAGE = 1e-10


@dataclass(frozen=True, eq=False)
class RobustCoefficients(Coefficients):
    """Coefficients with a sandwich covariance."""

    Phi: np.ndarray
    "(p, p) covariance of beta if V is right."
    halves: np.ndarray
    "(clusters, p, p) X*_i' A_i X*_i."
    squares: np.ndarray
    "(clusters, p, p) X*_i' A_i^2 X*_i."

    def df(self, L: np.ndarray) -> np.ndarray:
        """Bell & McCaffrey (2002): tr(G)^2 / tr(G^2)."""
        c = L @ self.Phi
        own = np.einsum("rp,ipq,rq->ri", c, self.squares, c)
        across = np.einsum("ipq,rq->rip", self.halves, c)
        shared = np.einsum("rip,pq,riq->ri", across, self.Phi, across)
        inner = np.einsum("rip,riq,qs->rps", across, across, self.Phi)
        trace = (own - shared).sum(1)
        square = (own**2 - 2.0 * own * shared).sum(1) + np.einsum("rps,rsp->r", inner, inner)
        return trace**2 / square

    def f_test(self, L: np.ndarray, rhs: Any = 0.0) -> FTest:
        """Joint test of L beta = rhs; NaN where the clusters are fewer than its rows, or too few
        for them.
        """
        rows = len(independent(L @ self.Phi @ L.T)[0])
        found = super().f_test(L, rhs)
        return found if found.num_df == rows else FTest(np.nan, rows, np.nan, np.nan, 1.0)

    def scale_and_df(self, L: np.ndarray) -> tuple[float, float]:
        """Hotelling's T^2 of L beta (q, p): (eta - q + 1) / eta and eta - q + 1 (Pustejovsky &
        Tipton 2018, "HTZ").

        eta = q (q + 1) / sum_st Var(d_st) of the entries of the covariance of L beta in units of
        its expectation. NaN where the clusters are too few for so many rows.
        """
        q = len(L)
        values, vectors = np.linalg.eigh(self._moments(L)[0])
        eta = q * (q + 1.0) / self._moments((vectors / np.sqrt(values)).T @ L)[1]
        df = eta - q + 1.0
        return (df / eta, float(df)) if df > 0.0 else (np.nan, np.nan)

    def _moments(self, L: np.ndarray) -> tuple[np.ndarray, float]:
        """Expectation (q, q) of the covariance d of L beta if V is right, and the sum of the
        variances of its entries.

        d_st = sum_i a_si a_ti with Cov(a_si, a_tj) = delta_ij own_sti - across_si' Phi across_tj,
        and
        Var(d_st) = sum_ij Cov(a_si, a_sj) Cov(a_ti, a_tj) + Cov(a_si, a_tj) Cov(a_ti, a_sj).
        """
        c = L @ self.Phi
        own = np.einsum("sp,ipq,tq->sti", c, self.squares, c, optimize=True)
        across = np.einsum("ipq,sq->sip", self.halves, c)
        shared = np.einsum("sip,pq,tiq->sti", across, self.Phi, across, optimize=True)
        inner = np.einsum("sip,tiq,qr->stpr", across, across, self.Phi, optimize=True)
        alike = np.einsum("ssi,tti->", own, own) - 2.0 * np.einsum("ssi,tti->", own, shared)
        crossed = np.sum(own**2) - 2.0 * np.sum(own * shared)
        both = np.einsum("stpr,tsrp->", inner, inner) + np.einsum("stpr,strp->", inner, inner)
        return (own - shared).sum(axis=-1), float(alike + crossed + both)


class Robust:
    """Robust standard errors; made by `Fit.robust`."""

    def __init__(self, coefficients: RobustCoefficients, kind: str, clusters: int):
        self.coefficients, self.kind, self.clusters = coefficients, kind, clusters

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance matrix of the coefficients."""
        names = list(self.coefficients.names)
        return pd.DataFrame(self.coefficients.vcov, index=names, columns=names)

    @property
    def bse(self) -> pd.Series:
        """Standard errors."""
        return pd.Series(np.sqrt(np.diag(self.cov)), index=self.cov.index)

    @property
    def table(self) -> pd.DataFrame:
        """`estimate se df lower upper t p` by coefficient."""
        names = pd.Index(self.coefficients.names)
        return self.coefficients.t_table(np.eye(len(names))).set_axis(names, axis=0)

    def test(self, hypothesis: Hypothesis, joint: bool = True) -> pd.DataFrame:
        """Linear hypotheses as `Fit.test` takes them; several at once by Hotelling's T squared."""
        return wald_test(self.coefficients, hypothesis, joint)

    def __repr__(self) -> str:
        return f"{self.kind} over {self.clusters} clusters\n{self.table}"


def robust(fit: FittedModel, kind: str = "CR2", cluster: str | None = None) -> Robust:
    """Cluster-robust ("sandwich") standard errors of the coefficients, with degrees of freedom for
    small samples.

    kind: "CR0" (Liang & Zeger), "CR2" (bias-reduced, Bell & McCaffrey) or "CR3" (close to the
    jackknife). CR2 is that of mmrm; clubSandwich takes another root of the same matrix, and its SEs
    differ in the third digit.
    cluster: by default the subjects of `residual=`, else the outermost grouping factor; or the name
    of a column or factor whose levels share no random effect and no residual.

    Returns an object with `table`, `cov`, `bse` and `test`. Its `coefficients` stand for `ddf` in
    other verbs:

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> robust = fit.robust("CR2")
    >>> robust.table.round(2)
               estimate    se    df   lower   upper      t    p
    Intercept    251.41  6.82  17.0  237.01  265.80  36.84  0.0
    Days          10.47  1.55  17.0    7.21   13.73   6.77  0.0
    >>> fit.anova(ddf=robust.coefficients).round(2)
            Sum Sq   Mean Sq  NumDF  DenDF  F value  Pr(>F)
    Days  30031.01  30031.01      1   17.0    45.85     0.0
    """
    one_of("kind", kind, KINDS)
    codes = _clusters(fit, cluster)
    e, p = fit.estimate, len(fit.design.columns)
    halves, squares, meat = [], [], np.zeros((p, p))
    Phi = np.asarray(e.vcov)
    for X, u in _whitened(fit, codes):
        A = _corrections(X, Phi, kind)
        AX = A @ X
        score = np.einsum("cip,ci->cp", AX, u)
        meat += score.T @ score
        halves.append(np.einsum("cip,ciq->cpq", X, AX))
        squares.append(np.einsum("cip,ciq->cpq", AX, AX))
    parts = np.concatenate(halves), np.concatenate(squares)
    found = RobustCoefficients(tuple(fit.design.columns), e.beta, Phi @ meat @ Phi, Phi, *parts)
    return Robust(found, kind, int(codes.max()) + 1)


def _clusters(fit: FittedModel, cluster: str | None) -> np.ndarray:
    """Code (n,) of every row's cluster."""
    design = fit.design
    by_name = {f.name: f.codes for f in design.factors}
    if design.residual is not None and design.residual.residual is not None:
        by_name.setdefault(design.residual.residual.subject, design.residual.rows.subject)
    if cluster is None:
        codes, name = min(
            ((codes, name) for name, codes in by_name.items()), key=lambda pair: pair[0].max()
        )
    elif cluster in by_name:
        codes, name = by_name[cluster], cluster
    else:
        raise ValueError(
            f"cluster={cluster!r} is none of the groups of this model: "
            f"{', '.join(map(repr, by_name))}"
        )
    for rows in blocks(design, "a sandwich covariance needs", "use jackknife()"):
        if (codes[rows] != codes[rows[:, :1]]).any():
            raise ValueError(
                f"rows of different {name!r} share random effects or residuals, so that they are "
                "no independent clusters; give cluster= a factor around all others"
            )
    return codes


def _whitened(fit: FittedModel, codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows X* (clusters, size, p) and residuals u (clusters, size) of the clusters of one size,
    in absolute units.
    """
    design = fit.design
    e = design.y - design.shift - design.X @ fit.estimate.beta
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    by_cluster = np.split(order, np.cumsum(sizes)[:-1])
    for size in np.unique(sizes):
        rows = np.stack([by_cluster[i] for i in np.flatnonzero(sizes == size)])
        L = fit.sigma * np.linalg.cholesky(covariance(fit, rows))
        whole = np.linalg.solve(L, np.concatenate([design.X[rows], e[rows][..., None]], 2))
        yield whole[..., :-1], whole[..., -1]


def _corrections(X: np.ndarray, Phi: np.ndarray, kind: str) -> np.ndarray:
    """A_i (clusters, size, size)."""
    values, vectors = np.linalg.eigh(np.eye(X.shape[1]) - X @ Phi @ X.mT)
    power = {"CR0": 0.0, "CR2": -0.5, "CR3": -1.0}[kind]
    used = values > ALL_LEVERAGE
    scaled = np.where(used | (kind == "CR0"), np.where(used, values, 1.0) ** power, 0.0)
    return (vectors * scaled[:, None]) @ vectors.mT
