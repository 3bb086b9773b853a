"""What the estimators of one mixed model share: from what scikit-learn hands over to a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from ..design.formula import Term, parse
from ..design.frames import MissingValues
from ..design.grouping import NOWHERE
from ..fitting import fit as fit_formula
from ..generalized import GeneralizedFit
from .frames import GROUPS, complete, frame_of, group_names


class MixedModelEstimator(BaseEstimator):
    """What the estimators share: from what scikit-learn hands over to a fit."""

    def _estimated(self, X: Any, y: np.ndarray, groups: Any, sample_weight: Any, **options: Any):
        """The fit of X and numbers y (n,); options: of `interlace.fit`."""
        frame = frame_of(self, X, groups, reset=True)
        names = list(frame) if groups is None else list(frame)[:-1]
        check_consistent_length(frame, y)
        response = next(
            name
            for name in ("y", *(f"y{i}" for i in range(len(frame.columns))))
            if name not in frame
        )
        weights = None if sample_weight is None else column_or_1d(sample_weight, dtype=np.float64)
        rows = dict(data=frame.assign(**{response: y}), weights=weights, na_action="raise")
        arguments = rows | dict(contrasts=self.contrasts)
        formula, factors = f"{response} {self._right_side(names)}", group_names(self.groups, names)
        self._grouped = groups is not None
        terms = self._terms(formula, factors)
        if self._grouped and not terms:
            factors = [GROUPS]
        elif self._grouped and not any(GROUPS in term.group for term in terms):
            raise ValueError(
                "groups are given to fit, but the model has a grouping factor of its own, "
                f"{terms[0].factor!r}: write (1 | {GROUPS}) into the formula to have both"
            )
        try:
            if terms or self._grouped:
                random = dict(groups=factors, random=self.random)
                return fit_formula(formula, **random, **options, **arguments)
            return self._without_groups(formula, arguments)
        except MissingValues as err:
            raise ValueError(
                f"missing values in {err.where}: impute them, or leave out these rows"
            ) from None

    def _new_frame(self, X: Any, groups: Any) -> pd.DataFrame:
        """Rows to predict, with their groups."""
        check_is_fitted(self)
        if groups is not None and not self._grouped:
            raise ValueError("groups are given to predict, but were not to fit")
        frame = frame_of(self, X, groups, reset=False)
        if self._grouped and groups is None:
            frame[GROUPS] = NOWHERE
        return frame

    def _expected(self, frame: pd.DataFrame) -> np.ndarray:
        """Expected responses (n,); those of a family are averaged over groups that are not
        known.
        """
        if not isinstance(self.result_, GeneralizedFit):
            return complete(self.result_.predict(frame, self.include_re))
        if not self.include_re:
            return complete(self.result_.predict(frame, marginal=True))
        return complete(self.result_.predict(frame, unseen="average"))

    def _right_side(self, names: list[str]) -> str:
        """The formula, or one of all columns."""
        if self.formula is None:
            taken = {
                name
                for term in self._terms("~ 1", group_names(self.groups, names))
                for name in term.group
            }
            return "~ " + (" + ".join(_quoted(name) for name in names if name not in taken) or "1")
        if not (isinstance(self.formula, str) and self.formula.lstrip().startswith("~")):
            raise ValueError(
                "formula must be a right side, '~ x + (1 | g)', as y is given apart; not "
                f"{self.formula!r}"
            )
        return self.formula.strip()

    def _terms(self, formula: str, factors: list[str]) -> tuple[Term, ...]:
        """Random-effects terms of the parameters; there may be none."""
        random = [self.random] if isinstance(self.random, str) else list(self.random or ())
        return parse(formula, factors, [*random, f"(1 | {GROUPS})"]).terms[:-1]


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"
