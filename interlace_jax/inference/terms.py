"""The fixed part by term: its variables, columns, and the hypotheses of type I, II and III tests.

Host NumPy.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import formulaic
import numpy as np
import pandas as pd
import scipy
from formulaic.materializers.types import ScopedTerm
from formulaic.model_spec import ModelSpec
from formulaic.parser.types import Term

from ..design.design import Design
from ..design.determinacy import independent_columns
from ..design.files import refuse_scanned
from ..design.frames import as_frame, take_rows
from ..design.model_matrices import evaluated, parts_of, used_columns
from ..models.fitted import FittedModel
from ..support.arguments import listed
from ..support.warnings import RankWarning
from .coefficients import Coefficients, coefficients

ROUNDING = 1e-8  # singular values below this part of the largest are 0

F_COLUMNS = ("Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)")


def variables(design: Design, data: Any) -> pd.DataFrame:
    """The variables of the fixed part in the n rows used, as the model sees them."""
    refuse_scanned(
        data, "this needs the variables of the fixed part (test() of coefficients does not)"
    )
    frame = as_frame(data)
    columns = used_columns(frame, {"X": parts_of(design.formula)["X"]}, (), None)
    taken = take_rows(columns, design.rows, len(frame))
    seen = {
        name: (c.astype("category") if c.dtype == bool else c).array for name, c in taken.items()
    }
    return pd.DataFrame(seen, index=pd.RangeIndex(len(design.rows)))


def term_columns(design: Design) -> dict[str, list[int]]:
    """Positions among the columns kept, by term but the intercept; terms that lost all of theirs
    are absent.
    """
    kept = {name: j for j, name in enumerate(design.columns)}
    if design.specs is None:  # plain numbers: a column each
        return {name: [j] for name, j in kept.items() if name != "Intercept"}
    found = {
        str(s.term): [kept[c] for c in s.columns if c in kept] for s in design.specs["X"].structure
    }
    return {name: at for name, at in found.items() if at and name != "1"}


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a design's fixed part, the intercept left out."""

    design: Design
    frame: pd.DataFrame = field(repr=False)
    "(n, v) the variables."

    @functools.cached_property
    def spec(self) -> ModelSpec:
        """How formulaic coded the fixed part: factors, contrasts, columns by term."""
        return self._evaluated(parts_of(self.design.formula)["X"].formula).model_spec

    @functools.cached_property
    def columns(self) -> dict[str, list[int]]:
        """As `term_columns` has them."""
        return term_columns(self.design)

    def _factors(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """Categorical and numeric factors of a term."""
        term = next(s.term for s in self.spec.structure if str(s.term) == name)
        exprs = frozenset(f.expr for f in term.factors)
        coded = {
            expr
            for expr, (kind, _) in self.spec.encoder_state.items()
            if kind.value == "categorical"
        }
        return exprs & coded, exprs - coded

    def _contained(self, name: str, other: str) -> bool:
        """Whether `other` is `name` crossed with further categorical factors (SAS's sense)."""
        (mine, numeric), (theirs, others) = self._factors(name), self._factors(other)
        return numeric == others and mine < theirs

    def hypothesis(self, name: str, type: int) -> np.ndarray:
        """L (q, p) of the type I, II or III test of a term; q = 0 where the columns of other terms
        span its own.

        The rows are lmerTest's, whose Satterthwaite df of several rows depend a little on the
        choice of rows: they are chosen in treatment coding, so that the coding of the factors in
        the model does not matter.
        """
        return {1: self._sequential, 2: self._marginal, 3: self._balanced}[type](name)

    def _sequential(self, name: str) -> np.ndarray:
        """Its contribution after the columns before it: rows of the unit upper factor of X'X."""
        basis = self._treatment.basis()
        return _unit_upper(basis.X)[basis.columns(name)] @ basis.to_coding

    def _marginal(self, name: str) -> np.ndarray:
        """Its contribution after all terms that do not contain it."""
        above = self._containing(name)
        basis = self._treatment.basis([name, *above, *self._lost])
        mine = basis.columns(name)
        rows = _unit_upper(basis.X)[mine] if above else np.eye(len(basis.owners))[mine]
        return rows @ basis.to_coding

    def _balanced(self, name: str) -> np.ndarray:
        """Differences from the first level, averaged over the cells of the other factors, which
        count alike.
        """
        basis = self._treatment.basis()
        mine = basis.columns(name)
        alone = np.eye(len(basis.owners))[mine] @ basis.to_coding
        if self.design.dropped_columns:
            rows = self._estimable(name)
            return alone if _same_span(rows, alone) else rows
        if not self._containing(name):
            return alone
        deviations = self._deviations.basis()
        return deviations.to_coding[deviations.columns(name)]

    @property
    def _lost(self) -> list[str]:
        """Terms of which the fit has kept no column: they are out of the model, and nothing is
        tested beside them.
        """
        return [name for name in self._names if name != "1" and name not in self.columns]

    @property
    def _names(self) -> list[str]:
        return [str(structure.term) for structure in self.spec.structure]

    def _estimable(self, name: str) -> np.ndarray:
        """Type III with empty cells (SAS): functions of the effects of a term and of those that
        contain it, orthogonal to the functions of the latter alone, among all that are estimable.
        Effects have an indicator a level.
        """
        terms = [s.term for s in self.spec.structure if str(s.term) not in self._lost]
        blocks = {str(term): self._indicators(term) for term in terms}
        owners = np.repeat(list(blocks), [block.shape[1] for block in blocks.values()])
        X = np.hstack(list(blocks.values()))
        estimable = scipy.linalg.orth(X.T, ROUNDING).T
        others = ~np.isin(owners, [name, *self._containing(name)])
        mine = _vanishing(estimable[:, others]) @ estimable
        above = _vanishing(mine[:, owners == name]) @ mine
        return _vanishing(mine @ above.T) @ mine @ np.linalg.pinv(X, ROUNDING) @ self.design.X

    def _indicators(self, term: Term) -> np.ndarray:
        """The columns of a term with an indicator for each level of its factors, numbers up to
        1.
        """
        product = np.ones((len(self.frame), 1))
        for factor in () if str(term) == "1" else term.factors:
            values = self._encoded(factor.expr)
            product = (product[:, :, None] * (values / np.abs(values).max())[:, None, :]).reshape(
                len(product), -1
            )
        return product

    def _containing(self, name: str) -> list[str]:
        return [other for other in self.columns if self._contained(name, other)]

    @functools.cached_property
    def _treatment(self) -> _Coding:
        return self._coded(lambda indicators: indicators[:, 1:])

    @functools.cached_property
    def _deviations(self) -> _Coding:
        """Differences from the first level between effects that sum to zero: differences of
        means over cells.
        """

        def code(indicators):
            deviations = indicators[:, 1:] - indicators[:, :1]
            return deviations @ np.linalg.inv(np.eye(deviations.shape[1]) + 1.0)

        return self._coded(code)

    def _coded(self, code: Callable[[np.ndarray], np.ndarray]) -> _Coding:
        """X with the factors of reduced rank coded from their indicators by `code`."""
        blocks, owners = [], []
        for structure in self.spec.structure:
            for scoped in structure.scoped_terms:
                blocks.append(self._scoped(scoped, code))
                owners += [str(structure.term)] * blocks[-1].shape[1]
        X = np.hstack(blocks)
        mine, theirs = _sizes(self.design.X), _sizes(X)  # the rank is that of columns of one size
        M = np.linalg.lstsq(self.design.X / mine, X / theirs, rcond=None)[0]
        return _Coding(X, M, mine, theirs, owners)

    def _scoped(self, scoped: ScopedTerm, code: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Columns of one product of factors."""
        product = np.ones((len(self.frame), 1))
        for part in scoped.factors:
            values = self._encoded(part.factor.expr)
            values = code(values) if part.reduced else values
            product = (product[:, :, None] * values[:, None, :]).reshape(len(values), -1)
        return product

    def _encoded(self, expr: str) -> np.ndarray:
        """A factor on its own: an indicator per level, or its numeric columns."""
        factor = next(f for s in self.spec.structure for f in s.term.factors if f.expr == expr)
        return np.asarray(self._evaluated(formulaic.SimpleFormula([Term([factor])])), float)

    def _evaluated(self, formula: formulaic.SimpleFormula) -> formulaic.ModelMatrix:
        return evaluated(formula, self.frame, self.design.formula.contrasts)


@dataclass(frozen=True, eq=False)
class _Coding:
    """All columns of the fixed part in another coding of its factors, those that depend on
    others too.
    """

    X: np.ndarray
    "(n, c)"
    M: np.ndarray
    "(p, c) the columns as sums of the model's, both over their sizes."
    sizes: np.ndarray
    "(p,) of the model's columns"
    theirs: np.ndarray
    "(c,) of the columns of X"
    owners: list[str]
    "Term of every column."

    def basis(self, last: Sequence[str] = ()) -> _Basis:
        """The columns that do not depend on those before them, where some terms come last, in
        this order.
        """
        order = sorted(range(len(self.owners)), key=lambda j: _place(self.owners[j], last))
        kept = [order[i] for i in independent_columns(self.M[:, order])]
        to_coding = np.linalg.inv(self.M[:, kept]) * self.sizes / self.theirs[kept, None]
        return _Basis(self.X[:, kept], to_coding, [self.owners[j] for j in kept])


@dataclass(frozen=True, eq=False)
class _Basis:
    """The fixed part in another coding of its factors."""

    X: np.ndarray
    "(n, p)"
    to_coding: np.ndarray
    "(p, p) the model's coefficients to those of this coding."
    owners: list[str]
    "Term of every column."

    def columns(self, name: str) -> list[int]:
        """Positions of the columns of a term."""
        return [j for j, owner in enumerate(self.owners) if owner == name]


def _place(name: str, last: Sequence[str]) -> int:
    """0, or from 1 the place among those that come last."""
    return last.index(name) + 1 if name in last else 0


def _same_span(A: np.ndarray, B: np.ndarray) -> bool:
    """Whether the rows of A and B, both of full row rank, span one space."""
    if len(A) != len(B):
        return False
    left, right = (np.linalg.qr(rows.T)[0] for rows in (A, B))
    return bool(np.allclose(np.linalg.norm(left.T @ right, axis=0), 1.0, rtol=0.0, atol=ROUNDING))


def _vanishing(A: np.ndarray) -> np.ndarray:
    """Orthonormal combinations of the rows of A (r, c), which are no longer than 1, that are 0."""
    U, sizes, _ = np.linalg.svd(A)
    return U[:, np.count_nonzero(sizes > ROUNDING) :].T


def _unit_upper(X: np.ndarray) -> np.ndarray:
    """U with ones on its diagonal in X'X = U'DU."""
    R = np.linalg.qr(X, mode="r")
    return R / np.diag(R)[:, None]


def _sizes(X: np.ndarray) -> np.ndarray:
    """Norms of columns (n, p), 1 of those that are 0."""
    norms = np.linalg.norm(X, axis=0)
    return np.where(norms > 0.0, norms, 1.0)


def f_table(fit: FittedModel, type: int = 3, ddf: str | Coefficients | None = None) -> pd.DataFrame:
    """F tests of the terms of the fixed part: `Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F)`, as
    lmerTest's.

    type: 1, terms in their order; 2, each after all that do not contain it; 3, each after all
    others, with cells counting alike whatever the coding of the factors. Use `interlace_jax.anova`
    to compare fits.

    A term whose columns the other terms span (`route` beside `drug` where each drug is given by one
    route) has nothing to test: 0 df, NaN, and a `RankWarning` that names it.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.anova().round(2)
            Sum Sq   Mean Sq  NumDF  DenDF  F value  Pr(>F)
    Days  30031.01  30031.01      1   17.0    45.85     0.0
    """
    if type not in (1, 2, 3):
        raise ValueError(f"type must be 1, 2 or 3, not {type!r}")
    terms = Terms(fit.design, variables(fit.design, fit.model.data))
    by_rule = coefficients(fit, ddf)
    rows = []
    for name in terms.columns:
        t = by_rule.f_test(terms.hypothesis(name, type))
        mean_square = fit.scale * t.F / t.scale
        rows.append((mean_square * t.num_df, mean_square, t.num_df, t.den_df, t.F, t.p))
    table = pd.DataFrame(rows, columns=list(F_COLUMNS), index=pd.Index(terms.columns, dtype=object))
    if spanned := list(table.index[table["NumDF"] == 0]):
        warnings.warn(_nothing_message(spanned, type), RankWarning, stacklevel=2)
    return table


def chi_square_table(fit: FittedModel, type: int = 3, ddf: str | None = None) -> pd.DataFrame:
    """Wald chi-square tests of the terms of the fixed part: `Chisq Df Pr(>Chisq)`.

    type: 2, each after all that do not contain it; 3, each after all others, with cells counting
    alike. Use `interlace_jax.anova` to compare fits. ddf: "normal", the only rule there is.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> fit.anova().round(4)
              Chisq  Df  Pr(>Chisq)
    period  24.9486   3         0.0
    """
    if type not in (2, 3):
        raise ValueError(f"type must be 2 or 3 for a generalised model, not {type!r}")
    terms, c = Terms(fit.design, variables(fit.design, fit.model.data)), coefficients(fit, ddf)
    rows = []
    for name in terms.columns:
        t = c.f_test(terms.hypothesis(name, type))
        rows.append((t.F * t.num_df, t.num_df, t.p))
    return pd.DataFrame(
        rows, columns=["Chisq", "Df", "Pr(>Chisq)"], index=pd.Index(terms.columns, dtype=object)
    )


def _nothing_message(names: Sequence[str], type: int) -> str:
    return (
        f"there is nothing to test about {listed(names)} in a type {type} test: the other terms "
        "make up all of its columns, so that the model is the same without it; it has 0 degrees "
        "of freedom (type 1 tests each term after those written before it)"
    )
