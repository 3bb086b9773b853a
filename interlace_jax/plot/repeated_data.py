"""How responses of one subject vary and covary around their means, as observed and as the model
has it: tables for plots.

Both sides are of y - X beta, random effects and residuals together, so that they can be compared
whatever the model divides them into.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..design.residual_groups import ResidualGroups
from ..models.covariance import covariance
from ..models.simulation import new_responses
from ..result import Fit

LAGS = 12  # bins of distances, where there are more than these
DRAWS = 200  # data sets that the bands are made of
BAND = (2.5, 97.5)  # percentiles


class Standardised(NamedTuple):
    """Rows of subjects around their means, in SDs of the model."""

    observed: np.ndarray
    "(n,)"
    simulated: np.ndarray
    "(n, draws)"
    sd: np.ndarray
    "(n,) in units of the response."


def correlations_by_lag(fit: Fit, seed: int = 0) -> pd.DataFrame:
    """`group lag correlation model lower upper pairs`: the mean over all pairs of rows of a subject
    that are so far apart; lower and upper hold 95% of data simulated from the model.

    lag: the difference of numeric visits, else of their ranks; distances are the means of bins.
    """
    given = _subjects_of(fit)
    left, right, correlation = _pairs(fit)
    apart = _apart(given, left, right)
    z = _standardised(fit, seed)
    group = given.by_row.group[left]
    bins = _bins(apart)
    rows = []
    for key in np.unique(np.column_stack([group, bins]), axis=0):
        part = np.flatnonzero((group == key[0]) & (bins == key[1]))
        a, b = left[part], right[part]
        band = np.percentile(_correlation(z.simulated[a], z.simulated[b]), BAND)
        observed = float(_correlation(z.observed[a], z.observed[b]))
        label = given.groups[int(key[0])] if given.groups else ""
        rows.append((label, apart[part].mean(), observed, correlation[part].mean(), *band, len(a)))
    columns = ["group", "lag", "correlation", "model", "lower", "upper", "pairs"]
    return pd.DataFrame(rows, columns=columns)


def sds_by_visit(fit: Fit, seed: int = 0) -> pd.DataFrame:
    """`group visit sd model lower upper rows`: root mean squares of y - X beta; lower and upper
    hold 95% of data simulated from the model.
    """
    given = _subjects_of(fit)
    if not given.visits:
        raise ValueError(
            f"SDs by visit need visits, and residual '{given.residual}' has coordinates; "
            "plot.correlation_by_lag shows how correlations fade"
        )
    z = _standardised(fit, seed)
    cell = np.column_stack([given.by_row.group, given.by_row.order])
    rows = []
    for group, visit in np.unique(cell, axis=0):
        part = (cell == (group, visit)).all(1)
        sd = z.sd[part]
        observed, model = (np.sqrt(np.mean(a**2)) for a in (sd * z.observed[part], sd))
        drawn = np.sqrt(np.mean((sd[:, None] * z.simulated[part]) ** 2, 0))
        label = given.groups[group] if given.groups else ""
        band = np.percentile(drawn, BAND)
        rows.append((label, given.visits[visit], observed, model, *band, int(part.sum())))
    return pd.DataFrame(rows, columns=["group", "visit", "sd", "model", "lower", "upper", "rows"])


def _subjects_of(fit: Fit) -> ResidualGroups:
    given = fit.design.residual
    if given is None or given.residual is None:
        raise ValueError("this plot needs a fit with residual=, which says what a subject is")
    return given


def _standardised(fit: Fit, seed: int) -> Standardised:
    design, rng = fit.design, np.random.default_rng(seed)
    mean = design.X @ fit.estimate.beta + design.shift
    sd = fit.sigma * np.sqrt(_marginal_variances(fit))
    simulated = new_responses(fit, DRAWS, rng) - mean[:, None]
    return Standardised((design.y - mean) / sd, simulated / sd[:, None], sd)


def _marginal_variances(fit: Fit) -> np.ndarray:
    rows = np.arange(fit.nobs)[:, None]
    return covariance(fit, rows)[:, 0, 0]


def _pairs(fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rows of a subject, all pairs, and their correlation under the model."""
    subject = fit.design.residual.by_row.subject
    sizes, order = np.bincount(subject), np.argsort(subject, kind="stable")
    by_subject = np.split(order, np.cumsum(sizes)[:-1])
    parts = []
    for size in np.unique(sizes[sizes > 1]):
        rows = np.stack([by_subject[i] for i in np.flatnonzero(sizes == size)])
        V = covariance(fit, rows)
        sd = np.sqrt(np.einsum("brr->br", V))
        i, j = np.triu_indices(size, 1)
        of_pairs = rows[:, i], rows[:, j], V[:, i, j] / (sd[:, i] * sd[:, j])
        parts.append([a.ravel() for a in of_pairs])
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def _apart(given: ResidualGroups, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    by_row = given.by_row
    if by_row.coordinates is not None:
        points = given.unit * by_row.coordinates
        return np.sqrt(((points[left] - points[right]) ** 2).sum(1))
    times = np.asarray(given.visits)
    times = times.astype(float) if times.dtype.kind in "iuf" else np.arange(len(times), dtype=float)
    at = times[by_row.order]
    return np.abs(at[left] - at[right])


def _bins(apart: np.ndarray) -> np.ndarray:
    """Of every distance which of few classes it is in."""
    different, codes = np.unique(np.round(apart, 10), return_inverse=True)
    if len(different) <= LAGS + 3:
        return codes
    edges = np.quantile(apart, np.linspace(0.0, 1.0, LAGS + 1)[1:-1])
    return np.searchsorted(edges, apart)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of standardised values, whose means are known to be 0."""
    return np.sum(a * b, 0) / np.sqrt(np.sum(a**2, 0) * np.sum(b**2, 0))
