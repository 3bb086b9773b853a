"""Separation: coefficients that run off to infinity because the predictors tell the outcomes
apart without error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..design.design import Design
from ..numerics.families.family import Ordinal
from ..support.arguments import listed
from ..support.later import Later

scipy_linalg, optimize = Later("scipy.linalg"), Later("scipy.optimize")

# information along a coefficient, relative to that of rows of one mean, below which it is looked at
SUSPECT = 1e-6
PART = 1e-3  # of the largest entry of a direction, below which a column has no part in it


@dataclass(frozen=True, eq=False)
class Separation:
    """A direction of coefficients in which the likelihood rises for ever."""

    columns: tuple[str, ...]
    "Columns of the fixed part with a share in it."
    direction: np.ndarray
    "(p,)"
    rows: np.ndarray
    "(n,) bool: rows whose outcome it tells for certain."
    message: str


class Information(NamedTuple):
    """Of rows (n,), as an estimate has it: at the fit, and where all have one mean."""

    W: np.ndarray
    W0: np.ndarray


def rows_of(design: Design, y: np.ndarray, used: np.ndarray) -> Design:
    """The design of a response y (n,) in the rows used, as far as separation asks."""
    seen = design.observed
    trials = None if seen.trials is None else seen.trials[used]
    own = dict(y=y[used], X=design.X[used], weights=None)
    return replace(design, **own, observed=replace(seen, trials=trials))


def are_suspect(design: Design, W: np.ndarray, W0: np.ndarray) -> np.ndarray:
    """Of many responses (r,) whether `separation` must be asked; W, W0 (r, n) as in estimates."""
    family, X = design.observed.family, design.X
    p = X.shape[1]
    if p == 0 or not (family.is_count or isinstance(family, Ordinal)):
        return np.zeros(len(W), bool)
    products = (X[:, :, None] * X[:, None]).reshape(len(X), p * p) / np.mean(X**2)
    sound = np.isfinite(W).all(axis=1) & np.isfinite(W0).all(axis=1)
    now, plain = (
        (np.where(sound[:, None], np.maximum(w, 0.0), 1.0) @ products).reshape(len(W), p, p)
        for w in (W, W0)
    )
    size = np.sqrt(np.einsum("rpp->rp", plain))
    size = np.where(size > 0.0, size, 1.0)
    plain, now = (S / (size[:, :, None] * size[:, None]) for S in (plain, now))
    values, vectors = np.linalg.eigh(plain)
    if (values[:, 0] < SUSPECT).any():  # nearly collinear columns: one by one
        return sound
    root = vectors / np.sqrt(values)[:, None]
    return sound & (np.linalg.eigvalsh(root.mT @ now @ root)[:, 0] < SUSPECT)


def separation(design: Design, e: Any) -> Separation | None:
    """Whether the estimate e of a model with counts or categories has coefficients without a finite
    value.

    The information X'WX at the estimate, relative to what it would be in rows of one mean, vanishes
    in such a direction. Linear programming then decides exactly (Konis 2007, DPhil thesis, Oxford),
    but for ordinal responses.
    """
    used = design.w > 0.0
    if not used.all():
        return separation(rows_of(design, design.y, used), Information(e.W[used], e.W0[used]))
    family, X = design.observed.family, design.X
    is_discrete = family.is_count or isinstance(family, Ordinal)
    if not is_discrete or X.shape[1] == 0 or not np.isfinite(e.W).all():
        return None
    size = np.sqrt(np.mean(X**2, axis=0))
    Xs = X / size
    now, plain = (Xs.T @ (np.maximum(w, 0.0)[:, None] * Xs) for w in (e.W, e.W0))
    try:
        values, vectors = scipy_linalg.eigh(now, plain)
    except np.linalg.LinAlgError:
        return None
    if values[0] > SUSPECT:
        return None
    direction = vectors[:, 0]
    if not isinstance(family, Ordinal):
        direction = _recession(
            Xs, design.y, design.observed.m * np.ones(len(Xs)), family.has_trials
        )
        if direction is None:
            return None
    direction = direction / size
    reach = np.abs(direction) * size
    columns = tuple(
        name for name, r in zip(design.columns, reach, strict=True) if r > PART * reach.max()
    )
    rows = np.abs(X @ direction) > 1e-6 * np.abs(X @ direction).max()
    return Separation(columns, direction, rows, _message(design, columns, direction, rows))


def _recession(X, y, m, has_trials):
    """A direction in which no row's likelihood falls and some row's rises; None if there is none.

    max sum_i s_i x_i'd over -1 <= d <= 1 with s_i x_i'd >= 0, s_i = 1 where all trials succeeded
    and -1 where none did (a count of 0 is such a row); rows with both outcomes, and counts above 0,
    must not move.
    """
    sign = np.where(y <= 0, -1.0, np.where(has_trials & (y >= m), 1.0, 0.0))
    loose, tight = X * sign[:, None], X[sign == 0]
    loose = loose[sign != 0]
    if len(loose) == 0:
        return None
    equal = {} if len(tight) == 0 else dict(A_eq=tight, b_eq=np.zeros(len(tight)))
    found = optimize.linprog(
        -loose.sum(axis=0),
        A_ub=-loose,
        b_ub=np.zeros(len(loose)),
        bounds=(-1, 1),
        method="highs",
        **equal,
    )
    return found.x if found.status == 0 and -found.fun > 1e-7 * len(loose) else None


def _message(design, columns, direction, rows):
    others = [name for name in columns if name != "Intercept"] or list(columns)
    verb, its = (
        ("separates", "Its estimate has")
        if len(others) == 1
        else ("separate", "Their estimates have")
    )
    error = "its standard error means" if len(others) == 1 else "their standard errors mean"
    return (
        f"{listed(others)} {verb} the outcomes{_where(design, others, rows)}. {its} no finite "
        f"maximum and {error} nothing; the likelihood and the other coefficients stand. Leave the "
        "column out, join categories, or say what is known about it"
    )


def _where(design, others, rows):
    """The rows of a separating 0/1 column in words, where it is one."""
    if len(others) == 1 and others[0] in design.columns:
        x = design.X[:, design.columns.index(others[0])]
        if set(np.unique(x)) <= {0.0, 1.0}:
            for value in (1.0, 0.0):
                there = x == value
                shares = (design.y / design.observed.m)[there]
                if there.any() and np.ptp(shares) == 0 and shares[0] in (0.0, 1.0):
                    outcome = _outcome(design, shares[0])
                    return f": all {there.sum()} rows with {others[0]} = {value:g} are {outcome}"
    return f": they tell the outcome of {rows.sum()} of {len(rows)} rows for certain"


def _outcome(design, share):
    labels = design.observed.labels
    return repr(labels[int(share)]) if len(labels) == 2 else f"{share:g}"
