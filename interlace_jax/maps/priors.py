"""The prior of the variances of many models, and variances shrunk towards it (empirical Bayes).

With v_l an estimated variance on d_l degrees of freedom,

    v_l | tau_l ~ tau_l chi2(d_l) / d_l,   1 / tau_l ~ chi2(d0) / (d0 v0),
    so  v_l / v0 ~ F(d_l, d0)

(Smyth 2004, Stat. Appl. Genet. Mol. 3:3).
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy

from ..support.later import special

# degrees of freedom of the prior; above the larger they count as infinite
LEAST_PRIOR_DF, MOST_DF = 1e-3, 1e6
KNOTS = ((30, 4), (6, 3), (3, 2))  # models from which on a trend has so many knots
WINSORISED = 0.05, 0.9  # quantiles that a robust prior moves what is beyond them to
ROUNDING = 1e-15  # shares this close to 0 or 1 are not told from them


class Prior(NamedTuple):
    """What variances are shrunk towards: degrees of freedom d0, infinite where a model's own
    variance tells nothing, and value v0, one for all or one a model.
    """

    df: float
    variance: float | np.ndarray


def spline_basis(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Natural cubic splines at x (r,), level beyond the values known (m,), at quantiles of which
    they have their knots: (r, k).
    """
    count = next(knots for least, knots in KNOTS if len(known) >= least)
    knots = np.unique(np.quantile(known, np.linspace(0.0, 1.0, count)))
    if len(knots) == 1:
        return np.where(np.isnan(x), np.nan, 1.0)[:, None]
    spline = scipy.interpolate.CubicSpline(knots, np.eye(len(knots)), bc_type="natural")
    return spline(np.clip(x, knots[0], knots[-1]))


def prior_by_moments(variances: np.ndarray, df: np.ndarray, B: np.ndarray | None = None) -> Prior:
    """The prior that gives log variances (r,) on df (r,) their mean and spread (Smyth 2004, section
    6.2), with log v0 in the columns of B (r, k), by default the same for all.

    With e = log v - psi(d/2) + log(d/2): E e = log v0 - psi(d0/2) + log(d0/2), Var e = psi'(d/2) +
    psi'(d0/2).
    """
    columns = _constant(variances) if B is None else B
    half = df / 2.0
    e = np.log(variances) - special.digamma(half) + np.log(half)
    own = special.polygamma(1, half)
    left = e - columns @ _least_squares(columns, e)
    excess = np.sum(left**2) / max(len(e) - columns.shape[1], 1) - own.mean()
    if excess <= 0.0:
        return _prior(np.inf, columns @ _pooled(variances, df, columns), B)
    d0 = 2.0 * trigamma_inverse(excess)
    centre = columns @ _least_squares(columns, e, 1.0 / (own + excess))
    return _prior(d0, centre + special.digamma(d0 / 2.0) - np.log(d0 / 2.0), B)


def prior_by_likelihood(
    variances: np.ndarray,
    df: np.ndarray,
    B: np.ndarray | None = None,
    at: np.ndarray | None = None,
) -> Prior:
    """The prior under which variances (r,) on df (r,) are most likely: v / v0 ~ F(d, d0).

    B (r, k): columns that log v0 is a combination of, by default the same for all; at (models, k):
    these columns where v0 is wanted, by default B.
    """
    columns = _constant(variances) if B is None else B
    at = columns if at is None else at
    start = prior_by_moments(variances, df, columns)
    pooled = _pooled(variances, df, columns)
    at_once = Prior(np.inf, np.exp(columns @ pooled))

    def lack(x: np.ndarray) -> tuple[float, np.ndarray]:
        """-log L a model at (log d0, gamma), and its derivatives."""
        prior = Prior(np.exp(x[0]), np.exp(columns @ x[1:]))
        by_df, by_log_v0 = _slopes(prior, variances, df)
        slopes = np.append(prior.df * by_df, columns.T @ by_log_v0)
        return -log_likelihood(prior, variances, df) / len(df), -slopes / len(df)

    gamma = _least_squares(columns, np.log(start.variance))
    begin = np.append(np.log(min(start.df, 1e3)), gamma)
    bounds = [(np.log(LEAST_PRIOR_DF), np.log(10.0 * MOST_DF)), *[(None, None)] * len(gamma)]
    found = scipy.optimize.minimize(
        lack, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=dict(ftol=0.0, gtol=1e-9)
    )
    best = -found.fun * len(df)
    if np.exp(found.x[0]) > MOST_DF or log_likelihood(at_once, variances, df) >= best:
        return _prior(np.inf, at @ pooled, B)
    return _prior(np.exp(found.x[0]), at @ found.x[1:], B)


def _prior(df: float, log_variance: np.ndarray, B: np.ndarray | None) -> Prior:
    """A prior whose log v0 (r,) is the same for all where there are no columns B for it."""
    variance = np.exp(log_variance)
    return Prior(float(df), float(variance[0]) if B is None else variance)


def _constant(variances: np.ndarray) -> np.ndarray:
    return np.ones((len(variances), 1))


def _least_squares(B: np.ndarray, y: np.ndarray, weights: Any = 1.0) -> np.ndarray:
    """Coefficients (k,) of y (r,) on the columns of B (r, k)."""
    root = np.sqrt(np.broadcast_to(weights, len(y)))
    return np.linalg.lstsq(root[:, None] * B, root * y, rcond=None)[0]


def _pooled(variances: np.ndarray, df: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Coefficients of log v0 if all scatter of the variances is that of chi-square: gamma
    regression, by Fisher's scoring in steps that change no v0 by more than a factor of e.
    """
    found = _least_squares(B, np.log(variances))
    for _ in range(100):
        fitted = np.exp(B @ found)
        step = _least_squares(B, variances / fitted - 1.0, df)
        found = found + step / max(1.0, np.abs(B @ step).max())
        if np.abs(step).max() < 1e-12:
            break
    return found


def _slopes(prior: Prior, variances: np.ndarray, df: np.ndarray) -> tuple[float, np.ndarray]:
    """Derivatives of `log_likelihood` by d0 and by every log v0 (r,)."""
    half, half0 = df / 2.0, prior.df / 2.0
    f = df * variances / (prior.df * prior.variance)
    by_log_f = half - (half + half0) * f / (1.0 + f)
    own = -np.log1p(f) - special.digamma(half0) + special.digamma(half + half0)
    return float(np.sum(0.5 * own - by_log_f / prior.df)), -by_log_f


def log_likelihood(prior: Prior, variances: np.ndarray, df: np.ndarray) -> float:
    """Log-likelihood of variances (r,) on df (r,) under a prior, less terms in the variances
    alone.
    """
    half = df / 2.0
    if np.isinf(prior.df):
        ratio = variances / prior.variance
        return float(np.sum(half * np.log(half * ratio) - half * ratio - special.gammaln(half)))
    f = df * variances / (prior.df * prior.variance)
    each = (
        half * np.log(f)
        - (half + prior.df / 2.0) * np.log1p(f)
        - special.betaln(half, prior.df / 2.0)
    )
    return float(np.sum(each))


def squeezed(variances: np.ndarray, df: np.ndarray, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Posterior variances (r,) and their degrees of freedom."""
    known = np.where(np.isnan(variances), np.nan, 1.0)
    total = (prior.df + df) * known
    own = np.where(np.isinf(prior.df), 0.0, df / total)  # weight of the model's own variance
    return prior.variance + own * (variances - prior.variance), total


def trigamma_inverse(x: float) -> float:
    """The y > 0 with trigamma(y) = x, by Newton's method on 1 / trigamma, which is convex (Smyth
    2004, appendix).
    """
    y = 0.5 + 1.0 / x
    for _ in range(50):
        value = special.polygamma(1, y)
        step = value * (1.0 - value / x) / special.polygamma(2, y)
        y += step
        if abs(step) < 1e-10 * y:
            return float(y)
    warnings.warn("the prior of the variances was not found to full precision", stacklevel=2)
    return float(y)


class Outliers(NamedTuple):
    """A prior that few models of very large variance do not move."""

    prior: Prior
    "That of all others."
    df: np.ndarray
    "(r,) d0 of every model: less for those whose variance the prior does not explain."


def robust_prior(
    variances: np.ndarray,
    df: np.ndarray,
    B: np.ndarray | None = None,
    at: np.ndarray | None = None,
) -> Outliers:
    """The prior of variances (r,) on df (r,) of which some are too large for any prior (Phipson et
    al. 2016, Ann. Appl. Stat. 10).

    d0 and v0 come from mean and variance of winsorised log variances: those beyond two quantiles
    are moved to these. Unequal df are made equal first: each variance is replaced by the quantile,
    for the largest df, that it has under the prior by likelihood. A model's d0 then goes from that
    of the prior to that of the most extreme variance, which makes this one's the median, as its
    tail probability falls below what its rank lets expect. B (r, k), at (models, k): as in
    `prior_by_likelihood`, whose curve it keeps up to a factor.
    """
    usual = prior_by_likelihood(variances, df, B)
    d = df.max()
    ratios = _quantile(_share(variances / usual.variance, df, usual.df), d, usual.df)
    z = np.log(ratios)
    moved = np.clip(z, *np.quantile(z, WINSORISED))
    mean, spread = moved.mean(), moved.var(ddof=1)

    def lack(log_d0: float) -> float:
        return winsorised_moments(d, np.exp(log_d0))[1] - spread

    most = np.log(MOST_DF)
    least = np.log(min(usual.df, MOST_DF))
    if lack(most) >= 0.0:
        d0 = np.inf
    elif lack(least) <= 0.0:
        d0 = usual.df
    else:
        d0 = float(np.exp(scipy.optimize.brentq(lack, least, most)))
    factor = np.exp(mean - winsorised_moments(d, d0)[0])
    own = _own_df(variances / (factor * usual.variance), df, d0)
    wanted = usual if at is None else prior_by_likelihood(variances, df, B, at)
    return Outliers(Prior(d0, wanted.variance * factor), own)


def winsorised_moments(d: float, d0: float) -> tuple[float, float]:
    """Mean and variance of log F on d and d0 df, moved to its quantiles where it is beyond them."""
    low, high = WINSORISED
    nodes, weights = np.polynomial.legendre.leggauss(64)
    p = low + (high - low) * (nodes + 1.0) / 2.0
    weights = np.concatenate([[low], weights * (high - low) / 2.0, [1.0 - high]])
    z = np.log(_quantile(np.concatenate([[low], p, [high]]), d, d0))
    mean = weights @ z
    return float(mean), float(weights @ (z - mean) ** 2)


def _own_df(ratios: np.ndarray, df: np.ndarray, d0: float) -> np.ndarray:
    """d0 of every model from the ratio v / v0 of its variance to the prior's (r,)."""
    tail = np.maximum(_tail(ratios, df, d0), np.finfo(float).tiny)
    ranks = scipy.stats.rankdata(-tail)
    expected = (len(tail) - ranks + 0.5) / len(tail)
    belongs = np.minimum(tail / expected, 1.0)
    if (belongs == 1.0).all():
        return np.full(len(df), d0)
    most = np.argmin(tail)
    outlying = _df_of_median(ratios[most], df[most], d0)
    some = min(d0, df.sum())  # what all models tell, where it is infinite
    own = np.where(belongs < 1.0, belongs * some + (1.0 - belongs) * outlying, d0)
    order = np.argsort(tail)
    finite = np.minimum(own[order], some)
    fitted = scipy.optimize.isotonic_regression(finite).x
    own[order] = np.where(np.isinf(own[order]), np.inf, fitted)
    return own


def _df_of_median(ratio: float, d: float, d0: float) -> float:
    """The d0 that makes a ratio the median of F on d and d0 df, at most that of the prior; 0 where
    none is small enough.
    """

    def lack(log_d0: float) -> float:
        return float(_tail(ratio, d, np.exp(log_d0))) - 0.5

    least, most = np.log(LEAST_PRIOR_DF), np.log(min(d0, MOST_DF))
    if lack(most) >= 0.0:
        return d0
    return float(np.exp(scipy.optimize.brentq(lack, least, most))) if lack(least) > 0.0 else 0.0


def _share(ratios: np.ndarray, df: np.ndarray, d0: float) -> np.ndarray:
    """Distribution function of F on df and d0 df, short of 1."""
    share = (
        special.gammainc(df / 2.0, df * ratios / 2.0)
        if np.isinf(d0)
        else special.fdtr(df, d0, ratios)
    )
    return np.clip(share, ROUNDING, 1.0 - ROUNDING)


def _tail(ratios: Any, df: Any, d0: float) -> Any:
    """Upper tail of F on df and d0 df."""
    if np.isinf(d0):
        return special.chdtrc(df, df * ratios)
    return special.fdtrc(df, d0, ratios)


def _quantile(share: np.ndarray, d: float, d0: float) -> np.ndarray:
    """Quantiles of F on d and d0 df."""
    if np.isinf(d0):
        return special.gammaincinv(d / 2.0, share) * 2.0 / d
    return special.fdtri(d, d0, share)
