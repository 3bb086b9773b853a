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

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ..inference.contrasts import Hypothesis, check_rows, contrast_matrix
from ..inference.tails import t_pvalue
from ..many.chunks import Chunk
from ..many.designs import Designs
from ..many.fits import ManyFits, false_discovery
from ..support.arguments import one_of, whole_number
from .contrasts import f_pvalues, f_tests, long_table, t_tests, test
from .priors import Outliers, Prior, prior_by_likelihood, robust_prior, spline_basis, squeezed

LEAST_DF = 0.5  # below which a model does not inform the prior
FEWEST = 3  # models that determine a prior
APART = 2.0  # how far the df of the rows of a joint test may differ by a factor
SORTED = ("p", "estimate", "t")


def moderate(
    many: ManyFits, contrast: Hypothesis, trend: Any = False, robust: bool = False
) -> pd.DataFrame:
    """Moderated t or F tests of a contrast in every model.

    contrast: as in `test`; several rows make a joint test. In `df_method="normal"` nothing is
    moderated: refused. trend: True lets the variance that others are shrunk towards follow the mean
    response, as that of log-counts does: a natural cubic spline of up to four knots; or numbers,
    one a model, to follow in place of the mean. robust: True keeps a few models of very large
    variance from making the prior of all others vague, and shrinks these less (Phipson et al. 2016,
    Ann. Appl. Stat. 10).

    Returns a row for each model: its label, `hypothesis estimate se df t p p_adjusted df_prior
    se_moderated`, with df and t of the moderated variance and p adjusted over the models (false
    discovery rate, Benjamini & Hochberg); of a joint test `hypothesis F num_df den_df p p_adjusted
    df_prior`. `attrs["prior"]` has df and variance of the prior; with a trend its variance is a
    column, `variance_prior`.

    The prior is estimated by maximum likelihood from all models that converged, whatever their df;
    a robust one from winsorised log variances, with `df_prior` of each model.

    Raises ValueError for a trend that is not one number a model, for fewer than three models, and
    for a joint test of rows whose df differ by more than a factor of two: no single variance stands
    for all of them; test them one by one.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.moderate("Days")[["model", "estimate", "se_moderated", "df", "t"]].round(2)
      model  estimate  se_moderated   df     t
    0    y0     10.93          1.32  inf  8.28
    1    y1      9.54          1.32  inf  7.23
    2    y2     10.22          1.32  inf  7.74
    3    y3      9.00          1.32  inf  6.82
    """
    if many.df_method == "normal":
        raise ValueError('moderation needs degrees of freedom: fit with df_method="satterthwaite"')
    L, rhs, labels = contrast_matrix(contrast, many.coefficients)
    check_rows(L, rhs, labels, len(L) > 1)
    learn = functools.partial(_prior_of, many, _followed(many, trend), robust)
    if len(L) == 1:
        return _moderated_t(many, L, rhs, labels, learn)
    return _moderated_f(many, L, rhs, [", ".join(labels)], learn)


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
    many: ManyFits,
    contrast: Hypothesis,
    n: int = 10,
    sort: str = "p",
    trend: Any = False,
    robust: bool = False,
) -> pd.DataFrame:
    """The models with the strongest evidence about a contrast.

    contrast: as in `test`. n: how many. sort: "p" (smallest first), "t" or "estimate" (largest in
    size first). trend, robust: as in `moderate`. Returns the first n rows of `moderate(contrast)`,
    or where there are no degrees of freedom to moderate (`df_method="normal"`, generalised models)
    of `test(contrast, adjust="bh")`. Raises ValueError as these do.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.top("Days", 2)[["model", "estimate", "t"]].round(2)
      model  estimate     t
    0    y0     10.93  8.28
    1    y2     10.22  7.74
    """
    one_of("sort", sort, SORTED)
    whole_number("n", n, 1)
    is_normal = many.df_method == "normal"
    table = (
        test(many, contrast, adjust="bh") if is_normal else moderate(many, contrast, trend, robust)
    )
    if sort not in table:
        raise ValueError(f'a joint test has no {sort!r}: use sort="p"')
    keys = table[sort] if sort == "p" else -table[sort].abs()
    return table.loc[keys.sort_values(kind="stable").index[:n]].reset_index(drop=True)


def _moderated_t(
    many: ManyFits,
    L: np.ndarray,
    rhs: np.ndarray,
    labels: list[str],
    learn: Callable[[np.ndarray, np.ndarray], Outliers],
) -> pd.DataFrame:
    tests, unscaled = t_tests(many, L, rhs), unscaled_covariances(many, L)[:, 0, 0]
    se, df = tests.se[:, 0], tests.df[:, 0]
    variances = se**2 / unscaled
    prior, own = learn(variances, df)
    posterior, df = squeezed(variances, df, prior._replace(df=own))
    moderated = np.sqrt(posterior * unscaled)
    t = (tests.estimate[:, 0] - rhs[0]) / moderated
    p = t_pvalue(t, df)
    columns = dict(estimate=tests.estimate[:, 0], se=se, df=df, t=t, p=p, p_adjusted=_adjusted(p))
    columns |= dict(df_prior=np.where(np.isnan(p), np.nan, own), se_moderated=moderated)
    return _table(many, labels, columns, prior)


def _moderated_f(
    many: ManyFits,
    L: np.ndarray,
    rhs: np.ndarray,
    labels: list[str],
    learn: Callable[[np.ndarray, np.ndarray], Outliers],
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
    prior, own = learn(variances, tests.den_df)
    posterior, df = squeezed(variances, tests.den_df, prior._replace(df=own))
    F = tests.F * variances / posterior
    p = f_pvalues(F, tests.num_df, df)
    columns = dict(
        F=F, num_df=np.full(len(F), tests.num_df), den_df=df, p=p, p_adjusted=_adjusted(p)
    )
    columns |= dict(df_prior=np.where(np.isnan(p), np.nan, own))
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
    many: ManyFits,
    followed: np.ndarray | None,
    robust: bool,
    variances: np.ndarray,
    df: np.ndarray,
) -> Outliers:
    """The prior of variances (models,) on df (models,), and the d0 of each."""
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
    known = [variances[informs], df[informs]]
    if followed is not None:
        B = spline_basis(followed, followed[informs])
        known += [B[informs], B]
    if not robust:
        prior = prior_by_likelihood(*known)
        return Outliers(prior, np.full(len(many), prior.df))
    prior, own = robust_prior(*known)
    whole = np.full(len(many), prior.df)
    whole[informs] = own
    return Outliers(prior, whole)
