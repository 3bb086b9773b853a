"""The slow, obvious linear mixed model: dense float64 NumPy, independent of the package.

    y ~ N(X beta + offset, sigma^2 V),
    V = W^-1 + sum_g Z_g (K_g (x) Lambda_g Lambda_g') Z_g',  K_g = I by default

V is formed as an n x n matrix, so everything follows from textbook formulas, at O(n^3) a call.
Symbols:
n rows, p columns of X, m levels and k columns of a factor, theta the free entries of all Lambda_g:
factors as listed, within a factor term by term, within a term the lower triangle column by column
(lme4's theta). Variances are relative to sigma^2 in V and theta, absolute in everything that is
returned.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize

Array = np.ndarray


@dataclass(frozen=True)
class Factor:
    """A grouping factor: `codes (n,)` in 0..m-1, `Z (n, k)`, `m` levels (some may be without rows).

    `terms` lists the columns of each random-effects term; terms are uncorrelated, columns of a term
    are not.
    A factor of another covariance has `theta0`, its entries of theta, and `build`, which makes
    (Lambda, K) of them; where Lambda Lambda' is linear in some numbers and K known, `basis` lists
    the matrices they multiply.
    """

    codes: Array
    Z: Array
    m: int
    terms: tuple[tuple[int, ...], ...]
    theta0: tuple[float, ...] | None = None
    build: Callable[[Array], tuple[Array, Array]] | None = None
    basis: tuple[Array, ...] | None = None

    @property
    def start(self) -> tuple[float, ...]:
        """Entries of theta for Lambda = I."""
        return self.theta0 or tuple(float(row == column) for row, column in self.pattern)

    def matrices(self, entries: Array) -> tuple[Array, Array]:
        """Lambda (k, k) and K (m, m)."""
        if self.build:
            return self.build(entries)
        L = np.zeros((self.Z.shape[1],) * 2)
        for at, value in zip(self.pattern, entries, strict=True):
            L[at] = value
        return L, np.eye(self.m)

    @property
    def pattern(self) -> list[tuple[int, int]]:
        """The (row, column) in Lambda of each entry of theta, in theta's order."""
        return [
            (row, column) for term in self.terms for column in term for row in term if row >= column
        ]

    @property
    def directions(self) -> Iterator[Array]:
        """Derivatives of Lambda Lambda' by its variances and covariances."""
        yield from self.basis or ()
        for row, column in [] if self.basis else self.pattern:
            S = np.zeros((self.Z.shape[1],) * 2)
            S[row, column] = S[column, row] = 1
            yield S

    def dense(self) -> Array:
        """Z with one block of k columns a level: (n, m k)."""
        n, k = self.Z.shape
        wide = np.zeros((n, self.m, k))
        wide[np.arange(n), self.codes] = self.Z
        return wide.reshape(n, self.m * k)

    def covariance(self, S: Array, K: Array) -> Array:
        """Cov(Z b), (n, n), if b has covariance K (x) S, S (k, k)."""
        return self.Z @ S @ self.Z.T * K[self.codes[:, None], self.codes]


@dataclass(frozen=True)
class Problem:
    """One model: `y (n,)`, `X (n, p)` of full rank, factors, prior weights (n,) and offset (n,) or
    None.

    Rows of weight 0 have no place in V: pass `problem.used()` to the functions below.
    """

    y: Array
    X: Array
    factors: tuple[Factor, ...]
    weights: Array | None = None
    offset: Array | None = None

    @property
    def w(self) -> Array:
        return np.ones(len(self.y)) if self.weights is None else self.weights

    @property
    def shift(self) -> Array:
        return np.zeros(len(self.y)) if self.offset is None else self.offset

    @property
    def d(self) -> int:
        """Length of theta."""
        return len(self.theta0)

    @property
    def theta0(self) -> Array:
        """lme4's start: Lambda = I."""
        return np.array([value for factor in self.factors for value in factor.start])

    def matrices(self, theta: Array) -> list[tuple[Array, Array]]:
        """Lambda_g (k, k) and K_g (m, m) of each factor."""
        parts = np.split(theta, np.cumsum([len(factor.start) for factor in self.factors])[:-1])
        return [factor.matrices(part) for factor, part in zip(self.factors, parts, strict=True)]

    def Lambdas(self, theta: Array) -> list[Array]:
        """Lambda_g (k, k) of each factor."""
        return [L for L, _ in self.matrices(theta)]

    def free(self, theta: Array, tol: float = 1e-7) -> Array:
        """(d,) True where the entry's column of Lambda is not zero; with structures they all
        must not be.
        """
        if any(factor.build for factor in self.factors):
            return np.ones(self.d, bool)
        columns = [np.abs(L).max(axis=0) > tol for L in self.Lambdas(theta)]
        return np.array(
            [c[at] for c, f in zip(columns, self.factors, strict=True) for _, at in f.pattern]
        )

    def V(self, theta: Array) -> Array:
        """(n, n)"""
        pairs = zip(self.factors, self.matrices(theta), strict=True)
        return np.diag(1 / self.w) + sum(factor.covariance(L @ L.T, K) for factor, (L, K) in pairs)

    def rows(self, keep: Array) -> "Problem":
        """The same model on some of the rows; levels that lose all of theirs stay."""
        factors = tuple(replace(f, codes=f.codes[keep], Z=f.Z[keep]) for f in self.factors)
        weights = None if self.weights is None else self.weights[keep]
        offset = None if self.offset is None else self.offset[keep]
        return Problem(self.y[keep], self.X[keep], factors, weights, offset)

    def used(self) -> "Problem":
        """Without the rows of weight 0: they are not in the model at all."""
        return self.rows(self.w > 0)


class GLS(NamedTuple):
    """Generalised least squares at one theta."""

    beta: Array  # (p,)
    r2: float  # (y - X beta - offset)' V^-1 (y - X beta - offset)
    XVX: Array  # X' V^-1 X
    logdet: float  # log|V|
    r: Array  # V^-1 (y - X beta - offset)


def gls(problem: Problem, theta: Array) -> GLS:
    y, X = problem.y - problem.shift, problem.X
    factor = linalg.cho_factor(problem.V(theta), lower=True)
    VX = linalg.cho_solve(factor, X)
    XVX = X.T @ VX
    beta = linalg.solve(XVX, VX.T @ y, assume_a="pos")
    r = linalg.cho_solve(factor, y - X @ beta)
    return GLS(beta, (y - X @ beta) @ r, XVX, 2 * np.log(np.diag(factor[0])).sum(), r)


def deviance(problem: Problem, theta: Array, reml: bool) -> float:
    """-2 log L or the REML criterion, all constants in, beta and sigma at their optimum."""
    fit, nu = gls(problem, theta), _nu(problem, reml)
    return _logdets(fit, reml) + nu * (1 + np.log(2 * np.pi * fit.r2 / nu))


def joint_deviance(problem: Problem, theta: Array, sigma: float, reml: bool) -> float:
    """The same at any sigma."""
    fit, nu = gls(problem, theta), _nu(problem, reml)
    return _logdets(fit, reml) + nu * np.log(2 * np.pi * sigma**2) + fit.r2 / sigma**2


def sigma(problem: Problem, theta: Array, reml: bool) -> float:
    return float(np.sqrt(gls(problem, theta).r2 / _nu(problem, reml)))


def beta_cov(problem: Problem, theta: Array, sigma: float) -> Array:
    """Cov(beta hat), (p, p)."""
    return sigma**2 * np.linalg.inv(gls(problem, theta).XVX)


def modes(problem: Problem, theta: Array) -> list[Array]:
    """BLUPs b (m, k) of each factor: Cov(b, y) V^-1 (y - X beta - offset)."""
    r = gls(problem, theta).r
    pairs = zip(problem.factors, problem.matrices(theta), strict=True)
    return [K @ (factor.dense().T @ r).reshape(factor.m, -1) @ L @ L.T for factor, (L, K) in pairs]


def mode_covs(problem: Problem, theta: Array, sigma: float) -> list[Array]:
    """Cov(b | y) of each level with beta known, (m, k, k) of each factor: lme4's condVar."""
    inverse = np.linalg.inv(problem.V(theta))
    return [
        sigma**2 * _level_covs(factor, np.kron(K, L @ L.T), inverse)
        for factor, (L, K) in zip(problem.factors, problem.matrices(theta), strict=True)
    ]


def fitted(problem: Problem, theta: Array) -> Array:
    """(n,) X beta + offset + Z b."""
    pairs = zip(problem.factors, modes(problem, theta), strict=True)
    random = sum((factor.Z * b[factor.codes]).sum(axis=1) for factor, b in pairs)
    return problem.X @ gls(problem, theta).beta + problem.shift + random


def gradient(f: Callable[[Array], float | Array], x: Array, step: float = 0.02) -> Array:
    """df/dx by central differences extrapolated to O(step^6); the axis of x comes first."""
    scale = _scale(x)
    quotients = [lambda h, e=e: (f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.diag(scale)]
    return np.array([_extrapolate(q, step) / s for q, s in zip(quotients, scale, strict=True)])


def hessian(f: Callable[[Array], float], x: Array, step: float = 0.02) -> Array:
    """d2f/dx2 by the same extrapolation: a pair of axes by the difference of two straight second
    derivatives.
    """
    scale, centre = _scale(x), f(x)

    def bend(along: Array) -> float:
        return _extrapolate(
            lambda h: (f(x + h * along) - 2 * centre + f(x - h * along)) / h**2, step
        )

    H = np.diag([bend(a) for a in np.diag(scale)])
    for (i, a), (j, b) in combinations(enumerate(np.diag(scale)), 2):
        H[i, j] = H[j, i] = (bend(a + b) - bend(a - b)) / 4
    return H / np.outer(scale, scale)


def satterthwaite(problem: Problem, theta: Array, contrasts: Array, reml: bool) -> Array:
    """Degrees of freedom (c,) of each row of contrasts (c, p): 2 v^2 / (g' Cov(theta, sigma) g).

    v(theta, sigma) is the contrast's variance, g its gradient, Cov twice the inverse Hessian of the
    joint deviance. Zero columns of Lambda are left out: v and the deviance are even in them, so
    they contribute 0.
    """
    free = problem.free(theta)
    at = np.append(theta[free], sigma(problem, theta, reml))

    def split(x: Array) -> tuple[Array, float]:
        full = np.array(theta, float)
        full[free] = x[:-1]
        return full, x[-1]

    def variances(x: Array) -> Array:
        return np.einsum("cp,pq,cq->c", contrasts, beta_cov(problem, *split(x)), contrasts)

    g = gradient(variances, at)
    cov = 2 * np.linalg.inv(hessian(lambda x: joint_deviance(problem, *split(x), reml), at))
    return 2 * variances(at) ** 2 / np.einsum("ic,ij,jc->c", g, cov, g)


class KenwardRoger(NamedTuple):
    """Adjusted covariance of beta (p, p), and by contrast the denominator df and the scale of F."""

    cov: Array
    df: Array
    scale: Array


def kenward_roger(problem: Problem, theta: Array, contrasts: list[Array]) -> KenwardRoger:
    """Kenward and Roger (1997) for REML; each contrast is a matrix (q, p).

    V is linear in the parameters (sigma^2 and every covariance of every term), so the second
    derivatives vanish; the information is the expected one, defined on the boundary too.
    """
    s = sigma(problem, theta, reml=True)
    inverse = np.linalg.inv(s**2 * problem.V(theta))
    XV = problem.X.T @ inverse
    Phi = np.linalg.inv(XV @ problem.X)
    dV = list(_covariance_directions(problem))
    VdV = [inverse @ direction for direction in dV]
    P = np.array([-XV @ direction @ XV.T for direction in dV])
    Q = np.array([[XV @ a @ inverse @ b @ XV.T for b in dV] for a in dV])
    trace = np.array([[(a * b.T).sum() for b in VdV] for a in VdV])
    PP = np.einsum("iab,bc,jcd->ijad", P, Phi, P)
    info = trace / 2 - np.einsum("ab,ijba->ij", Phi, Q) + np.einsum("ab,ijba->ij", Phi, PP) / 2
    W = np.linalg.inv(info)
    adjusted = Phi + 2 * Phi @ np.einsum("ij,ijab->ab", W, Q - PP) @ Phi
    df, scale = np.array([_kr_moments(np.atleast_2d(L), Phi, P, W) for L in contrasts]).T
    return KenwardRoger(adjusted, df, scale)


def fit(problem: Problem, reml: bool, starts: int = 4, seed: int = 0) -> Array:
    """theta of the best optimum found from several starts, diagonals of Lambda not negative; for
    tiny problems.
    """
    rng = np.random.default_rng(seed)
    guesses = [
        problem.theta0,
        *(problem.theta0 * rng.exponential(1, problem.d) for _ in range(starts - 1)),
    ]

    def f(theta: Array) -> float:
        return deviance(problem, theta, reml)

    options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000, "maxfev": 4000}
    found = [
        optimize.minimize(f, guess, method="Nelder-Mead", options=options) for guess in guesses
    ]
    return _positive_diagonals(problem, min(found, key=lambda result: result.fun).x)


def fit_freely(problem: Problem, reml: bool, start: Array) -> Array:
    """theta of the best optimum found from around `start`, signs as they come: for covariances
    with `build`.
    """
    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 3000, "maxfev": 3000}
    found = [
        optimize.minimize(
            lambda theta: deviance(problem, theta, reml),
            guess,
            method="Nelder-Mead",
            options=options,
        )
        for guess in (start + 0.3, start - 0.2)
    ]
    return min(found, key=lambda result: result.fun).x


KINDS = (
    "intercept",
    "slope",
    "three_columns",
    "four_columns",
    "independent",
    "several_terms",
    "nested",
    "nested_chain",
    "nested_slopes",
    "crossed",
    "crossed_slopes",
    "crossed_three",
    "nested_crossed",
    "weights",
    "zero_weights",
    "offset",
    "unbalanced",
    "rare_levels",
)


def random_design(seed: int, kind: str) -> Problem:
    """A small random model of one of the KINDS; y is drawn from it at `random_theta(problem,
    seed)`.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    n = 60
    x = rng.normal(size=(n, 3))
    X = np.column_stack([np.ones(n), x[:, 0], rng.integers(0, 2, n)])
    weights = rng.uniform(0.2, 3, n) if "weights" in kind else None
    if kind == "zero_weights":
        weights[rng.permutation(n)[:8]] = 0
    offset = rng.normal(0, 5, n) if kind == "offset" else None
    problem = Problem(np.zeros(n), X, _random_factors(rng, kind, x), weights, offset)
    return replace(problem, y=_simulate(rng, problem, random_theta(problem, seed)))


def random_theta(problem: Problem, seed: int) -> Array:
    """(d,) away from 0: diagonals of Lambda in (0.3, 1.5), the rest in (-0.7, 0.7)."""
    rng = np.random.default_rng(seed)
    diagonal = problem.theta0 == 1
    return np.where(diagonal, rng.uniform(0.3, 1.5, problem.d), rng.uniform(-0.7, 0.7, problem.d))


def _nu(problem: Problem, reml: bool) -> int:
    n, p = problem.X.shape
    return n - p if reml else n


def _logdets(fit: GLS, reml: bool) -> float:
    return fit.logdet + (np.linalg.slogdet(fit.XVX)[1] if reml else 0.0)


def _level_covs(factor: Factor, S: Array, inverse: Array) -> Array:
    """The blocks (k, k) of each level in S - S Z' V^-1 Z S, S the covariance of all of b."""
    Z, k, levels = factor.dense(), factor.Z.shape[1], np.arange(factor.m)
    posterior = S - S @ Z.T @ inverse @ Z @ S
    return posterior.reshape(factor.m, k, factor.m, k)[levels, :, levels]


def _scale(x: Array) -> Array:
    """Size of a unit step by entry: differences are relative to entries above 0.5."""
    return np.maximum(np.abs(x), 0.5)


def _extrapolate(difference: Callable[[float], Array], step: float) -> Array:
    """Richardson's extrapolation of an even-order difference quotient from step, step / 2, step
    / 4.
    """
    coarse, middle, fine = (difference(step / 2**i) for i in range(3))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return (16 * second - first) / 15


def _covariance_directions(problem: Problem) -> Iterator[Array]:
    """dV/dphi for phi = sigma^2 and each covariance of each term, the same entries as theta
    (known K only).
    """
    yield np.diag(1 / problem.w)
    for factor in problem.factors:
        K = factor.matrices(np.array(factor.start))[1]
        yield from (factor.covariance(S, K) for S in factor.directions)


def _kr_moments(L: Array, Phi: Array, P: Array, W: Array) -> tuple[float, float]:
    """Denominator df and scale of F, from the approximate mean and variance of the Wald
    statistic.
    """
    q = len(L)
    M = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    T = np.array([M @ Phi @ direction @ Phi for direction in P])
    t = np.trace(T, axis1=1, axis2=2)
    A1, A2 = t @ W @ t, np.einsum("ij,iab,jba->", W, T, T)
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    d = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / d, (q - g) / d, (q + 2 - g) / d
    E = 1 / (1 - A2 / q)
    rho = (2 / q) * (1 + c1 * B) / ((1 - c2 * B) ** 2 * (1 - c3 * B)) / (2 * E**2)
    df = 4 + (q + 2) / (q * rho - 1)
    return df, df / (E * (df - 2))


def _positive_diagonals(problem: Problem, theta: Array) -> Array:
    """Flip the sign of whole columns of Lambda: the model does not see it."""
    entries = []
    for factor, L in zip(problem.factors, problem.Lambdas(theta), strict=True):
        flipped = L * np.where(np.diag(L) < 0, -1.0, 1.0)
        entries += [flipped[at] for at in factor.pattern]
    return np.array(entries)


def _simulate(rng: np.random.Generator, problem: Problem, theta: Array) -> Array:
    y = problem.X @ rng.normal(size=problem.X.shape[1]) + problem.shift
    for factor, L in zip(problem.factors, problem.Lambdas(theta), strict=True):
        b = rng.normal(size=(factor.m, len(L))) @ L.T
        y += (factor.Z * b[factor.codes]).sum(axis=1)
    noise = rng.normal(size=len(y))
    return y + noise / np.sqrt(np.where(problem.w > 0, problem.w, 1))


def _random_factors(rng: np.random.Generator, kind: str, x: Array) -> tuple[Factor, ...]:
    """Factors in lme4's order: most levels first."""
    n = len(x)
    wide = np.column_stack([np.ones(n), x])

    def codes(m: int, share: Array | None = None) -> Array:
        """Random levels, each of the m at least once."""
        return rng.permutation(np.append(np.arange(m), rng.choice(m, n - m, p=share)))

    def one(group: Array, *terms: tuple[int, ...]) -> Factor:
        terms = terms or ((0,),)
        return Factor(group, wide[:, : 1 + max(map(max, terms))], int(group.max()) + 1, terms)

    def inner(outer: Array, m: int) -> Array:
        return np.unique(outer * m + rng.integers(0, m, n), return_inverse=True)[1]

    if kind in ("slope", "weights", "zero_weights", "offset", "unbalanced"):
        share = np.r_[0.5, 0.2, np.full(6, 0.05)] if kind == "unbalanced" else None
        return (one(codes(8, share), (0, 1)),)
    if kind in ("three_columns", "four_columns"):
        return (one(codes(10), tuple(range(3 + (kind == "four_columns")))),)
    if kind == "independent":
        return (one(codes(10), (0,), (1,), (2,)),)
    if kind == "several_terms":
        return (one(codes(10), (0, 1), (2, 3)),)
    if kind == "rare_levels":  # most levels have a single row, fewer rows than columns
        return (one(np.append(np.arange(20), rng.integers(0, 3, n - 20)), (0, 1)),)
    if kind == "crossed":
        return one(codes(9)), one(codes(6))
    if kind == "crossed_slopes":
        return one(codes(9), (0, 1)), one(codes(6), (0,), (1,))
    if kind == "crossed_three":
        return one(codes(9)), one(codes(7), (0, 1)), one(codes(4))
    outer = codes(5)
    if kind in ("nested", "nested_slopes"):
        terms = ((0, 1),) if kind == "nested_slopes" else ((0,),)
        return one(inner(outer, 3), *terms), one(outer, *terms)
    if kind == "nested_chain":
        middle = inner(outer, 2)
        return one(inner(middle, 2)), one(middle, (0, 1)), one(outer)
    if kind == "nested_crossed":
        return one(inner(outer, 3), (0, 1)), one(codes(6)), one(outer)
    return (one(codes(8)),)
