"""Tests over a map of models with family-wise error controlled: cluster mass, TFCE, or the
largest statistic.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.grouping import Factor
from ..inference.contrasts import Hypothesis, check_rows, contrast_matrix
from ..inference.tails import t_quantile
from ..many.fits import ManyFits, with_labels
from ..many.responses import Responses
from ..support.arguments import check_level, listed, one_of, whole_number
from .contrasts import t_tests
from .enhancement import components, masses, signed, tfce
from .flips import flip_statistics, normal_scores, signs
from .neighbours import Edges, edges_of
from .scores import Contrast, null_fits, scores

STATISTICS = ("tfce", "mass", "max")
TAILS = (0, 1, -1)
TIES = 1e-9  # relative difference of statistics that rounding may make
ENTRY = 0.01  # two-sided p-value that the threshold of clusters stands for by default
IN_SPAN = 1e-7  # relative residual below which a column is a combination of others


@dataclass(frozen=True, eq=False)
class ClusterTest:
    """A map of statistics with p-values that hold for the whole map; made by `Many.clusters`.

    The p-value of a cluster is about the cluster as a whole: not about its edges, its latency or
    one of its models (Sassenhagen & Draschkow 2019, Psychophysiology 56).
    """

    table: pd.DataFrame
    """A row per cluster: `sign size mass peak`, `peak_at` (the label of its model) and `p`.

    Clusters are connected models beyond the threshold, or (statistic "tfce" or "max") those whose p
    is at most `alpha`.
    """
    nodes: pd.DataFrame = field(repr=False)
    """A row per model: `t` of the flips, `enhanced`, `p` (adjusted over all models) and
    `cluster` (its row in `table`).
    """
    null: np.ndarray = field(repr=False)
    "(flips,) largest enhanced statistic of each, the first of the data as they are."
    agreement: dict[str, float]
    """Correlation, and largest difference, of the statistics of the flips and those of the full
    fits.
    """

    def __repr__(self) -> str:
        found = int((self.table["p"] <= 0.05).sum())
        return (
            f"<{len(self.table)} clusters among {len(self.nodes)} models, {found} at p <= 0.05; "
            f"{len(self.null)} flips>"
        )


def clusters(
    many: ManyFits,
    contrast: Hypothesis,
    adjacency: Any = None,
    statistic: str = "tfce",
    *,
    threshold: float | None = None,
    n: int = 1000,
    tail: int = 0,
    by: str | None = None,
    alpha: float = 0.05,
    seed: int | None = None,
) -> ClusterTest:
    """Test a contrast over a map of models, with the family-wise error controlled by sign flips of
    subjects' scores.

    The models are fitted once without the contrast; the contribution of every subject to its score
    is then flipped in sign, the same way in all models, so that the correlation between them stays.
    The statistic of a flip is the one-sample t of the contributions. It is valid for independent
    subjects whose contributions are symmetric about 0 without an effect, and approximately for many
    subjects whatever their distribution; random slopes, missing values and weights of each model
    are accounted for. Satterthwaite's test of one model (`test`) has its degrees of freedom from
    the estimated variances and assumes normal effects; flips assume symmetry alone, and control the
    error of the whole map.

    Parameters
    ----------
    contrast
        As in `test`, one row: `"condition[T.b]"`, `"a = b"`.
    adjacency
        Which models are neighbours: a symmetric sparse or dense matrix (models, models), as
        `neighbours.product`, `neighbours.grid` and `neighbours.mesh` make. Not needed for "max".
    statistic
        "tfce": threshold-free cluster enhancement, exact; "mass": sum of t over clusters beyond a
        threshold; "max": the largest t.
    threshold
        Of t, for "mass": by default that of p = 0.01, two-sided.
    n
        Flips. If there are no more than n + 1 different ones, all of them are taken.
    tail
        0 for both signs, 1 for positive, -1 for negative effects.
    by
        The grouping factor whose levels are the independent subjects: by default the one with the
        fewest levels, among those with random slopes of the contrast if there are any.
    alpha
        Level at which models make clusters in the table of "tfce" and "max".
    seed
        Anything `numpy.random.default_rng` takes; the same seed gives the same flips.

    Raises
    ------
    ValueError
        For models of `by=`; several rows or a right-hand side in the contrast; subjects that covary
        (`cov=`).

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.clusters("Days", statistic="max", n=199, seed=1).nodes.round(3)
      model      t  enhanced      p  cluster
    0    y0  7.132     7.132  0.005        0
    1    y1  7.003     7.003  0.005        1
    2    y2  7.581     7.581  0.005        2
    3    y3  9.211     9.211  0.005        3
    """
    if not isinstance(many.work, Responses):
        raise ValueError("clusters need models that share a design: use responses= in place of by=")
    one_of("statistic", statistic, STATISTICS)
    one_of("tail", tail, TAILS)
    whole_number("n", n, 1)
    check_level(alpha, "alpha")
    tested = contrast_of(many, contrast)
    factor = subjects_of(many.work.design, tested.x, by)
    null = null_fits(many, tested)
    u = scores(many, null, tested, factor.codes)
    is_known = np.isfinite(u).all(0) & (np.abs(u).max(0, initial=0.0) > 0.0)
    if not is_known.any():
        raise ValueError("no model was fitted without the contrast: there is nothing to flip")
    edges = _edges(many, adjacency, statistic).between(is_known)
    flips, _ = signs(len(u), n, seed)
    _check_count(2.0 ** len(u), alpha)
    enhance = _enhancement(statistic, edges, tail, threshold, len(u))
    return _tested_map(
        many,
        tested,
        u,
        is_known,
        flips,
        edges,
        enhance,
        _Reporting(statistic, threshold, tail, alpha),
    )


def contrast_of(many: ManyFits, contrast: Hypothesis) -> Contrast:
    """The one contrast of a map, split from what else is in the fixed part."""
    L, rhs, labels = contrast_matrix(contrast, many.coefficients)
    check_rows(L, rhs, labels, False)
    if len(L) != 1:
        raise ValueError(
            f"a map has one contrast, but {contrast!r} has {len(L)} rows: test them one by one"
        )
    if rhs[0] != 0.0:
        raise ValueError(
            f"flips test that a contrast is 0, not {rhs[0]:g}: subtract that effect from the "
            "responses"
        )
    return Contrast.of(many.work.design, L[0])


def subjects_of(design: Design, x: np.ndarray, by: str | None) -> Factor:
    """The grouping factor whose levels are flipped."""
    tied = [f.name for f in design.factors if f.across is not None]
    if tied:
        raise ValueError(
            f"flips need subjects that are independent of each other, but the levels of {tied[0]} "
            "covary"
        )
    if by is not None:
        named = {f.name: f for f in design.factors}
        one_of("by", by, named)
        return named[by]
    sloped = [f for f in design.factors if len(f.columns) > 1 and _is_in_span(x, f.Z)]
    if len(sloped) > 1:
        warnings.warn(
            f"the contrast has random slopes by {listed(f.name for f in sloped)}: flips of the "
            "levels of one of them take the effects of the others for fixed; say which by by=, "
            "and check with a parametric bootstrap",
            stacklevel=3,
        )
    return min(sloped or design.factors, key=lambda f: len(f.levels))


def _is_in_span(x: np.ndarray, Z: np.ndarray) -> bool:
    left = x - Z @ np.linalg.lstsq(Z, x, rcond=None)[0]
    return bool(np.linalg.norm(left) <= IN_SPAN * np.linalg.norm(x))


def _check_count(count: float, alpha: float) -> None:
    """Say so where even the strongest effect hardly has a p-value below alpha: none is below 2 /
    count, two-sided.
    """
    if 2.0 / count > alpha / 5.0:
        warnings.warn(
            f"there are {count:.0f} different flips only, so that no p-value is below "
            f"{2.0 / count:.2g}: few subjects",
            stacklevel=3,
        )


def _edges(many: ManyFits, adjacency: Any, statistic: str) -> Edges:
    if adjacency is not None:
        return edges_of(adjacency, len(many))
    if statistic != "max":
        raise ValueError(
            f'statistic={statistic!r} needs adjacency=, which models are neighbours; "max" does '
            "without"
        )
    none = np.zeros(0, np.intp)
    return Edges(len(many), none, none)


def _enhancement(
    statistic: str, edges: Edges, tail: int, threshold: float | None, subjects: int
) -> Callable[[np.ndarray], np.ndarray]:
    """What is made of a map (models,) of statistics."""
    if statistic == "max":
        return functools.partial(signed, lambda v: v, tail=tail)
    if statistic == "tfce":
        return functools.partial(signed, lambda v: tfce(v, edges), tail=tail)
    height = _threshold(threshold, subjects)
    return functools.partial(signed, lambda v: masses(v, edges, height), tail=tail)


def _threshold(threshold: float | None, subjects: int) -> float:
    if threshold is None:
        return float(t_quantile(1.0 - ENTRY / 2.0, subjects - 1.0))
    if not threshold > 0.0:
        raise ValueError(
            f"threshold must be positive, not {threshold!r}: tail= says which sign counts"
        )
    return float(threshold)


@dataclass(frozen=True)
class _Reporting:
    """What the tables of a result are made by."""

    statistic: str
    threshold: float | None
    tail: int
    alpha: float


def _tested_map(
    many: ManyFits,
    tested: Contrast,
    u: np.ndarray,
    is_known: np.ndarray,
    flips: np.ndarray,
    edges: Edges,
    enhance: Callable[[np.ndarray], np.ndarray],
    how: _Reporting,
) -> ClusterTest:
    """Statistics of the data and of all flips, and the shares of flips that reach those of the
    data.
    """
    maps = np.zeros(len(many))
    largest, observed, enhanced = [], None, None
    for batch in flip_statistics(u[:, is_known], flips):
        for t in batch:
            maps[is_known] = t
            found = enhance(maps)
            if observed is None:
                observed, enhanced = maps.copy(), found
            largest.append(np.abs(found).max())
    null = np.array(largest)
    reached = null[None] >= np.abs(enhanced)[:, None] * (1.0 - TIES)
    p = np.where(enhanced != 0.0, reached.mean(1), 1.0)
    p[~is_known] = np.nan
    t = np.where(is_known, observed, np.nan)
    label = _labels_of_clusters(observed, p, edges, how, len(u))
    nodes = pd.DataFrame(
        dict(t=t, enhanced=np.where(is_known, enhanced, np.nan), p=p, cluster=label)
    )
    table = _table(many, nodes)
    agreement = _agreement(many, tested, t, len(u))
    return ClusterTest(table, with_labels(nodes, many.labels), null, agreement)


def _labels_of_clusters(
    t: np.ndarray, p: np.ndarray, edges: Edges, how: _Reporting, subjects: int
) -> np.ndarray:
    """The cluster of every model, -1 for none; signs apart."""
    if how.statistic == "mass":
        inside = np.abs(t) > _threshold(how.threshold, subjects)
    else:
        inside = np.nan_to_num(p, nan=1.0) <= how.alpha
    positive, negative = (components(inside & (sign * t > 0.0), edges) for sign in (1, -1))
    positive = positive if how.tail >= 0 else np.full_like(positive, -1)
    negative = negative if how.tail <= 0 else np.full_like(negative, -1)
    return np.where(negative >= 0, negative + positive.max(initial=-1) + 1, positive)


def _table(many: ManyFits, nodes: pd.DataFrame) -> pd.DataFrame:
    """A row per cluster, in the order of their numbers."""
    rows = []
    for _, members in nodes[nodes["cluster"] >= 0].groupby("cluster"):
        peak = members["t"].abs().idxmax()
        sign = int(np.sign(members["t"][peak]))
        row = dict(sign=sign, size=len(members), mass=members["t"].sum(), peak=members["t"][peak])
        rows.append(row | dict(peak_at=many.labels[peak], p=members["p"].min()))
    return pd.DataFrame(rows, columns=["sign", "size", "mass", "peak", "peak_at", "p"])


def _agreement(many: ManyFits, tested: Contrast, t: np.ndarray, subjects: int) -> dict[str, float]:
    """How close the statistics of the flips are to those of full fits, on the normal scale."""
    full = t_tests(many, tested.weights[None])
    ours = normal_scores(t, np.full(len(t), subjects - 1.0))
    theirs = normal_scores(full.t[:, 0], full.df[:, 0])
    both = np.isfinite(ours) & np.isfinite(theirs)
    if both.sum() < 2:
        return dict(correlation=np.nan, largest_difference=np.nan)
    correlation = np.corrcoef(ours[both], theirs[both])[0, 1]
    return dict(
        correlation=float(correlation), largest_difference=float(np.abs(ours - theirs)[both].max())
    )
