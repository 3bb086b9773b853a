"""Moderated statistics: the variance of a contrast shrunk towards what it is in all models
(empirical Bayes).

With v_l the estimated variance of a contrast in model l, in units of its unscaled variance k_l, and
d_l its df,

    v_l | tau_l ~ tau_l chi2(d_l) / d_l,   1 / tau_l ~ chi2(d0) / (d0 v0),
    so  v_l / v0 ~ F(d_l, d0),

and the posterior variance is (d0 v0 + d_l v_l) / (d0 + d_l) with d0 + d_l df (Smyth 2004, Stat.
Appl. Genet. Mol. 3:3). What is shrunk is the variance of the contrast itself. The residual variance
is a small part of that of an effect between subjects: shrinking it, as if it were all, adds degrees
of freedom that are not there.
"""

from __future__ import annotations

import itertools
import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy

from ..inference.coefficients import t_pvalue
from ..inference.contrasts import Hypothesis, check_rows, contrast_matrix
from ..many.chunks import Chunk
from ..many.fits import ManyFits, false_discovery
from ..support.arguments import one_of, whole_number
from ..support.later import special
from .contrasts import f_pvalues, f_tests, long_table, t_tests, test

LEAST_DF = 0.5  # below which a model does not inform the prior
FEWEST = 3  # models that determine a prior
MOST_DF = 1e6  # of the prior, above which it counts as infinite
APART = 2.0  # how far the df of the rows of a joint test may differ by a factor
SORTED = ("p", "estimate", "t")


class Prior(NamedTuple):
    """What variances are shrunk towards: degrees of freedom d0, infinite where all models share
    one, and value v0.
    """

    df: float
    variance: float


def moderate(many: ManyFits, contrast: Hypothesis) -> pd.DataFrame:
    """Moderated t or F tests of a contrast in every model.

    contrast: as in `test`; several rows make a joint test. In `df_method="normal"` nothing is
    moderated: refused.

    Returns a row for each model: its label, `hypothesis estimate se df t p p_adjusted df_prior
    se_moderated`, with df and t of the moderated variance and p adjusted over the models (false
    discovery rate, Benjamini & Hochberg); of a joint test `hypothesis F num_df den_df p p_adjusted
    df_prior`. `attrs["prior"]` has df and variance of the prior.

    The prior is estimated by maximum likelihood from all models that converged, whatever their df.
    It is one number for all models: no trend with the mean of the response, and no robust fit
    (Phipson et al. 2016, Ann. Appl. Stat. 10).

    Raises ValueError for fewer than three models, and for a joint test of rows whose df differ by
    more than a factor of two: no single variance stands for all of them; test them one by one.

    >>> many.moderate("treatment[T.drug]")
    """
    if many.df_method == "normal":
        raise ValueError('moderation needs degrees of freedom: fit with df_method="satterthwaite"')
    L, rhs, labels = contrast_matrix(contrast, many.coefficients)
    check_rows(L, rhs, labels, len(L) > 1)
    if len(L) == 1:
        return _moderated_t(many, L, rhs, labels)
    return _moderated_f(many, L, rhs, [", ".join(labels)])


def top(many: ManyFits, contrast: Hypothesis, n: int = 10, sort: str = "p") -> pd.DataFrame:
    """The models with the strongest evidence about a contrast.

    contrast: as in `test`. n: how many. sort: "p" (smallest first), "t" or "estimate" (largest in
    size first). Returns the first n rows of `moderate(contrast)`, or where there are no degrees of
    freedom to moderate (`df_method="normal"`, generalised models) of `test(contrast, adjust="bh")`.
    Raises ValueError as these do.
    """
    one_of("sort", sort, SORTED)
    whole_number("n", n, 1)
    is_normal = many.df_method == "normal"
    table = test(many, contrast, adjust="bh") if is_normal else moderate(many, contrast)
    if sort not in table:
        raise ValueError(f'a joint test has no {sort!r}: use sort="p"')
    keys = table[sort] if sort == "p" else -table[sort].abs()
    return table.loc[keys.sort_values(kind="stable").index[:n]].reset_index(drop=True)


def _moderated_t(many: ManyFits, L: np.ndarray, rhs: np.ndarray, labels: list[str]) -> pd.DataFrame:
    tests, unscaled = t_tests(many, L, rhs), unscaled_covariances(many, L)[:, 0, 0]
    se, df = tests.se[:, 0], tests.df[:, 0]
    variances = se**2 / unscaled
    prior = _prior_of(many, variances, df)
    posterior, df = squeezed(variances, df, prior)
    moderated = np.sqrt(posterior * unscaled)
    t = (tests.estimate[:, 0] - rhs[0]) / moderated
    p = t_pvalue(t, df)
    columns = dict(estimate=tests.estimate[:, 0], se=se, df=df, t=t, p=p, p_adjusted=_adjusted(p))
    columns |= dict(df_prior=np.where(np.isnan(p), np.nan, prior.df), se_moderated=moderated)
    return _table(many, labels, columns, prior)


def _moderated_f(many: ManyFits, L: np.ndarray, rhs: np.ndarray, labels: list[str]) -> pd.DataFrame:
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
    prior = _prior_of(many, variances, tests.den_df)
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
    table = long_table(many, {"hypothesis": labels}, columns)
    table.attrs["prior"] = prior._asdict()
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


def _prior_of(many: ManyFits, variances: np.ndarray, df: np.ndarray) -> Prior:
    with np.errstate(invalid="ignore"):
        informs = (
            many.converged.to_numpy()
            & (variances > 0.0)
            & (df >= LEAST_DF)
            & np.isfinite(variances)
        )
    if informs.sum() < FEWEST:
        raise ValueError(
            f"moderation learns from many models: {informs.sum()} have a variance to learn from"
        )
    return prior_by_likelihood(variances[informs], df[informs])


def prior_by_moments(variances: np.ndarray, df: np.ndarray) -> Prior:
    """The prior that gives log variances (r,) on df (r,) their mean and spread (Smyth 2004, section
    6.2).

    With e = log v - psi(d/2) + log(d/2): E e = log v0 - psi(d0/2) + log(d0/2), Var e = psi'(d/2) +
    psi'(d0/2).
    """
    half = df / 2.0
    e = np.log(variances) - special.digamma(half) + np.log(half)
    own = special.polygamma(1, half)
    excess = np.var(e, ddof=1) - own.mean()
    if excess <= 0.0:
        return Prior(np.inf, float(np.sum(df * variances) / np.sum(df)))
    d0 = 2.0 * trigamma_inverse(excess)
    weights = 1.0 / (own + excess)
    centre = np.sum(weights * e) / np.sum(weights)
    return Prior(float(d0), float(np.exp(centre + special.digamma(d0 / 2.0) - np.log(d0 / 2.0))))


def prior_by_likelihood(variances: np.ndarray, df: np.ndarray) -> Prior:
    """The prior under which variances (r,) on df (r,) are most likely: v / v0 ~ F(d, d0)."""
    start = prior_by_moments(variances, df)
    at_once = Prior(np.inf, float(np.sum(df * variances) / np.sum(df)))
    d0 = min(start.df, 1e3)
    found = scipy.optimize.minimize(
        lambda x: -log_likelihood(Prior(*np.exp(x)), variances, df),
        np.log([d0, start.variance]),
        method="Nelder-Mead",
        options=dict(xatol=1e-6, fatol=1e-9, maxiter=2000),
    )
    prior = Prior(*map(float, np.exp(found.x)))
    if prior.df > MOST_DF or log_likelihood(at_once, variances, df) >= -found.fun:
        return at_once
    return prior


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
