"""Residual covariances entry by entry in NumPy, and models that have them: independent of the
package.

R of one subject from loops over pairs of visits, in the parameters that books use (SDs,
correlations).
"""

from dataclasses import dataclass

import numpy as np
from helpers import oracle
from helpers.oracle import Array, Problem


def correlation(name: str, a: int, b: int, r: Array) -> float:
    """Between visits a and b; r: the natural numbers of the structure."""
    low, high = sorted((a, b))
    lag = high - low
    if lag == 0:
        return 1.0
    if name == "us":
        return r[high * (high - 1) // 2 + low]
    if name == "cs":
        return r[0]
    if name == "ar1":
        return r[0] ** lag
    if name == "toep":
        return r[lag - 1]
    if name == "ad":
        return float(np.prod(r[low:high]))
    first = (1 + r[0] * r[1]) * (r[0] + r[1]) / (1 + 2 * r[0] * r[1] + r[1] ** 2)  # arma11
    return first * r[0] ** (lag - 1)


@dataclass(frozen=True)
class Repeated:
    """A model whose residuals covary: a `Problem`, and Cov(eps) over sigma^2 before weights, (n,
    n).
    """

    problem: Problem
    R: Array

    def V(self, theta: Array) -> Array:
        sd = 1 / np.sqrt(self.problem.w)
        own = self.problem.V(theta) if self.problem.factors else np.diag(1 / self.problem.w)
        return own - np.diag(1 / self.problem.w) + self.R * np.outer(sd, sd)

    def deviance(self, theta: Array, reml: bool) -> float:
        y, X, V = self.problem.y - self.problem.shift, self.problem.X, self.V(theta)
        n, p = X.shape
        VX = np.linalg.solve(V, X)
        beta = np.linalg.solve(X.T @ VX, VX.T @ y)
        e = y - X @ beta
        nu = n - p if reml else n
        r2 = e @ np.linalg.solve(V, e)
        logdets = np.linalg.slogdet(V)[1] + (np.linalg.slogdet(X.T @ VX)[1] if reml else 0.0)
        return logdets + nu * (1 + np.log(2 * np.pi * r2 / nu))

    def modes(self, theta: Array) -> list[Array]:
        y, X, V = self.problem.y - self.problem.shift, self.problem.X, self.V(theta)
        VX = np.linalg.solve(V, X)
        e = y - X @ np.linalg.solve(X.T @ VX, VX.T @ y)
        r = np.linalg.solve(V, e)
        pairs = zip(self.problem.factors, self.problem.matrices(theta), strict=True)
        return [K @ (f.dense().T @ r).reshape(f.m, -1) @ L @ L.T for f, (L, K) in pairs]


@dataclass(frozen=True)
class Rows:
    """Who was seen when: 14 subjects of two groups, up to 4 visits, a quarter missing, rows in
    no order.
    """

    subject: Array
    visit: Array
    group: Array  # by subject
    problem: Problem


KINDS = ("none", "intercept", "slope", "nested", "crossed")


def rows(kind: str, weighted: bool = False, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    N, m = 14, 4
    subject, visit = np.repeat(np.arange(N), m), np.tile(np.arange(m), N)
    seen = rng.random(N * m) < 0.75
    seen[::m] = True
    order = rng.permutation(np.flatnonzero(seen))
    subject, visit = subject[order], visit[order]
    n = len(subject)
    X = np.column_stack([np.ones(n), rng.normal(size=n), visit])
    one = np.ones((n, 1))
    factors = {
        "none": (),
        "intercept": (oracle.Factor(subject, one, N, ((0,),)),),
        "slope": (oracle.Factor(subject, np.column_stack([one, visit]), N, ((0, 1),)),),
        "nested": (
            oracle.Factor(subject, one, N, ((0,),)),
            oracle.Factor(subject // 3, one, 5, ((0,),)),
        ),
        "crossed": (
            oracle.Factor(subject, one, N, ((0,),)),
            oracle.Factor(rng.integers(0, 5, n), one, 5, ((0,),)),
        ),
    }[kind]
    weights = rng.uniform(0.4, 2.5, n) if weighted else None
    return Rows(subject, visit, np.arange(N) % 2, Problem(rng.normal(size=n), X, factors, weights))


def covariance(r: Rows, name: str, sds: Array, numbers: Array) -> Array:
    """R (n, n). sds (2, 4): of the visits by group, relative; numbers (2, ...) of the
    correlations by group.
    """
    n = len(r.subject)
    R = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if r.subject[i] == r.subject[j]:
                g, a, b = r.group[r.subject[i]], r.visit[i], r.visit[j]
                R[i, j] = sds[g, a] * sds[g, b] * correlation(name, a, b, numbers[g])
    return R
