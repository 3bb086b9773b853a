"""A linear mixed model of columns of X."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from ..design.design import Design, build
from ..design.formula import SPELLINGS, Term, parse
from ..design.frames import MissingValues
from ..design.grouping import NOWHERE
from ..design.new_data import new_data
from ..fitting import fit as fit_formula
from .frames import GROUPS, complete, frame_of, group_names


class MixedModelRegressor(RegressorMixin, BaseEstimator):
    """A linear mixed model that scikit-learn can tune, validate and put at the end of a pipeline.

    Parameters
    ----------
    formula
        The right side in lme4's grammar, `"~ x + (1 + x | g)"`, of columns of X. By default all
        columns that are not grouping factors, added up.
    groups
        Columns of X with a random intercept: a name, a position, or several.
    random
        Random-effects terms, as in `interlace.fit`.
    method
        `"REML"` or `"ML"`.
    include_re
        Whether predictions add the random effects of the groups known; groups that the fit has not
        seen get the population's value either way.

    X is a data frame, or an array, whose columns are then `x0`, `x1`, ... Missing values are
    refused: impute before, in the pipeline.

    Groups need not be columns of X. Given to `fit` they are the column `groups`, which `formula`
    and `random` may use; where these name no grouping factor, each group has a random intercept.
    scikit-learn passes them on with metadata routing, after `set_fit_request(groups=True)`.

    Without any groups nothing is random: then the model is fitted by least squares, with a warning.

    Attributes
    ----------
    result_
        The `Fit`; after a fit without groups, a `LeastSquares` with `fe_params`, `sigma` and
        `predict`.
    n_features_in_, feature_names_in_
        As in every estimator.

    Examples
    --------
    >>> model = MixedModelRegressor("~ Days + (1 + Days | Subject)")
    >>> cross_val_score(model, X, y, groups=X["Subject"], cv=GroupKFold(6))
    """

    def __init__(
        self,
        formula: str | None = None,
        *,
        groups: str | int | Iterable[str | int] | None = None,
        random: str | Iterable[str] | None = None,
        method: str = "REML",
        include_re: bool = True,
    ):
        self.formula, self.groups, self.random = formula, groups, random
        self.method, self.include_re = method, include_re

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> MixedModelRegressor:
        """Estimate the model.

        y (n,). groups (n,): the column `groups`, see above. sample_weight (n,): prior weights, as
        in `interlace.fit`.
        """
        frame = frame_of(self, X, groups, reset=True)
        names = list(frame) if groups is None else list(frame)[:-1]
        y = column_or_1d(y, warn=True, dtype=np.float64, input_name="y")
        assert_all_finite(y, input_name="y")
        check_consistent_length(frame, y)
        response = next(
            name
            for name in ("y", *(f"y{i}" for i in range(len(frame.columns))))
            if name not in frame
        )
        weights = None if sample_weight is None else column_or_1d(sample_weight, dtype=np.float64)
        arguments = dict(data=frame.assign(**{response: y}), weights=weights, na_action="raise")
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
            self.result_ = self._fitted(formula, factors, bool(terms), arguments)
        except MissingValues as err:
            raise ValueError(
                f"missing values in {err.where}: impute them, or leave out these rows"
            ) from None
        return self

    def _fitted(
        self, formula: str, factors: list[str], has_terms: bool, arguments: dict[str, Any]
    ) -> Any:
        if has_terms or self._grouped:
            return fit_formula(
                formula, groups=factors, random=self.random, method=self.method, **arguments
            )
        warnings.warn(
            "nothing is random in this model, which is fitted by least squares: write "
            f"{SPELLINGS}, or give groups to fit",
            UserWarning,
            stacklevel=3,
        )
        return LeastSquares.fit(formula, **arguments)

    def predict(self, X: Any, return_std: bool = False, groups: Any = None) -> Any:
        """Expected response (n,), and with return_std the standard deviations (n,) of new
        responses.

        groups: as given to `fit`; without them all rows are of groups that the fit has not seen.
        """
        check_is_fitted(self)
        if groups is not None and not self._grouped:
            raise ValueError("groups are given to predict, but were not to fit")
        frame = frame_of(self, X, groups, reset=False)
        if self._grouped and groups is None:
            frame[GROUPS] = NOWHERE
        if not return_std:
            return complete(self.result_.predict(frame, self.include_re))
        found = self.result_.predict(frame, self.include_re, interval="prediction")
        return complete(found["fit"]), found["se"].to_numpy()

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


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """A fit in which nothing is random, with the names of `Fit`."""

    design: Design
    fe_params: pd.Series
    "Coefficients."
    fe_cov: pd.DataFrame
    "Their covariance matrix."
    sigma: float
    "Residual standard deviation."

    @classmethod
    def fit(
        cls, formula: str, data: pd.DataFrame, weights: np.ndarray | None, na_action: str
    ) -> LeastSquares:
        """Weighted least squares of a formula without random effects."""
        parsed = replace(parse(formula, GROUPS), terms=())
        design = build(parsed, data, weights=weights, na_action=na_action)
        root = np.ones(len(design.y)) if design.weights is None else np.sqrt(design.weights)
        Q, R = np.linalg.qr(root[:, None] * design.X)
        inverse, names = np.linalg.inv(R), list(design.columns)
        beta = inverse @ (Q.T @ (root * design.y))
        variance = np.sum((root * (design.y - design.X @ beta)) ** 2) / (len(design.y) - len(beta))
        cov = pd.DataFrame(variance * inverse @ inverse.T, names, names)
        return cls(design, pd.Series(beta, names), cov, float(np.sqrt(variance)))

    def predict(
        self, newdata: Any, include_re: bool = True, interval: str | None = None
    ) -> pd.Series | pd.DataFrame:
        """Expected response; with an interval `fit`, and `se` of a new response."""
        new = new_data(self.design, newdata, random=False)
        fitted = pd.Series(new.X @ self.fe_params.to_numpy(), new.index)
        if interval is None:
            return fitted
        variance = self.sigma**2 + np.einsum("ij,jk,ik->i", new.X, self.fe_cov.to_numpy(), new.X)
        return pd.DataFrame({"fit": fitted, "se": np.sqrt(variance)})
