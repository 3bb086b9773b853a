"""Contrasts declared for whole columns, `contrasts={"prime": "sum"}`: how every term codes them.

A declaration is kept as nested tuples of texts and numbers, so that formulas that have one can be
compared, remembered and written to files.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.transforms import ContrastsRegistry
from formulaic.transforms.contrasts import Contrasts

from ..support.arguments import check_mapping, listed, numbers, one_of
from .contrasts import C

KINDS = ("treatment", "sum", "helmert", "sdif", "poly", "SAS")

Declared = tuple[tuple[str, tuple[Any, ...]], ...]
"""By column its coding: a kind of KINDS, after "treatment" also its reference level; or "matrix",
names of its columns, the levels of its rows (None: in their order), and the rows.
"""


class CodingError(ValueError):
    """Contrasts that do not fit the levels of their column."""


def declared(contrasts: Mapping[str, Any] | Declared | None) -> Declared:
    """The argument `contrasts=` as it is kept; what is kept already stays as it is.

    Raises ValueError or TypeError, naming the column, for what is neither a kind nor a matrix of
    numbers.
    """
    if isinstance(contrasts, tuple) and all(isinstance(pair, tuple) for pair in contrasts):
        return contrasts
    check_mapping("contrasts", contrasts, '{"x": "sum"}')
    return tuple((name, _declaration(name, wanted)) for name, wanted in (contrasts or {}).items())


def _declaration(name: str, wanted: Any) -> tuple[Any, ...]:
    if isinstance(wanted, str):
        kind = wanted.removeprefix("contr.")
        one_of(f"contrasts of {name!r}", kind, KINDS)
        return (kind,)
    if isinstance(wanted, tuple) and len(wanted) == 2 and wanted[0] == "treatment":
        return wanted
    if isinstance(wanted, pd.DataFrame):
        rows, names, levels = wanted.to_numpy(), map(str, wanted.columns), tuple(wanted.index)
    elif isinstance(wanted, Mapping):
        rows, names, levels = np.transpose(list(wanted.values())), map(str, wanted), None
    else:
        rows = numbers(f"contrasts of {name!r}", wanted)
        rows = rows[:, None] if rows.ndim == 1 else rows
        names, levels = map(str, range(1, rows.shape[-1] + 1)), None
    rows = numbers(f"contrasts of {name!r}", rows)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(
            f"contrasts of {name!r} must be {' or '.join(map(repr, KINDS))}, or finite numbers "
            f"with a row for each level and a column for each contrast, not {wanted!r}"
        )
    return "matrix", tuple(names), levels, tuple(map(tuple, rows.tolist()))


def check_columns(
    contrasts: Declared, columns: Mapping[str, pd.Series], used: Sequence[str]
) -> None:
    """Refuse contrasts of columns that no term has as they are, and of numbers."""
    for name, _ in contrasts:
        if name not in used:
            raise ValueError(
                f"contrasts= has {name!r}, which is no variable of the formula by itself; there "
                f"are {listed(used)}"
            )
        dtype = columns[name].dtype
        if not isinstance(dtype, pd.CategoricalDtype) and dtype.kind in "iuf":
            raise ValueError(
                f"contrasts= has {name!r}, whose values are numbers: make it categories, as by "
                "astype(str) or astype('category')"
            )


def coded(values: Any, coding: tuple[Any, ...], name: str) -> FactorValues:
    """The values of a column as categories with these contrasts."""
    return C(values, _ForLevels(name, coding))


@dataclass(frozen=True)
class _ForLevels:
    """Contrasts that are made when the levels are known."""

    name: str
    coding: tuple[Any, ...]

    def of(self, levels: Sequence[Any]) -> Contrasts:
        kind, *more = self.coding
        if kind == "matrix":
            return self._matrix(list(levels), *more)
        if kind == "sdif":
            names = [f"{b}-{a}" for a, b in zip(levels[:-1], levels[1:], strict=True)]
            return MatrixContrasts(_sliding_differences(len(levels)), names)
        if more and more[0] not in levels:
            raise CodingError(
                f"contrasts of {self.name!r} have the reference {more[0]!r}; the levels are "
                f"{listed(levels)}"
            )
        return getattr(ContrastsRegistry, kind)(*more)

    def _matrix(self, levels: list[Any], names: Any, own: Any, rows: Any) -> Contrasts:
        C = np.array(rows, float)
        if own is not None and set(own) == set(levels):
            C = C[[own.index(level) for level in levels]]
        elif own is not None or len(C) != len(levels):
            raise CodingError(
                f"contrasts of {self.name!r} have rows for {listed(own or range(1, len(C) + 1))}; "
                f"the levels are {listed(levels)}"
            )
        if np.linalg.matrix_rank(np.column_stack([np.ones(len(C)), C])) <= C.shape[1]:
            raise CodingError(
                f"contrasts of {self.name!r} depend on each other or on the intercept: the "
                f"{len(levels)} levels {listed(levels)} have room for {len(levels) - 1} that do not"
            )
        return MatrixContrasts(C, names)


def _sliding_differences(k: int) -> np.ndarray:
    """(k, k - 1) Coefficients are differences of the means of a level and of the one before it."""
    before = np.arange(1, k) / k
    return np.where(np.arange(k)[:, None] > np.arange(k - 1), before, before - 1.0)


class MatrixContrasts(Contrasts):
    """A matrix of one's own (levels, contrasts); where all levels are coded, an indicator each."""

    FACTOR_FORMAT_REDUCED = "{name}[{field}]"

    def __init__(self, contrasts: Any, names: Sequence[str]):
        self.contrasts, self.names = np.asarray(contrasts, float), list(names)

    @Contrasts.override
    def _get_coding_matrix(
        self, levels: Sequence[Hashable], reduced_rank: bool = True, sparse: bool = False
    ) -> Any:
        return self.contrasts if reduced_rank else np.eye(len(levels))

    @Contrasts.override
    def get_coding_column_names(
        self, levels: Sequence[Hashable], reduced_rank: bool = True
    ) -> Sequence[Hashable]:
        """Names of the columns, or of all levels."""
        return self.names if reduced_rank else levels

    @Contrasts.override
    def get_coefficient_row_names(
        self, levels: Sequence[Hashable], reduced_rank: bool = True
    ) -> Sequence[Hashable]:
        """Names of what the coefficients are."""
        return ["avg", *self.names] if reduced_rank else levels
