"""Random-effects terms -> grouping factors: levels, the code of every row, and the joined slope
columns.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from ..numerics.covariance.across import Kernel, Known
from ..numerics.covariance.block import Block
from ..numerics.covariance.structures import Structure
from ..support.arguments import listed
from .formula import Term
from .model_matrices import Matrices, key_of

NOWHERE = "(a group that the fit has not seen)"
"A label that no factor has, whatever the type of its levels."


@dataclass(frozen=True, eq=False)
class Factor:
    """One grouping factor with m levels; every random term on it is joined into k columns."""

    name: str
    "lme4's label: `Subject`, `cask:batch`."
    variables: tuple[str, ...]
    levels: pd.Index = field(repr=False)
    """(m,) labels of the levels used, sorted by the first variable, then the second ...;
    interactions as `a1:b1`.
    """
    codes: np.ndarray = field(repr=False)
    "(n,) int32 level of each row."
    Z: np.ndarray = field(repr=False)
    "(n, k) slope columns."
    columns: tuple[str, ...]
    "k names, `(Intercept)` first."
    sizes: tuple[int, ...]
    """Widths of the mutually independent unstructured blocks, in column order: (1 + x | g) ->
    (2,), || -> (1, 1).
    """
    parts: tuple[str, ...] = field(repr=False)
    "Which evaluated parts of the formula the columns come from, in order."
    variable_levels: tuple[pd.Index, ...] = field(repr=False)
    "Sorted levels of each variable."
    keys: np.ndarray = field(repr=False)
    "(m,) position of each level in the full crossing of `variable_levels` (row-major), increasing."
    within: Structure | None = None
    "How the columns of a level covary; None: freely within terms."
    across: Known | Kernel | None = None
    "How the levels covary, without arrays; None: they do not."
    K: Any = field(default=None, repr=False)
    "The arrays of `across`."

    @property
    def block(self) -> Block:
        """The factor's shape and structure."""
        return Block(len(self.levels), self.sizes, self.within, self.across)

    @property
    def is_structured(self) -> bool:
        """Whether its effects are tied together beyond terms and correlations."""
        return self.across is not None or not self.block.is_pattern


def is_nested(inner: Factor, outer: Factor) -> bool:
    """Whether every level of one factor lies within one level of the other; a factor is nested
    in itself.
    """
    pairs = np.unique(inner.codes.astype(np.int64) * len(outer.levels) + outer.codes)
    return len(pairs) == len(np.unique(inner.codes))


def factorized(
    columns: Mapping[str, pd.Series], terms: Sequence[Term]
) -> dict[str, tuple[np.ndarray, pd.Index]]:
    """By grouping variable: the code (n,) of every row, and the sorted levels."""
    return {
        name: _factorize(columns[name])
        for name in dict.fromkeys(name for t in terms for name in t.group)
    }


def grouping_factors(
    terms: Sequence[Term],
    matrices: Matrices,
    coded: Mapping[str, tuple[np.ndarray, pd.Index]],
    n: int,
    tied: Container[str] = (),
) -> tuple[Factor, ...]:
    """Join the terms by factor, in lme4's order: most levels first, ties as written. coded: as
    `factorized` gives.

    tied: names of factors whose effects a covariance structure ties together: there may be as many
    as rows.
    """
    joined: dict[frozenset[str], list[Term]] = {}
    for term in terms:
        joined.setdefault(frozenset(term.group), []).append(term)
    factors = [_factor(group, matrices, coded, n, tied) for group in joined.values()]
    return tuple(sorted(factors, key=lambda factor: -len(factor.levels)))


def _factor(
    terms: Sequence[Term],
    matrices: Matrices,
    coded: Mapping[str, tuple[np.ndarray, pd.Index]],
    n: int,
    tied: Container[str],
) -> Factor:
    terms = sorted(terms, key=lambda term: "Intercept" not in matrices[key_of(term)][1])
    variables = terms[0].group
    codes, levels, keys = _crossed([coded[name] for name in variables])
    _check_levels(terms[0], levels)
    most = np.inf if terms[0].factor in tied else n
    parts = tuple(key_of(term) for term in terms)
    sizes: list[int] = []
    names: list[str] = []
    for term, key in zip(terms, parts, strict=True):
        columns = matrices[key][1]
        k = len(columns)
        _check_size(term, len(levels), k, most)
        sizes += [1] * k if term.independent else [k]
        names += ["(Intercept)" if name == "Intercept" else name for name in columns]
    _check_duplicates(terms, names)
    Z = [matrices[key][0] for key in parts]
    return Factor(
        name=terms[0].factor,
        variables=variables,
        levels=levels,
        codes=codes.astype(np.int32, copy=False),
        Z=np.hstack(Z) if len(Z) > 1 else Z[0],
        columns=tuple(names),
        sizes=tuple(sizes),
        parts=parts,
        variable_levels=tuple(coded[name][1] for name in variables),
        keys=keys,
    )


def _check_levels(term: Term, levels: pd.Index) -> None:
    if len(levels) == 1:
        raise ValueError(
            f"the grouping factor {term.factor!r} of {term.text!r} has one level only, "
            f"{listed(levels)}, in the rows used; it needs at least two"
        )


def _check_size(term: Term, m: int, k: int, n: float) -> None:
    if k == 0:
        raise ValueError(
            f"the term {term.text!r} has no columns; write (1 | {term.factor}) for a random "
            "intercept"
        )
    each = 1 if term.independent else k
    if m * each >= n:
        raise ValueError(
            f"the term {term.text!r} has {m} levels of {term.factor!r} x {each} columns = "
            f"{m * each} random effects for {n} rows; there must be more rows than random "
            "effects, or they cannot be told from the residual"
        )


def _check_duplicates(terms: Sequence[Term], names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        texts = ", ".join(repr(term.text) for term in terms)
        raise ValueError(
            f"the column {listed(twice)} occurs twice on the grouping factor {terms[0].factor!r} "
            f"({texts}); leave it out of one term, as in (1 | g) + (0 + x | g)"
        )


def _factorize(column: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """(n,) codes and the sorted levels."""
    codes, levels = pd.factorize(column)
    if isinstance(levels, pd.CategoricalIndex):
        levels = levels.categories.take(levels.codes)
    order = sorted_positions(levels)
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order))
    return rank[codes], levels.take(order).rename(None)


def sorted_positions(levels: pd.Index) -> np.ndarray:
    """Where the first, second ... of the sorted levels stand."""
    try:
        return np.asarray(levels.argsort())
    except TypeError:  # labels of several types: by type, then by text
        return np.array(
            sorted(range(len(levels)), key=lambda i: (type(levels[i]).__name__, str(levels[i])))
        )


def _crossed(
    variables: Sequence[tuple[np.ndarray, pd.Index]],
) -> tuple[np.ndarray, pd.Index, np.ndarray]:
    """Codes, labels and keys of the level combinations that occur."""
    if len(variables) == 1:
        codes, levels = variables[0]
        return codes, levels, np.arange(len(levels))
    sizes = [len(levels) for _, levels in variables]
    codes, keys = pd.factorize(_keys([codes for codes, _ in variables], sizes), sort=True)
    labels, left = [], keys
    for (_, levels), size in zip(reversed(variables), reversed(sizes), strict=True):
        left, positions = left // size, left % size
        labels.append(map(_label, levels.take(positions.astype(np.int64))))
    names = [":".join(label) for label in zip(*reversed(labels), strict=True)]
    return codes, pd.Index(names), keys


def _keys(codes: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Positions (n,) in the full crossing, the last variable fastest: Python's integers where 64
    bits are too few.
    """
    dtype = np.int64 if math.prod(sizes) < 2**63 else object
    keys = np.zeros(len(codes[0]), dtype)
    for code, size in zip(codes, sizes, strict=True):
        keys = keys * size + code.astype(dtype)
    return keys


def _label(level: Any) -> str:
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def codes_in(factor: Factor, columns: Mapping[str, pd.Series]) -> np.ndarray:
    """(n,) codes of new rows, -1 for combinations that the fit has not seen.

    Raises ValueError where levels are of another type than in the fit, and cannot be told to be the
    same.
    """
    pairs = zip(factor.variables, factor.variable_levels, strict=True)
    known = [_known(name, columns[name], levels) for name, levels in pairs]
    unseen = np.any([codes < 0 for codes in known], axis=0)
    keys = _keys([np.maximum(c, 0) for c in known], [len(v) for v in factor.variable_levels])
    return np.where(unseen, -1, pd.Index(factor.keys).get_indexer(keys))


def _known(name: str, column: pd.Series, levels: pd.Index) -> np.ndarray:
    """(n,) positions of values among the levels of the fit, -1 where they are not there."""
    codes, found = _factorize(column)
    # by pandas, and not always as meant
    is_parsed = found.inferred_type == "string" and levels.dtype.kind in "mM"
    at = np.full(len(found), -1) if is_parsed else _dated(levels).get_indexer(_dated(found))
    kinds = {_kind(level) for level in levels} if (at < 0).any() else set()
    for level in found[at < 0]:
        if _kind(level) not in kinds and level != NOWHERE:
            twin = next((known for known in levels if _label(known) == _label(level)), levels[0])
            raise ValueError(
                f"the grouping variable {name!r} has {level!r} ({type(level).__name__}) in the "
                f"new data, but {twin!r} ({type(twin).__name__}) in the fit; give both the same "
                "type"
            )
    return at[codes]


def _dated(levels: pd.Index) -> pd.Index:
    """Dates as the midnights that they start with; other levels as they are."""
    return pd.DatetimeIndex(pd.to_datetime(levels)) if levels.inferred_type == "date" else levels


def _kind(level: Any) -> str:
    """The type of a level in words; levels of different types are never the same."""
    if isinstance(level, bool | np.bool_):
        return "logical"
    if isinstance(level, Number):
        return "number"
    if isinstance(level, datetime.datetime):
        return "time without a zone" if level.tzinfo is None else "time with a zone"
    if isinstance(level, datetime.date):
        return "time without a zone"
    return type(level).__name__
