"""A mixed model of columns of X, of any family."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import RegressorMixin
from sklearn.utils.validation import assert_all_finite, column_or_1d

from ..design.design import Design, build
from ..design.formula import SPELLINGS, parse
from ..design.new_data import new_data
from ..numerics.families.family import Gaussian, family_of
from .estimator import MixedModelEstimator
from .frames import GROUPS, complete


class MixedModelRegressor(RegressorMixin, MixedModelEstimator):
    """A mixed model that scikit-learn can tune, validate and put at the end of a pipeline.

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
        `"REML"` or `"ML"`, of linear models; others are fitted by maximum likelihood.
    include_re
        Whether predictions add the random effects of the groups known; groups that the fit has not
        seen get the population's value either way, which of other families is an average.
    family
        The distribution of y, as in `interlace.fit`: "gaussian", "poisson", "gamma" and the like.
        Trials are not taken here: `MixedModelClassifier` is for two outcomes.
    contrasts
        How columns of X are coded, by column, as in `interlace.fit`: `{"condition": "sum"}`.

    X is a data frame, or an array, whose columns are then `x0`, `x1`, ... Missing values are
    refused: impute before, in the pipeline.

    Groups need not be columns of X. Given to `fit` they are the column `groups`, which `formula`
    and `random` may use; where these name no grouping factor, each group has a random intercept.
    scikit-learn passes them on with metadata routing, after `set_fit_request(groups=True)`.

    Without any groups nothing is random: then a linear model is fitted by least squares, with a
    warning, and another family is refused.

    Attributes
    ----------
    result_
        The `Fit`; after a fit without groups, a `LeastSquares` with `fe_params`, `sigma` and
        `predict`.
    n_features_in_, feature_names_in_
        As in every estimator.

    Examples
    --------
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> from interlace_jax.sklearn import MixedModelRegressor
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> X, y = sleep[["Days", "Subject"]], sleep["Reaction"]
    >>> model = MixedModelRegressor("~ Days + (1 + Days | Subject)")
    >>> cross_val_score(model, X, y, groups=X["Subject"], cv=GroupKFold(3)).round(2)
    array([0.14, 0.17, 0.07])
    """

    def __init__(
        self,
        formula: str | None = None,
        *,
        groups: str | int | Iterable[str | int] | None = None,
        random: str | Iterable[str] | None = None,
        method: str = "REML",
        include_re: bool = True,
        family: Any = "gaussian",
        contrasts: Mapping[str, Any] | None = None,
    ):
        self.formula, self.groups, self.random = formula, groups, random
        self.method, self.include_re, self.family = method, include_re, family
        self.contrasts = contrasts

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> MixedModelRegressor:
        """Estimate the model.

        y (n,). groups (n,): the column `groups`, see above. sample_weight (n,): prior weights, as
        in `interlace.fit`.
        """
        y = column_or_1d(y, warn=True, dtype=np.float64, input_name="y")
        assert_all_finite(y, input_name="y")
        options = dict(method=self.method) if self._is_linear else dict(family=self.family)
        self.result_ = self._estimated(X, y, groups, sample_weight, **options)
        return self

    @property
    def _is_linear(self) -> bool:
        return family_of(self.family) == Gaussian()

    def _without_groups(self, formula: str, arguments: dict[str, Any]) -> Any:
        if not self._is_linear:
            raise ValueError(
                f"nothing is random in this model of family={self.family!r}: write {SPELLINGS}, or "
                "give groups to fit"
            )
        warnings.warn(
            "nothing is random in this model, which is fitted by least squares: write "
            f"{SPELLINGS}, or give groups to fit",
            UserWarning,
            stacklevel=4,
        )
        return LeastSquares.fit(formula, **arguments)

    def predict(self, X: Any, return_std: bool = False, groups: Any = None) -> Any:
        """Expected response (n,), and with return_std the standard deviations (n,) of new
        responses, which linear models have.

        groups: as given to `fit`; without them all rows are of groups that the fit has not seen.
        """
        frame = self._new_frame(X, groups)
        if not return_std:
            return self._expected(frame)
        if not self._is_linear:
            raise ValueError("return_std=True is for linear models, family='gaussian'")
        found = self.result_.predict(frame, self.include_re, interval="prediction")
        return complete(found["fit"]), found["se"].to_numpy()


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
        cls,
        formula: str,
        data: pd.DataFrame,
        weights: np.ndarray | None,
        na_action: str,
        contrasts: Mapping[str, Any] | None,
    ) -> LeastSquares:
        """Weighted least squares of a formula without random effects."""
        parsed = replace(parse(formula, GROUPS, contrasts=contrasts), terms=())
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
