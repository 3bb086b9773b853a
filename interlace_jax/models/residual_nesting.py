"""Which residual covariances are special cases of which."""

from __future__ import annotations

import numpy as np

from ..design.residual_groups import ResidualGroups
from ..numerics.covariance.correlations import ARMA11, Antedependence, FreeCorrelations, Toeplitz
from ..numerics.covariance.structures import AR1, CompoundSymmetry, Structure

WIDER: dict[type, tuple[type, ...]] = {
    type(None): (CompoundSymmetry, AR1, ARMA11, Toeplitz, Antedependence, FreeCorrelations),
    CompoundSymmetry: (Toeplitz, FreeCorrelations),
    AR1: (ARMA11, Toeplitz, Antedependence, FreeCorrelations),
    ARMA11: (Toeplitz, FreeCorrelations),
    Toeplitz: (FreeCorrelations,),
    Antedependence: (FreeCorrelations,),
    FreeCorrelations: (),
}
"By structure those that contain it, over the same visits."


def allows(larger: ResidualGroups | None, smaller: ResidualGroups | None) -> bool:
    """Whether every residual covariance of one model is known to be one of the other too, in the
    same rows.
    """
    if smaller is None:
        return True
    if larger is None:
        return False
    return _allows_correlations(larger, smaller) and _allows_sds(larger, smaller)


def _allows_correlations(larger: ResidualGroups, smaller: ResidualGroups) -> bool:
    mine, theirs = larger.covariance.within, smaller.covariance.within
    if theirs is None:
        return True
    a, b = larger.residual, smaller.residual
    if a is None or (a.time, a.subject) != (b.time, b.subject) or (b.by and a.by != b.by):
        return False
    return (
        mine == theirs
        or _shape(mine) == _shape(theirs)
        or type(mine) in WIDER.get(type(theirs), ())
    )


def _shape(within: Structure | None) -> tuple:
    """A structure but for whether every visit has its own SD."""
    return type(within), getattr(within, "nugget", None), getattr(within, "nu", None)


def _allows_sds(larger: ResidualGroups, smaller: ResidualGroups) -> bool:
    """Whether the log SDs of the rows of one model, whatever they are, are possible in the
    other.
    """
    mine, theirs = _directions(larger), _directions(smaller)
    fitted = mine @ np.linalg.lstsq(mine, theirs, rcond=None)[0]
    return bool(np.allclose(theirs, fitted, atol=1e-8 * np.abs(theirs).max(initial=1.0)))


def _directions(given: ResidualGroups) -> np.ndarray:
    """Columns (n, ...) whose combinations are the log SDs of the rows."""
    rows, patterns, covariance = given.rows, given.rows.patterns, given.covariance
    at = rows.slot, rows.pattern[rows.subject]
    cell = patterns.group[at[1]] * covariance.visits + patterns.visit[at]
    by_cell = np.eye(covariance.groups * covariance.visits)[cell]
    return np.column_stack([by_cell, *(covariate[at] for covariate in patterns.slopes)])
