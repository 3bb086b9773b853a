"""X beta + Z b + offset: the rows of a design, fitted or new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to predict, with a Z and codes for every factor of the model: -1 for an unseen level,
    Z = 0 to leave out.
    """

    X: np.ndarray
    "(n, p), NaN where something is missing."
    Z: Sequence[np.ndarray]
    codes: Sequence[np.ndarray]
    offset: np.ndarray | None = None
    index: pd.Index | None = None
    weights: np.ndarray | None = None
    D: Mapping[str, np.ndarray] = field(default_factory=dict)
    "(n, r) predictors of the family's parameters, by argument."

    @property
    def missing(self) -> np.ndarray:
        """(n,) Where nothing can be predicted."""
        return np.isnan(self.X).any(1) | (False if self.offset is None else np.isnan(self.offset))

    def take(self, rows: Any) -> Rows:
        """Some of the rows, as arrays only."""
        return Rows(self.X[rows], [z[rows] for z in self.Z], [c[rows] for c in self.codes])


def fitted_values(design: Design, beta: np.ndarray, modes: Sequence[np.ndarray]) -> np.ndarray:
    """X beta + Z b + offset for the rows of the fit: (n,)."""
    return expected(_of_fit(design), beta, modes)


def expected(rows: Rows, beta: np.ndarray, modes: Sequence[np.ndarray]) -> np.ndarray:
    """X beta + Z b + offset (n,); unseen levels have b = 0. beta (p, ...), modes (m, k, ...)."""
    total = rows.X @ beta + (0.0 if rows.offset is None else rows.offset)
    for b, code, z in zip(modes, rows.codes, rows.Z, strict=True):
        total = total + np.einsum("nk,nk...->n...", np.where(code[:, None] >= 0, z, 0.0), b[code])
    return total


def _of_fit(design: Design) -> Rows:
    Z, codes = [f.Z for f in design.factors], [f.codes for f in design.factors]
    D = {p.key: p.D for p in design.predictors if p.D is not None}
    return Rows(design.X, Z, codes, design.offset, design.index, design.weights, D)
