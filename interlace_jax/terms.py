"""The fixed part by term: its variables, columns, and the hypotheses of type I, II and III tests. Host NumPy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import formulaic
import narwhals as nw
import numpy as np
import pandas as pd
from formulaic.materializers.types import ScopedTerm
from formulaic.model_spec import ModelSpec
from formulaic.parser.types import Term

from .design import Design

DEPENDENT = 1e-9  # a column whose residual on those before it is below this part of its norm is redundant


def variables(design: Design, data: Any) -> pd.DataFrame:
    """The variables of the fixed part in the n rows used, as the model sees them."""
    frame = data if isinstance(data, pd.DataFrame) else nw.from_native(nw.to_native(data, pass_through=True), eager_only=True)
    names = [str(v) for v in formulaic.Formula(design.formula.fixed).required_variables if str(v) in frame.columns]
    columns = {name: pd.Series(frame[name].to_list() if not isinstance(frame, pd.DataFrame) else frame[name]) for name in names}
    taken = {name: c.iloc[design.rows].reset_index(drop=True) for name, c in columns.items()}
    return pd.DataFrame({name: _compact(c) for name, c in taken.items()}, index=pd.RangeIndex(len(design.rows)))


def _compact(column: pd.Series) -> pd.Series:
    return column.cat.remove_unused_categories() if isinstance(column.dtype, pd.CategoricalDtype) else column.infer_objects()


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a design's fixed part, the intercept left out."""

    design: Design
    frame: pd.DataFrame = field(repr=False)
    "(n, v) the variables."

    @functools.cached_property
    def spec(self) -> ModelSpec:
        return formulaic.model_matrix(self.design.formula.fixed, self.frame).model_spec

    @functools.cached_property
    def columns(self) -> dict[str, list[int]]:
        """Positions among the columns kept, by term; terms that lost all of theirs are absent."""
        kept = {name: j for j, name in enumerate(self.design.columns)}
        found = {str(s.term): [kept[c] for c in s.columns if c in kept] for s in self.spec.structure if s.term.factors != ()}
        return {name: at for name, at in found.items() if at and name != "1"}

    def _factors(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """Categorical and numeric factors of a term."""
        term = next(s.term for s in self.spec.structure if str(s.term) == name)
        exprs = {f.expr for f in term.factors}
        categorical = {e for e in exprs if e in self.spec.encoder_state and self.spec.encoder_state[e][0].value == "categorical"}
        return frozenset(categorical), frozenset(exprs - categorical)

    def _contained(self, name: str, other: str) -> bool:
        """Whether `other` is `name` crossed with further categorical factors (SAS's sense)."""
        (mine, numeric), (theirs, others) = self._factors(name), self._factors(other)
        return numeric == others and mine < theirs

    def hypothesis(self, name: str, type: int) -> np.ndarray:
        """L (q, p) of the type I, II or III test of a term, as lmerTest's."""
        return {1: self._sequential, 2: self._marginal, 3: self._balanced}[type](name)

    def _sequential(self, name):
        """Its contribution after the columns before it: rows of the R of a QR of X."""
        return np.linalg.qr(self.design.X, mode="r")[self.columns[name]]

    def _marginal(self, name):
        """Its contribution after all terms that do not contain it."""
        mine = self.columns[name]
        above = [j for other, at in self.columns.items() if self._contained(name, other) for j in at]
        order = [j for j in range(len(self.design.columns)) if j not in mine and j not in above] + mine + above
        rows = np.linalg.qr(self.design.X[:, order], mode="r")[[order.index(j) for j in mine]]
        L = np.empty_like(rows)
        L[:, order] = rows
        return L

    def _balanced(self, name):
        """Its coefficients under sum-to-zero coding, whatever coding was used: all cells count alike."""
        coded, names = self._sum_coded
        return coded[[j for j, owner in enumerate(names) if owner == name]]

    @functools.cached_property
    def _sum_coded(self) -> tuple[np.ndarray, list[str]]:
        """The map (p, p) from coefficients to those of sum-to-zero coding, and the term of each of the latter."""
        blocks, owners = [], []
        for structure in self.spec.structure:
            block = np.hstack([self._scoped(scoped) for scoped in structure.scoped_terms])
            blocks.append(block)
            owners += [str(structure.term)] * block.shape[1]
        M = np.linalg.lstsq(self.design.X, np.hstack(blocks), rcond=None)[0]
        kept = _independent(M)
        return np.linalg.inv(M[:, kept]), [owners[j] for j in kept]

    def _scoped(self, scoped: ScopedTerm) -> np.ndarray:
        """Columns of one product of factors; reduced factors sum to zero over their levels."""
        product = np.ones((len(self.frame), 1))
        for part in scoped.factors:
            values = self._encoded(part.factor.expr)
            if part.reduced:
                values = values[:, :-1] - values[:, -1:]
            product = (product[:, :, None] * values[:, None, :]).reshape(len(values), -1)
        return product

    def _encoded(self, expr: str) -> np.ndarray:
        """A factor on its own: an indicator per level, or its numeric columns."""
        factor = next(f for s in self.spec.structure for f in s.term.factors if f.expr == expr)
        return np.asarray(formulaic.model_matrix(formulaic.SimpleFormula([Term([factor])]), self.frame), float)


def _independent(M: np.ndarray) -> Sequence[int]:
    """Columns that do not depend linearly on those before them."""
    return np.flatnonzero(np.abs(np.diag(np.linalg.qr(M, mode="r"))) > DEPENDENT * np.linalg.norm(M, axis=0)[: len(M)])
