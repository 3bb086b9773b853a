"""Coefficients as curves: pointwise fits along time, smoothed, with pointwise and joint bands.

Functional mixed models by pointwise fits (Cui et al. 2022, J. Comput. Graph. Stat. 31; Loewinger et
al. 2024, eLife). The covariance of the curve between times is that of the subjects' influences on
it, positive semidefinite:

    infl_s = u_s / (x~'V^-1 x~),    C(s, t) = S / (S - 1) sum_i infl_i(s) infl_i(t),    C~ = A C A'

with u_s the scores of `scores` at the full fits, and A the smoother.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..inference.contrasts import Hypothesis
from ..inference.tails import t_quantile
from ..many.fits import ManyFits
from ..many.responses import Responses
from ..support.arguments import check_level, numbers, one_of
from .clusters import contrast_of, subjects_of
from .contrasts import t_tests
from .flips import flip_statistics, signs
from .scores import projections, scores

DRAWS = 5000  # of which the quantile of a joint band is found
MANY_SUBJECTS = 30  # from which on its draws are normal; fewer are flipped in sign
FEWEST = 5  # times of a curve that is smoothed
# smoothing parameters that are tried, in units of times of mean distance 1
GRID = 10.0 ** np.arange(-6, 6.1, 0.5)
BANDS = ("auto", "t", "flip")


@dataclass(frozen=True, eq=False)
class Curve:
    """A coefficient along time; made by `Many.curves`."""

    table: pd.DataFrame
    """A row per time: `time estimate smooth se lower upper joint_lower joint_upper`; the pointwise
    band covers each time with the level, the joint band the whole curve.
    """
    covariance: np.ndarray = field(repr=False)
    "(times, times) of the smoothed curve."
    smoothing: float
    "The smoothing parameter; 0 without smoothing."
    quantile: float
    "Standard errors on either side of the joint band."

    def __repr__(self) -> str:
        return f"<Curve over {len(self.table)} times, joint band of {self.quantile:.2f} se>"


def curves(
    many: ManyFits,
    coefficient: Hypothesis,
    time: Any = None,
    *,
    smooth: str | float = "gcv",
    level: float = 0.95,
    band: str = "auto",
    by: str | None = None,
    seed: int | None = None,
) -> Curve:
    """A coefficient of models that follow each other in time, smoothed, with pointwise and joint
    bands.

    Parameters
    ----------
    coefficient
        A name, or a contrast of one row as in `test`.
    time
        A number for each model; by default its label.
    smooth
        "gcv": a cubic smoothing spline whose smoothing parameter minimises generalised
        cross-validation; "none"; or the smoothing parameter, in units of times at a mean distance
        of 1.
    level
        Of both bands. The pointwise one takes Student's t with one df less than there are subjects.
    band
        How the quantile of the joint band is found: "t", normal curves of the estimated covariance
        over a chi; "flip", sign flips of the subjects' influences, which hold their level with few
        subjects; "auto" flips below thirty.
    by
        The grouping factor whose levels are the independent subjects, as in `clusters`.
    seed
        Of the draws.

    Raises
    ------
    ValueError, TypeError
        For models of `by=`; times that are no numbers or occur twice; models that were not fitted.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> curve = many.curves("Days", time=[0, 1, 2, 3], seed=1)
    >>> curve.table[["time", "estimate", "joint_lower", "joint_upper"]].round(1)
       time  estimate  joint_lower  joint_upper
    0   0.0      10.9          6.7         15.2
    1   1.0       9.5          5.8         13.3
    2   2.0      10.2          6.5         13.9
    3   3.0       9.0          6.3         11.7
    """
    if not isinstance(many.work, Responses):
        raise ValueError("curves need models that share a design: use responses= in place of by=")
    check_level(level)
    one_of("band", band, BANDS)
    times = _times(many, time)
    order = np.argsort(times)
    contrast = contrast_of(many, coefficient)
    factor = subjects_of(many.work.design, contrast.x, by)
    estimate, influence = _influences(many, contrast, factor.codes)
    estimate, influence, times = estimate[order], influence[:, order], times[order]
    A, smoothing = _smoother(times, estimate, smooth)
    return _curve(times, estimate, A, influence, level, band, smoothing, seed)


def _times(many: ManyFits, time: Any) -> np.ndarray:
    times = numbers("time", many.labels if time is None else time)
    if times.shape != (len(many),):
        raise ValueError(
            f"time has the shape {times.shape}, but there are {len(many)} models: give a number "
            "for each"
        )
    if not np.isfinite(times).all() or len(np.unique(times)) < len(times):
        raise ValueError(
            "time must be finite numbers, each once: select the models of one channel first"
        )
    return times


def _influences(many: ManyFits, contrast, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The contrast (models,), and the influence (subjects, models) of each subject on it."""
    u = scores(many, many, contrast, codes)
    _, information = projections(many, many, contrast)
    estimate = t_tests(many, contrast.weights[None]).estimate[:, 0]
    influence = u / information
    lacking = ~np.isfinite(influence).all(0)
    if lacking.any():
        raise ValueError(
            f"{lacking.sum()} of {len(many)} models were not fitted: leave them out, or fill "
            "their times"
        )
    return estimate, influence


def _smoother(
    times: np.ndarray, curve: np.ndarray, smooth: str | float
) -> tuple[np.ndarray, float]:
    """A (times, times), and its smoothing parameter: the least generalised cross-validation
    score of a curve.
    """
    m = len(times)
    if smooth == "none" or m < FEWEST:
        return np.eye(m), 0.0
    x = (times - times[0]) / np.mean(np.diff(times))
    if smooth != "gcv":
        lam = float(numbers("smooth", smooth))
        return _spline(x, lam), lam
    candidates = [(_spline(x, lam), lam) for lam in GRID]
    return min(candidates, key=lambda pair: _gcv(pair[0], curve))


def _spline(x: np.ndarray, lam: float) -> np.ndarray:
    """What a natural cubic smoothing spline makes of unit curves."""
    return scipy.interpolate.make_smoothing_spline(x, np.eye(len(x)), lam=lam)(x)


def _gcv(A: np.ndarray, curve: np.ndarray) -> float:
    return float(np.mean((curve - A @ curve) ** 2) / (1.0 - np.trace(A) / len(curve)) ** 2)


def _curve(
    times: np.ndarray,
    estimate: np.ndarray,
    A: np.ndarray,
    influence: np.ndarray,
    level: float,
    band: str,
    smoothing: float,
    seed: int | None,
) -> Curve:
    S = len(influence)
    smoothed = influence @ A.T
    covariance = S / (S - 1.0) * smoothed.T @ smoothed
    se, f = np.sqrt(np.diag(covariance)), A @ estimate
    use_flips = band == "flip" or (band == "auto" and S < MANY_SUBJECTS)
    quantile = (_flip_quantile if use_flips else _t_quantile)(smoothed, se, level, seed)
    half = t_quantile(0.5 + level / 2.0, S - 1.0) * se
    columns = dict(time=times, estimate=estimate, smooth=f, se=se, lower=f - half, upper=f + half)
    columns |= dict(joint_lower=f - quantile * se, joint_upper=f + quantile * se)
    return Curve(pd.DataFrame(columns), covariance, smoothing, quantile)


def _t_quantile(influence: np.ndarray, se: np.ndarray, level: float, seed: int | None) -> float:
    """Of max |N(0, corr C~)| / sqrt(chi2(S - 1) / (S - 1)), by products with the influences of S
    subjects.
    """
    S, rng = len(influence), np.random.default_rng(seed)
    z = rng.standard_normal((DRAWS, S)) @ influence * np.sqrt(S / (S - 1.0)) / se
    chi = np.sqrt(rng.chisquare(S - 1.0, DRAWS) / (S - 1.0))
    return float(np.quantile(np.abs(z).max(1) / chi, level))


def _flip_quantile(influence: np.ndarray, se: np.ndarray, level: float, seed: int | None) -> float:
    """Of the largest studentised sum over flips of the influences."""
    flips, _ = signs(len(influence), DRAWS, seed)
    largest = [np.abs(t).max(1) for t in flip_statistics(influence, flips)]
    return float(np.quantile(np.concatenate(largest), level))
