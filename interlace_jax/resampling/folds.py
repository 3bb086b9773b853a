"""Folds: which rows are held out, by scheme, splitter or hand; what comes of predicting them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.files import refuse_scanned
from ..design.frames import as_frame, get_column
from ..design.selection import groupings
from ..support.arguments import one_of

SCHEMES = ("logo", "kfold", "loo", "kfold-rows")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What models fitted to some rows predict for others; made by `cross_val`."""

    folds: pd.DataFrame
    "A row per fold: `n_train n_test`, the scores, `converged singular status`."
    pooled: pd.Series
    "The scores over all rows predicted."
    predictions: pd.DataFrame = field(repr=False)
    """A row per row held out, on the index of the data: `fold observed predicted sd`; missing
    where a fold has no fit.
    """

    def __repr__(self) -> str:
        fitted = int(self.folds["converged"].sum())
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.pooled.items())
        return f"<{len(self.folds)} folds, {fitted} converged: {scores}>"

    def _repr_html_(self) -> str:
        return self.folds._repr_html_()


class Fold(NamedTuple):
    """Positions among the rows used."""

    label: Any
    train: np.ndarray
    test: np.ndarray


def folds_of(design: Design, data: Any, cv: Any, k: int, by: str | None, seed: Any) -> list[Fold]:
    """The folds of a scheme, a splitter or pairs of positions; arguments as in `cross_val`."""
    if not isinstance(cv, str):
        return _given(design, data, cv, by)
    one_of("cv", cv, SCHEMES)
    n, rng = len(design.y), np.random.default_rng(seed)
    if cv in ("loo", "kfold-rows"):
        part = np.arange(n) if cv == "loo" else _dealt(np.ones(n), _checked(k, n, "rows"), rng)
        labels = range(part.max() + 1)
    else:
        codes, levels = _groups(design, data, by)
        if cv == "logo":
            part, labels = codes, levels
        else:
            part = _dealt(
                np.bincount(codes), _checked(k, len(levels), f"groups ({levels.name})"), rng
            )[codes]
            labels = range(k)
    return [
        Fold(label, np.flatnonzero(part != i), np.flatnonzero(part == i))
        for i, label in enumerate(labels)
    ]


def _checked(k: int, most: int, what: str) -> int:
    if not (isinstance(k, int | np.integer) and 2 <= k <= most):
        raise ValueError(f"k={k!r}: the number of folds must lie between 2 and the {most} {what}")
    return int(k)


def _dealt(sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Part (m,) of things of some sizes (m,): in random order, the largest first, each to the
    part that has least.
    """
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part, filled = np.empty(len(sizes), int), np.zeros(k)
    for i in order:
        part[i] = np.argmin(filled)
        filled[part[i]] += sizes[i]
    return part


def _groups(design: Design, data: Any, by: str | None) -> tuple[np.ndarray, pd.Index]:
    """Codes (n,) and labels of the groups."""
    factors = {f.name: f for f in groupings(design)}
    if by is None and not factors:
        raise ValueError(
            "this model has no groups to leave out: give by=, a column, or cv='kfold-rows'"
        )
    if by is None or by in factors:
        f = min(factors.values(), key=lambda f: len(f.levels)) if by is None else factors[by]
        return f.codes, f.levels.rename(f.name)
    refuse_scanned(data, f"by={by!r} is no grouping factor")
    column = get_column(as_frame(data), by, "argument by=").iloc[design.rows]
    codes, levels = pd.factorize(column, sort=True)
    missing = np.count_nonzero(codes < 0)
    if missing:
        raise ValueError(f"by={by!r} is missing in {missing} of the {len(codes)} rows used")
    return codes, pd.Index(levels, name=by, tupleize_cols=False)


def _given(design: Design, data: Any, cv: Any, by: str | None) -> list[Fold]:
    """Folds of a splitter or of pairs."""
    n = len(design.y)
    if hasattr(cv, "split"):
        pairs, where = _split(cv, design.y, _groups(design, data, by)[0]), np.arange(n)
    else:
        refuse_scanned(data, "cv has positions of them")
        pairs, where = cv, np.full(len(as_frame(data)), -1)
        where[design.rows] = np.arange(n)
    try:
        folds = [
            Fold(i, _placed(where, train), _placed(where, test))
            for i, (train, test) in enumerate(pairs)
        ]
    except (TypeError, ValueError, IndexError):
        raise ValueError(
            f"cv must be one of {', '.join(map(repr, SCHEMES))}, a splitter with a method split, "
            f"or pairs of arrays (train, test) of positions among the {len(where)} rows"
        ) from None
    empty = [fold.label for fold in folds if not len(fold.test)]
    if empty:
        raise ValueError(f"fold {empty[0]} of cv has no row to predict among the rows used")
    if not folds:
        raise ValueError("cv makes no folds")
    return folds


def _split(cv: Any, y: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored", UserWarning)
        return list(cv.split(np.zeros((len(y), 1)), y, groups))


def _placed(where: np.ndarray, rows: Any) -> np.ndarray:
    """Places of rows that are used, each once."""
    found = where[np.asarray(rows)] if len(rows) else where[:0]
    return np.unique(found[found >= 0])


def others(rows: np.ndarray, n: int) -> np.ndarray:
    """All n rows but some."""
    mask = np.ones(n, bool)
    mask[rows] = False
    return np.flatnonzero(mask)
