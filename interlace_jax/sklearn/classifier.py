"""A binomial mixed model of two classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from ..design.design import Design, build
from ..design.formula import SPELLINGS, parse
from ..design.new_data import new_data
from ..numerics.families.family import Bernoulli
from .estimator import MixedModelEstimator
from .frames import GROUPS


class MixedModelClassifier(ClassifierMixin, MixedModelEstimator):
    """A binomial mixed model of two classes, as a scikit-learn classifier.

    Parameters
    ----------
    formula, groups, random
        As of `MixedModelRegressor`.
    link
        "logit", "probit", "cloglog", "cauchit" or "log".
    include_re
        Whether probabilities add the random effects of the groups known. Those of groups that the
        fit has not seen, and with include_re=False of all, are averaged over random effects.
    nagq
        1: Laplace's approximation; from 2 on nodes of quadrature, as in `interlace.fit`.
    contrasts
        How columns of X are coded, by column, as in `interlace.fit`: `{"condition": "sum"}`.

    The second of the two sorted classes is the one whose probability is modelled. More than two
    classes are refused: ordered ones are for `interlace.fit(..., family="ordinal")`. Without any
    groups nothing is random: then it is a logistic regression without a penalty, with a warning.

    Attributes
    ----------
    result_
        The `GeneralizedFit`; after a fit without groups, a `Logistic`.
    classes_
        The two classes.
    n_features_in_, feature_names_in_
        As in every estimator.

    Examples
    --------
    >>> from interlace_jax.sklearn import MixedModelClassifier
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> X, slow = sleep[["Days"]], sleep["Reaction"] > 300
    >>> model = MixedModelClassifier("~ Days").fit(X, slow, groups=sleep["Subject"])
    >>> model.predict_proba(X.head(2), groups=sleep["Subject"].head(2)).round(2)
    array([[0.9 , 0.1 ],
           [0.83, 0.17]])
    """

    def __init__(
        self,
        formula: str | None = None,
        *,
        groups: str | int | Iterable[str | int] | None = None,
        random: str | Iterable[str] | None = None,
        link: str = "logit",
        include_re: bool = True,
        nagq: int = 1,
        contrasts: Mapping[str, Any] | None = None,
    ):
        self.formula, self.groups, self.random = formula, groups, random
        self.link, self.include_re, self.nagq = link, include_re, nagq
        self.contrasts = contrasts

    def __sklearn_tags__(self):
        """Two classes only."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> MixedModelClassifier:
        """Estimate the model.

        y (n,): the classes, of any type. groups (n,): the column `groups`. sample_weight (n,):
        prior weights; a weight of 2 is a row twice.
        """
        y = column_or_1d(y, warn=True, input_name="y")
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            more = ": more belong to family='ordinal' of interlace.fit, if they are in order"
            raise ValueError(
                "Only binary classification is supported. The type of the target has "
                f"{len(self.classes_)} class{'es' + more if len(self.classes_) > 2 else ''}"
            )
        if sample_weight is not None:
            _check_weighted_classes(codes, sample_weight)
        options = dict(family=Bernoulli(self.link), nagq=self.nagq)
        self.result_ = self._estimated(X, codes * 1.0, groups, sample_weight, **options)
        return self

    def _without_groups(self, formula: str, arguments: dict[str, Any]) -> Any:
        if self.link != "logit":
            raise ValueError(
                f"nothing is random in this model with link={self.link!r}: write {SPELLINGS}, or "
                "give groups to fit"
            )
        warnings.warn(
            "nothing is random in this model, which is a logistic regression: write "
            f"{SPELLINGS}, or give groups to fit",
            UserWarning,
            stacklevel=4,
        )
        return Logistic.fit(formula, **arguments)

    def predict_proba(self, X: Any, groups: Any = None) -> np.ndarray:
        """Probabilities (n, 2) of the classes.

        groups: as given to `fit`; without them all rows are of groups that the fit has not seen.
        """
        p = self._expected(self._new_frame(X, groups))
        return np.column_stack([1.0 - p, p])

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """The more probable class of every row (n,)."""
        p = self.predict_proba(X, groups)[:, 1]
        return self.classes_[(p > 0.5).astype(int)]


def _check_weighted_classes(codes: np.ndarray, weights: Any) -> None:
    """Refuse weights that leave one class."""
    weights = column_or_1d(weights, dtype=np.float64)
    check_consistent_length(codes, weights)
    if len(np.unique(codes[weights > 0.0])) < 2:
        raise ValueError("the weights of all rows but those of one class, at most, are zero")


@dataclass(frozen=True, eq=False)
class Logistic:
    """A logistic regression, in which nothing is random, with names of `Fit`."""

    design: Design
    fe_params: pd.Series
    "Coefficients."

    @classmethod
    def fit(
        cls,
        formula: str,
        data: pd.DataFrame,
        weights: np.ndarray | None,
        na_action: str,
        contrasts: Mapping[str, Any] | None,
    ) -> Logistic:
        """Maximum likelihood of a formula without random effects, by scikit-learn."""
        parsed = replace(parse(formula, GROUPS, contrasts=contrasts), terms=())
        design = build(parsed, data, weights=weights, na_action=na_action)
        size = np.sqrt(np.mean(design.X**2, axis=0))
        made = LogisticRegression(penalty=None, fit_intercept=False, tol=1e-10, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of separated data, whose estimates have no end
            made.fit(design.X / size, design.y, design.weights)
        return cls(design, pd.Series(made.coef_[0] / size, list(design.columns)))

    def predict(self, newdata: Any, include_re: bool = True) -> pd.Series:
        """Probability of a 1."""
        new = new_data(self.design, newdata, random=False)
        eta = new.X @ self.fe_params.to_numpy()
        return pd.Series(0.5 * (1.0 + np.tanh(0.5 * eta)), new.index)
