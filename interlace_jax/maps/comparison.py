"""Likelihood-ratio tests of two formulas in every model, at the boundary of the parameter space
too.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from ..design.design import Design
from ..inference.likelihood_ratio import REFITTED, _boundary_pvalue, anova
from ..many.chunks import theta_names_of
from ..many.designs import Designs
from ..many.fits import ManyFits, with_labels
from ..support.later import special

NOISE = 1e-6  # deviance units by which the larger model may end above the smaller one
STEP = 0.1  # theta of what the smaller model does not have, from where it is tried again


def compare(many: ManyFits, other: ManyFits, refit: bool = True) -> pd.DataFrame:
    """Likelihood-ratio tests between two nested formulas, model by model.

    other: fits of the same responses or groups by another formula, in any order of size.
    refit: refit REML fits by ML where the fixed parts differ, and say so in a warning. False
        compares the fits as they are.

    Returns a row for each model: its label, `Chisq Df Pr(>Chisq)`, and `Pr(>Chisq) boundary`: where
    one variance and its k covariances are tested, that of the 50:50 mixture of chi-square(k) and
    chi-square(k + 1) (Stram & Lee 1994, Biometrics 50); missing for other comparisons of variances,
    the naive p-value where no variance is tested. Missing throughout where one of the two could not
    be fitted, or the two have different rows.

    Raises ValueError for fits that have different labels, or whose formulas are not nested.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> less = interlace_jax.fit_many("~ Days + (1 | Subject)", sleep, responses=responses)
    >>> many.compare(less).round(4)
      model    Chisq   Df  Pr(>Chisq)  Pr(>Chisq) boundary
    0    y0  52.3331  2.0      0.0000               0.0000
    1    y1  32.3322  2.0      0.0000               0.0000
    2    y2  25.5061  2.0      0.0000               0.0000
    3    y3   9.3657  2.0      0.0093               0.0057
    """
    if not isinstance(other, ManyFits):
        raise TypeError(f"compare takes the result of another fit_many, not {type(other).__name__}")
    if not many.labels.equals(other.labels):
        raise ValueError(
            "the two results have different models: fit both formulas to the same responses or "
            "groups"
        )
    if many.method != other.method:
        raise ValueError(
            "one result is by ML and the other by REML, which do not compare: use one method for "
            "both"
        )
    small, large = sorted((many, other), key=_parameter_count)
    if many.method == "REML" and refit and not _have_one_fixed_part(small, large):
        warnings.warn(REFITTED, stacklevel=2)
        small, large = small.by("ML"), large.by("ML")
    return _tested(small, large)


def _parameter_count(many: ManyFits) -> int:
    return max(len(design.columns) + len(theta_names_of(design)) for _, design in many.work.named)


def _have_one_fixed_part(a: ManyFits, b: ManyFits) -> bool:
    pairs = zip(_designs(a), _designs(b), strict=True)
    both = [(x, y) for x, y in pairs if x is not None and y is not None]
    return all(x.X.shape == y.X.shape and np.allclose(x.X, y.X) for x, y in both)


def _designs(many: ManyFits) -> list[Design | None]:
    return many.work.designs if isinstance(many.work, Designs) else [many.work.design]


def _tested(small: ManyFits, large: ManyFits) -> pd.DataFrame:
    a, b = small.llf.to_numpy(), large.llf.to_numpy()
    comparable = np.isfinite(a) & np.isfinite(b) & (small.nobs.to_numpy() == large.nobs.to_numpy())
    if not comparable.any():
        raise ValueError("no model was fitted to the same rows by both formulas")
    statistic = np.where(comparable, 2.0 * (b - a), np.nan)
    for place in np.flatnonzero(statistic < -NOISE):
        statistic[place] = _again(small, large, place)
    statistic = np.maximum(statistic, 0.0)
    return _table(small, large, statistic, np.flatnonzero(comparable))


def _again(small: ManyFits, large: ManyFits, place: int) -> float:
    """The statistic of a model whose larger fit ended above the smaller one: it is searched from
    there.
    """
    first, second = small[small.labels[place]], large[large.labels[place]]
    known = dict(zip(theta_names_of(first.design), first.theta, strict=True))
    start = [known.get(name, STEP) for name in theta_names_of(second.design)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        other = type(second).of(second.model, second.method, "normal", start)
    return first.deviance - min(second.deviance, other.deviance)


def _table(
    small: ManyFits, large: ManyFits, statistic: np.ndarray, comparable: np.ndarray
) -> pd.DataFrame:
    """One row a model. Whether the two are nested and what is tested depends on their designs only.

    With groups every one has designs of its own; those with the same names share the answer.
    """
    columns = {
        name: np.full(len(small), np.nan)
        for name in ("Chisq", "Df", "Pr(>Chisq)", "Pr(>Chisq) boundary")
    }
    for places in _alike(small, large, comparable):
        label = small.labels[places[0]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            first, second = small[label], large[label]
            df = anova(first, second, refit=False)["Df"].iloc[-1]
        naive = special.chdtrc(df, statistic[places]) if df else np.full(len(places), np.nan)
        pairs = zip(statistic[places], naive, strict=True)
        columns["Chisq"][places], columns["Df"][places], columns["Pr(>Chisq)"][places] = (
            statistic[places],
            df,
            naive,
        )
        columns["Pr(>Chisq) boundary"][places] = [
            _boundary_pvalue(first, second, x, p) for x, p in pairs
        ]
    return with_labels(pd.DataFrame(columns), small.labels)


def _alike(small: ManyFits, large: ManyFits, comparable: np.ndarray) -> list[np.ndarray]:
    """Comparable models whose parameters have the same names in both fits."""
    found = [np.intersect1d(a, b) for a, _ in small.work.named for b, _ in large.work.named]
    found = [np.intersect1d(places, comparable) for places in found]
    return [places for places in found if len(places)]
