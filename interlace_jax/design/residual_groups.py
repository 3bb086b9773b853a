"""`residual=` and `dispersion=` in the rows used: subjects, visits, groups and covariates as
integers and arrays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..numerics.covariance.residual import ResidualCovariance
from ..numerics.covariance.structures import Correlated
from ..numerics.crossproducts.row_layout import RowLayout, row_layout
from ..support.arguments import listed
from .determinacy import independent_columns
from .formula import Formula
from .frames import get_column
from .residual_formula import Power, Residual

MOST_VISITS = 30  # of an unstructured covariance
WHOLE = 1e-6  # times may be off a multiple of their least gap by this part of it


class SubjectRows(NamedTuple):
    """Rows of subjects, one entry a row: what tells the covariance of any two rows of a subject."""

    subject: np.ndarray
    "Code among the subjects of the fit; of subjects that it has not seen beyond those."
    group: np.ndarray
    order: np.ndarray
    "In which the rows of a subject follow each other."
    position: np.ndarray
    visit: np.ndarray
    coordinates: np.ndarray | None
    slopes: np.ndarray

    def layout(self) -> RowLayout:
        """The subjects and their patterns; subjects coded 0, 1, ... in their order."""
        labels, first, subject = np.unique(self.subject, return_index=True, return_inverse=True)
        group = self.group[first]
        return row_layout(
            subject, self.order, group, self.position, self.visit, self.coordinates, self.slopes
        )


@dataclass(frozen=True, eq=False)
class ResidualGroups:
    """The residual covariance of the rows of a design."""

    residual: Residual | None
    dispersion: str | Power | None
    covariance: ResidualCovariance
    rows: RowLayout = field(repr=False)
    subjects: pd.Index = field(repr=False)
    "(N,) labels; of pure dispersion every row is its own."
    visits: tuple = ()
    """Labels of the visits that have an SD of their own, or that the correlations know; () for
    coordinates.
    """
    positions: np.ndarray = field(default_factory=lambda: np.zeros(0, int), repr=False)
    "Place of every visit among the positions that the correlations know."
    groups: tuple = ()
    "Labels of the groups with parameters of their own; () where there is one set."
    slopes: tuple[str, ...] = ()
    "Names of the coefficients of log SD."
    unit: float = 1.0
    "The typical gap between points, in which distances are measured."
    by_row: SubjectRows | None = field(default=None, repr=False)
    "The rows of the fit."

    @property
    def is_correlated(self) -> bool:
        """Whether rows of one subject correlate."""
        return self.covariance.within is not None

    def selected(self, rows: np.ndarray, subject: np.ndarray | None = None) -> ResidualGroups:
        """The residual covariance of some rows (r,), which may repeat.

        subject (r,): codes of the subjects that these rows are of, where they are not those of the
        fit.
        """
        by_row = SubjectRows(*(None if a is None else a[rows] for a in self.by_row))
        given = by_row.subject if subject is None else subject
        known, codes = np.unique(
            np.arange(len(rows)) if self.residual is None else given, return_inverse=True
        )
        labels = (
            self.subjects[known] if subject is None and self.residual else pd.RangeIndex(len(known))
        )
        by_row = by_row._replace(subject=codes)
        return replace(self, rows=_layout(self.residual, by_row), subjects=labels, by_row=by_row)

    def with_slopes(self, slopes: np.ndarray) -> ResidualGroups:
        """The residual covariance with other covariates (n, h) of log SD."""
        by_row = self.by_row._replace(slopes=slopes)
        return replace(self, rows=_layout(self.residual, by_row), by_row=by_row)

    def as_seen_by(self, others: ResidualGroups, rows: np.ndarray) -> SubjectRows:
        """Rows (r,) of these as new rows for others: subjects of theirs, or beyond them."""
        by_row = SubjectRows(*(None if a is None else a[rows] for a in self.by_row))
        if self.residual is None:
            return by_row._replace(subject=len(others.subjects) + np.arange(len(rows)))
        subject, _ = _codes_beyond(pd.Series(self.subjects[by_row.subject]), others.subjects)
        return by_row._replace(subject=subject)

    def check(self) -> None:
        """Refuse rows that do not determine every number, as some of those of a fit may not."""
        subject = self.by_row.subject
        if self.is_correlated and np.bincount(subject).max() < 2:
            raise ValueError(
                f"residual '{self.residual}': every {self.residual.subject!r} has one row only"
            )
        if self.residual:
            _refuse_rare(self.residual, subject, self.by_row.visit, self.visits)
        covariates = np.column_stack([np.ones(len(subject)), self.by_row.slopes])
        if len(independent_columns(covariates)) < covariates.shape[1]:
            raise ValueError(
                f"dispersion '~ {self.dispersion}': its covariates depend on each other"
            )

    @property
    def parts(self) -> list[str]:
        """The two arguments in words, those that were given."""
        dispersion = f"~ {self.dispersion}" if isinstance(self.dispersion, str) else self.dispersion
        named = {"residual": self.residual, "dispersion": dispersion}
        return [f"{name} {given}" for name, given in named.items() if given is not None]

    def __str__(self) -> str:
        return ", ".join(self.parts)

    @property
    def reference(self) -> str:
        """Where the residual SD is sigma; empty if that is everywhere."""
        where = [f"of {self.residual.by} {self.groups[0]}"] if self.groups else []
        where += (
            [f"at {self.residual.time[0]} {self.visits[0]}"] if self.covariance.visits > 1 else []
        )
        if isinstance(self.dispersion, Power):
            where.append(f"where {self.dispersion.column} is 1")
        elif self.dispersion:
            where.append(f"where the terms of '~ {self.dispersion}' are 0")
        return " ".join(where)


def residual_columns(formula: Formula, frame: Any) -> dict[str, pd.Series]:
    """The columns of a frame that the residual covariance needs besides those of formulas, by
    name.
    """
    found = {}
    for name in formula.residual.columns if formula.residual else ():
        found[name] = get_column(frame, name, f"residual '{formula.residual}'")
    if isinstance(formula.dispersion, Power) and not formula.dispersion.is_of_fitted:
        found[formula.dispersion.column] = get_column(
            frame, formula.dispersion.column, f"dispersion {formula.dispersion}"
        )
    return found


def residual_groups(
    formula: Formula,
    columns: Mapping[str, pd.Series],
    slopes: tuple[np.ndarray, tuple[str, ...]] | None,
    n: int,
) -> ResidualGroups | None:
    """The residual covariance of n rows; None where there is nothing to it.

    columns: those of `residual_columns`. slopes: model matrix (n, h) of the formula of
    `dispersion`, and its names.
    """
    residual, dispersion = formula.residual, formula.dispersion
    if residual is None and dispersion is None:
        return None
    U, names = _slopes(dispersion, columns, slopes, n)
    if residual is None:
        none = np.zeros(n, int)
        by_row = SubjectRows(np.arange(n), none, none, none, none, None, U)
        covariance = ResidualCovariance(slopes=len(names))
        subjects = pd.RangeIndex(n)
        return ResidualGroups(
            None, dispersion, covariance, by_row.layout(), subjects, slopes=names, by_row=by_row
        )
    subject, subjects = _coded(columns[residual.subject])
    group, groups = _groups(residual, columns, subject, subjects)
    sets, within = max(len(groups), 1), residual.within
    if within is not None and np.bincount(subject).max() < 2:
        raise ValueError(
            f"residual '{residual}': every {residual.subject!r} has one row only, so that nothing "
            "correlates; give the column of the subjects, whose rows are repeated measurements"
        )
    times = [columns[name] for name in residual.time]
    unit, visits, places = 1.0, (), np.zeros(0, int)
    if isinstance(within, Correlated) and within.over == "distances":
        points = np.column_stack([_numbers(residual, values) for values in times])
        unit = _typical_gap(points, subject)
        if not within.nugget:
            _refuse_repeats(
                residual, subject, subjects, pd.Series(list(map(tuple, points.tolist())))
            )
        covariance = ResidualCovariance(within, 1, 1, sets, len(names))
        none = np.zeros(n, int)
        by_row = SubjectRows(subject, group[subject], points[:, 0], none, none, points / unit, U)
        rows = by_row.layout()
    else:
        if len(times) > 1:
            raise ValueError(
                f"residual '{residual}' has several columns {listed(residual.time)}; visits are "
                "in one"
            )
        visit, visits = _visits(residual, times[0])
        _refuse_repeats(residual, subject, subjects, times[0])
        _refuse_rare(residual, subject, visit, visits)
        places = _places(residual, times[0], visits)
        own = len(visits) if residual.by_visit else 1
        covariance = ResidualCovariance(within, int(places.max()) + 1, own, sets, len(names))
        with_sd = visit if residual.by_visit else np.zeros(n, int)
        by_row = SubjectRows(subject, group[subject], visit, places[visit], with_sd, None, U)
        rows = _layout(residual, by_row)
    labels = visits, places, groups, names
    return ResidualGroups(residual, dispersion, covariance, rows, subjects, *labels, unit, by_row)


def new_rows(
    given: ResidualGroups, formula: Formula, columns: Mapping[str, pd.Series], slopes: Any
) -> SubjectRows:
    """Rows of new data, without missing values, as subjects of the fit or new ones; columns,
    slopes as above.
    """
    residual, n = given.residual, len(next(iter(columns.values()), ()))
    U, _ = _slopes(given.dispersion, columns, slopes, n, is_new=True)
    none = np.zeros(n, int)
    if residual is None:
        return SubjectRows(len(given.subjects) + np.arange(n), none, none, none, none, None, U)
    subject, unseen = _codes_beyond(columns[residual.subject], given.subjects)
    group = _known_codes(residual, columns[residual.by], given.groups) if residual.by else none
    times = [columns[name] for name in residual.time]
    if not given.visits:
        points = np.column_stack([_numbers(residual, values) for values in times])
        return SubjectRows(subject, group, points[:, 0], none, none, points / given.unit, U)
    visit = _known_codes(residual, times[0], given.visits)
    with_sd = visit if residual.by_visit else none
    return SubjectRows(subject, group, visit, given.positions[visit], with_sd, None, U)


def _codes_beyond(values: pd.Series, labels: pd.Index) -> tuple[np.ndarray, pd.Index]:
    """Codes among labels, or after them; and the labels that are new."""
    known = labels.get_indexer(values)
    more, unseen = pd.factorize(values[known < 0])
    known[known < 0] = len(labels) + more
    return known, unseen


def _known_codes(residual: Residual, values: pd.Series, labels: tuple) -> np.ndarray:
    found = pd.Index(labels).get_indexer(values)
    if unknown := list(dict.fromkeys(values[found < 0])):
        raise ValueError(
            f"residual '{residual}': {values.name!r} has {listed(unknown)} in the new data, which "
            f"the fit has not seen; it has {listed(labels)}"
        )
    return found


def _coded(values: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Code of every row, and the sorted labels."""
    codes, labels = pd.factorize(values, sort=True)
    return codes, pd.Index(labels)


def _groups(residual, columns, subject, subjects) -> tuple[np.ndarray, tuple]:
    """Group of every subject, and the labels of groups."""
    if residual.by is None:
        return np.zeros(len(subjects), int), ()
    codes, labels = _coded(columns[residual.by])
    group = np.zeros(len(subjects), int)
    group[subject] = codes
    changed = np.flatnonzero(group[subject] != codes)
    if len(changed):
        one = subject[changed[0]]
        found = columns[residual.by][subject == one].unique()
        raise ValueError(
            f"residual '{residual}' has parameters by {residual.by!r}, which changes within "
            f"{residual.subject!r} {listed([subjects[one]])}: {listed(found)}; it "
            "must be one value for every subject"
        )
    return group, tuple(labels)


# Visits -------------------------------------------------------------------------------------------


def _visits(residual: Residual, values: pd.Series) -> tuple[np.ndarray, tuple]:
    """Rank of every row's visit, and the visits in order."""
    codes, labels = _coded(values)
    over = residual.within.over if isinstance(residual.within, Correlated) else "order"
    if values.dtype.kind not in "iufmMb" and not _is_ordered(values) and over != "visits":
        _refuse_jumbled(residual, labels)
    if len(labels) < 2:
        raise ValueError(
            f"residual '{residual}': {residual.time[0]!r} has the one value {listed(labels)}"
        )
    free = isinstance(residual.within, Correlated) and "rho2,1" in residual.within.shape_names(2)
    if free and len(labels) > MOST_VISITS:
        numbers = len(labels) * (len(labels) + 1) // 2
        raise ValueError(
            f"residual '{residual}' over {len(labels)} visits has {numbers} parameters, and at "
            f'most {MOST_VISITS} visits are supported; use "toep" or "ad" in place of "us"'
        )
    return codes, tuple(labels)


def _is_ordered(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.CategoricalDtype) and values.cat.ordered


def _refuse_jumbled(residual, labels) -> None:
    """Text sorts "WEEK 12" before "WEEK 2"."""
    numbers = [re.findall(r"\d+(?:\.\d+)?", str(label)) for label in labels]
    values = [tuple(map(float, found)) for found in numbers]
    if values != sorted(values):
        raise ValueError(
            f"residual '{residual}' depends on the order of {residual.time[0]!r}, whose labels "
            f"sort as {listed(labels)}, not as their numbers do; make it a number or an ordered "
            "categorical"
        )


def _places(residual, values: pd.Series, visits) -> np.ndarray:
    """Place of every visit among those that the correlations know: how many steps from the
    first, or its rank.
    """
    within = residual.within
    if isinstance(within, Correlated) and within.over == "lags" and values.dtype.kind in "iufmM":
        return _steps(residual, pd.Series(visits, name=values.name))
    return np.arange(len(visits))


def _layout(residual: Residual | None, rows: SubjectRows) -> RowLayout:
    """The layout of rows; places count from a subject's first row where only that matters, so that
    patterns are few.
    """
    within = residual.within if residual else None
    if rows.coordinates is not None or not isinstance(within, Correlated) or residual.by_visit:
        return rows.layout()
    if within.over == "lags":
        return rows._replace(
            position=rows.position - _first(rows.subject, rows.position)[rows.subject]
        ).layout()
    return (rows if within.over == "order" else rows._replace(position=_slots(rows))).layout()


def _slots(rows: SubjectRows) -> np.ndarray:
    """The how-manieth of its subject every row is."""
    order = np.lexsort((rows.order, rows.subject))
    sizes = np.bincount(rows.subject)
    slot = np.empty(len(order), int)
    slot[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return slot


def _first(subject, steps):
    first = np.full(subject.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, subject, steps)
    return first


def _steps(residual, values: pd.Series) -> np.ndarray:
    """Times as whole multiples of their least gap, from 0."""
    numbers = _numbers(residual, values)
    times = np.unique(numbers)
    gap = np.diff(times).min()
    steps = (numbers - times[0]) / gap
    whole = np.rint(steps)
    if (np.abs(steps - whole) > WHOLE * np.maximum(1.0, whole)).any():
        raise ValueError(
            f"residual '{residual}' needs times in whole multiples of their least gap, which is "
            f'{gap:g} in {residual.time[0]!r}; use Exponential ("sp_exp") for times that are not'
        )
    return whole.astype(np.int64)


def _numbers(residual, values: pd.Series) -> np.ndarray:
    """Times or coordinates as floats; dates in days."""
    if values.dtype.kind in "mM":
        kind = "datetime64[ns]" if values.dtype.kind == "M" else "timedelta64[ns]"
        return values.to_numpy().astype(kind).astype("int64") / 86_400e9
    if values.dtype.kind not in "iuf":
        raise ValueError(
            f"residual '{residual}' needs distances, but column {values.name!r} is "
            f"{values.dtype}; make it numbers"
        )
    found = values.to_numpy(float)
    if not np.isfinite(found).all():
        raise ValueError(f"residual '{residual}': column {values.name!r} has infinite values")
    return found


def _typical_gap(points: np.ndarray, subject: np.ndarray) -> float:
    """Median distance between successive rows of a subject that are not in one place."""
    order = np.lexsort((points[:, 0], subject))
    gaps = np.sqrt((np.diff(points[order], axis=0) ** 2).sum(1))[np.diff(subject[order]) == 0]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 1.0


def _refuse_repeats(residual, subject, subjects, values: pd.Series) -> None:
    """R would be singular."""
    twice = pd.DataFrame({"subject": subject, "time": values.to_numpy()}).duplicated().to_numpy()
    if twice.any():
        row = np.flatnonzero(twice)[0]
        what = ", ".join(residual.time)
        raise ValueError(
            f"residual '{residual}': {residual.subject} {listed([subjects[subject[row]]])} has "
            f"{what} {listed([values.to_numpy()[row]])} twice; a subject has one row at a time"
        )


def _refuse_rare(residual, subject, visit, visits) -> None:
    """Variances and correlations of visits that are (almost) never seen, or not together."""
    if not residual.by_visit:
        return
    seen = np.zeros((subject.max() + 1, len(visits)))
    seen[subject, visit] = 1.0
    together = seen.T @ seen
    rare = np.flatnonzero(np.diagonal(together) < 2)
    if len(rare):
        raise ValueError(
            f"residual '{residual}' has a variance for every {residual.time[0]!r}, but "
            f"{listed([visits[rare[0]]])} is seen once; leave that row out, or use a structure "
            "with one variance"
        )
    free = isinstance(residual.within, Correlated) and "rho2,1" in residual.within.shape_names(2)
    a, b = np.nonzero(np.triu(together < 2, 1))
    if free and len(a):
        raise ValueError(
            f"residual '{residual}' has a correlation for every pair of visits, but "
            f"{listed([visits[a[0]]])} and {listed([visits[b[0]]])} are seen together in "
            f"{int(together[a[0], b[0]])} subjects; use a structure with "
            'fewer parameters, such as "toeph" or "adh"'
        )


# Dispersion ---------------------------------------------------------------------------------------


def _slopes(dispersion, columns, slopes, n, is_new=False) -> tuple[np.ndarray, tuple[str, ...]]:
    """Covariates of log SD (n, h), without a constant, and the names of their coefficients."""
    if dispersion is None:
        return np.zeros((n, 0)), ()
    if isinstance(dispersion, Power) and dispersion.is_of_fitted:
        if is_new:
            raise ValueError(
                f"dispersion {dispersion}: the SD of a new row would depend on its own prediction; "
                'interval="confidence" with include_re=False does without'
            )
        return np.zeros((n, 1)), ("power fitted",)
    if isinstance(dispersion, Power):
        values = columns[dispersion.column]
        if values.dtype.kind not in "iuf":
            raise ValueError(
                f"dispersion {dispersion} needs numbers, but {dispersion.column!r} is "
                f"{values.dtype}"
            )
        sizes = np.abs(values.to_numpy(float))
        if (sizes == 0).any():
            raise ValueError(
                f"dispersion {dispersion}: {dispersion.column!r} is 0 in {(sizes == 0).sum()} "
                "rows, where the SD would be 0 or infinite; shift it, or use a formula such as "
                "dispersion='~ x'"
            )
        return np.log(sizes)[:, None], (f"power {dispersion.column}",)
    U, names = slopes
    keep = [j for j, name in enumerate(names) if name != "Intercept"]
    U, names = U[:, keep], tuple(names[j] for j in keep)
    if not names:
        raise ValueError(
            f"dispersion '~ {dispersion}' has no covariate: sigma is the constant already"
        )
    if is_new:
        return U, names
    kept = independent_columns(np.column_stack([np.ones(n), U]))
    if lost := [name for j, name in enumerate(names, 1) if j not in kept]:
        raise ValueError(
            f"dispersion '~ {dispersion}': {listed(lost)} depends linearly on the columns before "
            "it and the constant, which is sigma; leave it out"
        )
    return U, tuple(f"log sd {name}" for name in names)
