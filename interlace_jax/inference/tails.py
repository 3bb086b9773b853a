"""P-values and quantiles of t, F, chi-square and normal distributions.

The first few of a process are computed here, since SciPy's functions take longer to import than a
fit takes; then SciPy's, which are quicker.
"""

from __future__ import annotations

import math
import sys
from statistics import NormalDist
from typing import Any

import numpy as np

from ..support.later import special

FEW = 200  # numbers that take less time here than SciPy takes to be imported
LARGEST = 1e15  # degrees of freedom from which on a distribution is that of infinitely many
FARTHEST = 600.0  # e to this is still a number
CLOSE = 1e-13  # a step of a search, relative to the result, after which the next would be rounding
STEPS = 100  # that no search comes near

_asked = [0]

# Takahasi & Mori (1974, Publ. RIMS 9): integrals from 0 to infinity at exp(pi/2 sinh v), v equally
# spaced; from -3.9 to 3.5 the rest is rounding for integrands of about unit width
_STEP = 1.0 / 32.0
_PLACES = np.arange(-3.9, 3.5, _STEP)
NODES = np.exp(0.5 * np.pi * np.sinh(_PLACES))
WEIGHTS = _STEP * 0.5 * np.pi * np.cosh(_PLACES) * NODES


def t_pvalue(t: Any, df: Any) -> np.ndarray:
    """Two-sided p-value of t statistics; normal where df is infinite."""
    t, infinite = -np.abs(t), np.isinf(df)
    if np.size(t) <= FEW and np.asarray(infinite).all():
        return _normal_tails(np.asarray(t, float))
    if _are_few(t):
        return f_tail(np.square(t), 1.0, df)
    return 2.0 * np.where(infinite, special.ndtr(t), special.stdtr(np.where(infinite, 1.0, df), t))


def t_quantile(probability: float, df: Any) -> np.ndarray:
    """Quantile of Student's t; normal where df is infinite."""
    infinite = np.isinf(df)
    if np.asarray(infinite).all():
        return np.full(np.shape(df), normal_quantile(probability))
    if _are_few(df):
        tails = 2.0 * min(probability, 1.0 - probability)
        return math.copysign(1.0, probability - 0.5) * np.sqrt(f_quantile(tails, 1.0, df))
    finite = special.stdtrit(np.where(infinite, 1.0, df), probability)
    return np.where(infinite, special.ndtri(probability), finite)


def f_pvalue(F: float, q: float, df: float) -> float:
    """Upper tail of F(q, df); of chi-square(q) / q where df is infinite."""
    if _are_few(F):
        return float(f_tail(F, q, df))
    return float(special.chdtrc(q, q * F) if np.isinf(df) else special.fdtrc(q, df, F))


def chi2_pvalue(statistic: float, df: float) -> float:
    """Upper tail of chi-square(df)."""
    return f_pvalue(statistic / df, df, np.inf)


def normal_quantile(probability: float) -> float:
    """Quantile of the normal distribution."""
    return NormalDist().inv_cdf(probability)


def _are_few(values: Any) -> bool:
    """Whether SciPy is not there, and not worth its import for these and those before."""
    if "scipy.special" in sys.modules:
        return False
    _asked[0] += np.size(values)
    return _asked[0] <= FEW


def _normal_tails(z: np.ndarray) -> np.ndarray:
    """Twice the normal distribution function of numbers below 0."""
    values = [math.erfc(-v * math.sqrt(0.5)) for v in z.ravel()]
    return np.array(values, float).reshape(z.shape)


def f_tail(F: Any, q: Any, df: Any) -> np.ndarray:
    """Upper tail of F(q, df), to 1e-12 of itself; of chi-square(q) / q where df is infinite.

    The logarithm y of F has the density exp(b y - (a + b) log(1 + c (e^y - 1))) times a constant,
    where a = df/2, b = q/2 and c = b / (a + b); its only mode is y = 0. An integral from the mode
    both ways gives the constant, one from y outward the smaller tail. (For df < 1 and q > 10 the
    density has two scales, and what is right is 1e-8.)
    """
    F, q, df = np.broadcast_arrays(np.asarray(F, float), q, df)
    with np.errstate(all="ignore"):
        b, a = 0.5 * q, _halved(df)
        log_tail, _ = _log_tail(np.log(F), b, a, _whole(b, a))
        tail = np.where(F == 0.0, 1.0, np.where(np.isinf(F), 0.0, np.exp(log_tail)))
    return np.where(np.isnan(F) | np.isnan(df), np.nan, tail)


def f_quantile(p: Any, q: Any, df: Any) -> np.ndarray:
    """The F of which p is the upper tail of F(q, df).

    By Newton's steps for the logarithm of the tail, a concave function of log F.
    """
    p, q, df = np.broadcast_arrays(np.asarray(p, float), q, df)
    y = np.zeros(p.shape)
    with np.errstate(all="ignore"):
        b, a = 0.5 * q, _halved(df)
        whole = _whole(b, a)
        for _ in range(STEPS):
            log_tail, slope = _log_tail(y, b, a, whole)
            step = (np.log(p) - log_tail) / slope
            step = np.where(np.isnan(step), 0.0, step)  # where F is no number any more
            y = y + step
            if (np.abs(step) <= CLOSE * (1.0 + np.abs(y))).all():
                break
        return np.where(np.isnan(df), np.nan, np.exp(y))


def _halved(df):
    return np.where(df < LARGEST, 0.5 * df, np.inf)


def _whole(b, a):
    """The integral of the density of log F, relative to the density at its mode."""
    return _outward(1.0, b, a, 1.0) + _outward(1.0, b, a, -1.0)


def _log_tail(y, b, a, whole):
    """Logarithm of the upper tail at y = log F, and its derivative."""
    F, above = np.exp(y), y >= 0.0
    outward = _outward(F, b, a, np.where(above, 1.0, -1.0))
    log_density = b * y - _growth(np.expm1(y), 1.0, b, a) - np.log(whole)
    density = np.exp(log_density)
    below = 1.0 - density * outward
    log_tail = np.where(above, log_density + np.log(outward), np.log(below))
    return log_tail, np.where(above, -1.0 / outward, -density / below)


def _growth(rise, F, b, a):
    """(a + b) log((a + b F (1 + rise)) / (a + b F)), and b F rise where a is infinite."""
    finite = np.where(np.isinf(a), 1.0, a)
    share = b * F / (finite + b * F)
    return np.where(np.isinf(a), b * F * rise, (finite + b) * np.log1p(share * rise))


def _outward(F, b, a, side):
    """The integral of the density of y = log F from F outward, up or down by `side`, relative to
    the density at F.
    """
    finite = np.where(np.isinf(a), 1.0, a)
    share = b * F / (finite + b * F)
    slope = np.where(np.isinf(a), b * (1.0 - F), b - (finite + b) * share)
    curvature = np.where(np.isinf(a), b * F, (finite + b) * share * (1.0 - share))
    width = 2.0 / (np.abs(slope) + np.sqrt(slope**2 + 2.0 * curvature))  # to 1/e, about
    F, b, a, side, finite = (np.asarray(v)[..., None] for v in (F, b, a, side, finite))
    s = width[..., None] * NODES
    near = np.minimum(s, FARTHEST)
    beyond = np.where(side > 0.0, (finite + b) * (s - near), 0.0)
    exponent = side * b * s - _growth(np.expm1(side * near), F, b, a) - beyond
    return width * (np.exp(exponent) @ WEIGHTS)
