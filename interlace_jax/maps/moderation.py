"""Moderated statistics: the variance of a contrast shrunk towards what it is in all models
(empirical Bayes).

With v_l the estimated variance of a contrast in model l, in units of its unscaled variance k_l, and
d_l its df,

    v_l | tau_l ~ tau_l chi2(d_l) / d_l,   1 / tau_l ~ chi2(d0) / (d0 v0),
    so  v_l / v0 ~ F(d_l, d0),

and the posterior variance is (d0 v0 + d_l v_l) / (d0 + d_l) with d0 + d_l df (Smyth 2004, Stat.
Appl. Genet. Mol. 3:3). v0 may follow the mean response, log v0 = B gamma with a spline B of it (Law
et al. 2014, Genome Biol. 15, call this limma-trend). What is shrunk is the variance of the contrast
itself. The residual variance is a small part of that of an effect between subjects: shrinking it,
as if it were all, adds degrees of freedom that are not there.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy

from ..inference.coefficients import t_pvalue
from ..inference.contrasts import Hypothesis, check_rows, contrast_matrix
from ..many.chunks import Chunk
from ..many.designs import Designs
from ..many.fits import ManyFits, false_discovery
from ..support.arguments import one_of, whole_number
from ..support.later import special
from .contrasts import f_pvalues, f_tests, long_table, t_tests, test

LEAST_DF = 0.5  # below which a model does not inform the prior
FEWEST = 3  # models that determine a prior
# degrees of freedom of the prior; above the larger they count as infinite
LEAST_PRIOR_DF, MOST_DF = 1e-3, 1e6
APART = 2.0  # how far the df of the rows of a joint test may differ by a factor
SORTED = ("p", "estimate", "t")
KNOTS = ((30, 4), (6, 3), (3, 2))  # models from which on a trend has so many knots


class Prior(NamedTuple):
    """What variances are shrunk towards: degrees of freedom d0, infinite where a model's own
    variance tells nothing, and value v0, one for all or one a model.
    """

    df: float
    variance: float | np.ndarray


def moderate(many: ManyFits, contrast: Hypothesis, trend: Any = False) -> pd.DataFrame:
    """Moderated t or F tests of a contrast in every model.

    contrast: as in `test`; several rows make a joint test. In `df_method="normal"` nothing is
    moderated: refused. trend: True lets the variance that others are shrunk towards follow the mean
    response, as that of log-counts does: a natural cubic spline of up to four knots; or numbers,
    one a model, to follow in place of the mean.

    Returns a row for each model: its label, `hypothesis estimate se df t p p_adjusted df_prior
    se_moderated`, with df and t of the moderated variance and p adjusted over the models (false
    discovery rate, Benjamini & Hochberg); of a joint test `hypothesis F num_df den_df p p_adjusted
    df_prior`. `attrs["prior"]` has df and variance of the prior; with a trend its variance is a
    column, `variance_prior`.

    The prior is estimated by maximum likelihood from all models that converged, whatever their df;
    not robustly (Phipson et al. 2016, Ann. Appl. Stat. 10): a few models of very large variance
    make its degrees of freedom small.

    Raises ValueError for a trend that is not one number a model, for fewer than three models, and
    for a joint test of rows whose df differ by more than a factor of two: no single variance stands
    for all of them; test them one by one.

    >>> many.moderate("treatment[T.drug]")
    >>> many.moderate("treatment[T.drug]", trend=True)
    """
    if many.df_method == "normal":
        raise ValueError('moderation needs degrees of freedom: fit with df_method="satterthwaite"')
    L, rhs, labels = contrast_matrix(contrast, many.coefficients)
    check_rows(L, rhs, labels, len(L) > 1)
    followed = _followed(many, trend)
    if len(L) == 1:
        return _moderated_t(many, L, rhs, labels, followed)
    return _moderated_f(many, L, rhs, [", ".join(labels)], followed)


def _followed(many: ManyFits, trend: Any) -> np.ndarray | None:
    """What the prior variance follows (models,); None without a trend."""
    if isinstance(trend, bool | np.bool_):
        return mean_responses(many) if trend else None
    values = np.asarray(trend, float)
    if values.shape != (len(many),):
        raise ValueError(
            f"trend must be True, False or one number for each of the {len(many)} models, not an "
            f"array of the shape {values.shape}"
        )
    return values


def mean_responses(many: ManyFits) -> np.ndarray:
    """Mean of X beta over the rows of the design of every model (models,)."""
    work, beta, found = many.work, many.fe_params, np.full(len(many), np.nan)
    if isinstance(work, Designs):
        groups = [([i], design) for i, design in enumerate(work.designs) if design is not None]
    else:
        groups = work.named
    for places, design in groups:
        found[places] = beta.iloc[places][list(design.columns)].to_numpy() @ design.X.mean(0)
    return found


def top(
    many: ManyFits, contrast: Hypothesis, n: int = 10, sort: str = "p", trend: Any = False
) -> pd.DataFrame:
    """The models with the strongest evidence about a contrast.

    contrast: as in `test`. n: how many. sort: "p" (smallest first), "t" or "estimate" (largest in
    size first). trend: as in `moderate`. Returns the first n rows of `moderate(contrast)`, or where
    there are no degrees of freedom to moderate (`df_method="normal"`, generalised models) of
    `test(contrast, adjust="bh")`. Raises ValueError as these do.
    """
    one_of("sort", sort, SORTED)
    whole_number("n", n, 1)
    is_normal = many.df_method == "normal"
    table = test(many, contrast, adjust="bh") if is_normal else moderate(many, contrast, trend)
    if sort not in table:
        raise ValueError(f'a joint test has no {sort!r}: use sort="p"')
    keys = table[sort] if sort == "p" else -table[sort].abs()
    return table.loc[keys.sort_values(kind="stable").index[:n]].reset_index(drop=True)


def _moderated_t(
    many: ManyFits,
    L: np.ndarray,
    rhs: np.ndarray,
    labels: list[str],
    followed: np.ndarray | None,
) -> pd.DataFrame:
    tests, unscaled = t_tests(many, L, rhs), unscaled_covariances(many, L)[:, 0, 0]
    se, df = tests.se[:, 0], tests.df[:, 0]
    variances = se**2 / unscaled
    prior = _prior_of(many, variances, df, followed)
    posterior, df = squeezed(variances, df, prior)
    moderated = np.sqrt(posterior * unscaled)
    t = (tests.estimate[:, 0] - rhs[0]) / moderated
    p = t_pvalue(t, df)
    columns = dict(estimate=tests.estimate[:, 0], se=se, df=df, t=t, p=p, p_adjusted=_adjusted(p))
    columns |= dict(df_prior=np.where(np.isnan(p), np.nan, prior.df), se_moderated=moderated)
    return _table(many, labels, columns, prior)


def _moderated_f(
    many: ManyFits,
    L: np.ndarray,
    rhs: np.ndarray,
    labels: list[str],
    followed: np.ndarray | None,
) -> pd.DataFrame:
    """One scalar variance for all rows: the geometric mean of the principal ones, (|S| /
    |K|)^(1/q).
    """
    rows = t_tests(many, L, rhs)
    ratio = np.nanmedian(rows.df.max(1) / rows.df.min(1))
    if ratio > APART:
        raise ValueError(
            "the rows of the hypothesis have degrees of freedom that differ by a factor of "
            f"{ratio:.1f}, as effects within and between subjects do: no one variance stands for "
            "all of them; test them one by one"
        )
    tests, unscaled = f_tests(many, L, rhs), unscaled_covariances(many, L)
    if tests.num_df < len(L):
        raise ValueError(
            "the rows of the hypothesis depend linearly on each other: leave out what others imply"
        )
    (S,) = many.over_curvatures(lambda lanes: (L @ lanes.vcov @ L.T,))
    variances = np.exp((np.linalg.slogdet(S)[1] - np.linalg.slogdet(unscaled)[1]) / len(L))
    prior = _prior_of(many, variances, tests.den_df, followed)
    posterior, df = squeezed(variances, tests.den_df, prior)
    F = tests.F * variances / posterior
    p = f_pvalues(F, tests.num_df, df)
    columns = dict(
        F=F, num_df=np.full(len(F), tests.num_df), den_df=df, p=p, p_adjusted=_adjusted(p)
    )
    columns |= dict(df_prior=np.where(np.isnan(p), np.nan, prior.df))
    return _table(many, labels, columns, prior)


def _table(
    many: ManyFits, labels: list[str], columns: dict[str, np.ndarray], prior: Prior
) -> pd.DataFrame:
    if np.ndim(prior.variance):
        columns = columns | {"variance_prior": prior.variance}
        facts = {"df": prior.df}
    else:
        facts = prior._asdict()
    table = long_table(many, {"hypothesis": labels}, columns)
    table.attrs["prior"] = facts
    return table


def _adjusted(p: np.ndarray) -> np.ndarray:
    return false_discovery(pd.Series(p), "bh").to_numpy()


def unscaled_covariances(many: ManyFits, L: np.ndarray) -> np.ndarray:
    """L (X'WX)^-1 L' of every model's own rows and weights: (models, q, q); NaN where it lacks a
    coefficient.
    """
    found = np.full((len(many), len(L), len(L)), np.nan)

    def of_chunk(chunk: Chunk) -> list[tuple[np.ndarray, np.ndarray]]:
        R = np.asarray(chunk.lanes.design.R)  # X'WX = R'R
        R = np.broadcast_to(R, (chunk.lanes.count, *R.shape[-2:]))
        parts = []
        for lanes, design in chunk.alike():
            at = [many.coefficients.index(name) for name in design.columns]
            if not np.delete(L, at, axis=1).any():
                parts.append((chunk.places[lanes], _unscaled(R[lanes], L[:, at])))
        return parts

    for places, values in itertools.chain(*many.over_chunks(of_chunk)):
        found[places] = values
    return found


def _unscaled(R: np.ndarray, L: np.ndarray) -> np.ndarray:
    """L (R'R)^-1 L' of upper triangular matrices R (r, p, p)."""
    half = np.linalg.solve(R.mT, np.broadcast_to(L.T, (len(R), *L.T.shape)))
    return half.mT @ half


def _prior_of(
    many: ManyFits, variances: np.ndarray, df: np.ndarray, followed: np.ndarray | None
) -> Prior:
    with np.errstate(invalid="ignore"):
        informs = (
            many.converged.to_numpy()
            & (variances > 0.0)
            & (df >= LEAST_DF)
            & np.isfinite(variances)
        )
    if followed is not None:
        informs &= np.isfinite(followed)
    if informs.sum() < FEWEST:
        raise ValueError(
            f"moderation learns from many models: {informs.sum()} have a variance to learn from"
        )
    known = variances[informs], df[informs]
    if followed is None:
        return prior_by_likelihood(*known)
    B = spline_basis(followed, followed[informs])
    return prior_by_likelihood(*known, B[informs], B)


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
    regression, by Fisher's scoring.
    """
    found = _least_squares(B, np.log(variances))
    for _ in range(100):
        fitted = np.exp(B @ found)
        step = _least_squares(B, variances / fitted - 1.0, df)
        found = found + step
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
    if np.isinf(prior.df):
        known = np.where(np.isnan(variances), np.nan, 1.0)
        return prior.variance * known, np.inf * known
    total = prior.df + df
    return (prior.df * prior.variance + df * variances) / total, total


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
