"""Ids as their random effects: a transformer for columns with very many labels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import KFold
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from ..fitting import fit as fit_formula
from ..support.arguments import whole_number
from .frames import frame_of


class RandomEffectsEncoder(TransformerMixin, BaseEstimator):
    """Every id as its random effect on y, shrunk by REML: out of fold for the rows of the training.

    Parameters
    ----------
    folds
        In how many parts `fit_transform` divides the rows.
    with_sd
        Whether a second column for each id has the conditional standard deviation of its effect:
        how little is known of it.
    random_state
        Of the division into folds, as scikit-learn takes it.

    Attributes
    ----------
    effects_
        By column the effect of every id, in units of y: a list of Series.
    n_features_in_, feature_names_in_
        As in every estimator.

    Notes
    -----
    All columns of X are ids, of any type. They are crossed random intercepts of one linear mixed
    model, fitted jointly. `fit(X, y).transform(X)` is not `fit_transform(X, y)`: the latter gives
    each row the effect that the other folds say its ids have, so that nothing of its own y is in
    its code, as scikit-learn's `TargetEncoder` does. An id that is not there has 0, the mean. An id
    of a column without repetitions tells nothing, and has 0 too.

    Examples
    --------
    >>> from interlace_jax.sklearn import RandomEffectsEncoder
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> encoder = RandomEffectsEncoder(random_state=0)
    >>> encoder.fit(sleep[["Subject"]], sleep["Reaction"])
    RandomEffectsEncoder(random_state=0)
    >>> encoder.transform(sleep[["Subject"]].iloc[[0, 10]]).round(1)
    array([[ 37.8],
           [-72.2]])
    """

    def __init__(self, folds: int = 5, *, with_sd: bool = False, random_state: Any = None):
        self.folds, self.with_sd, self.random_state = folds, with_sd, random_state

    def fit(self, X: Any, y: Any) -> RandomEffectsEncoder:
        """Estimate the effects of all ids. X (n, columns), y (n,)."""
        self._fit(X, y)
        return self

    def _fit(self, X, y):
        whole_number("folds", self.folds, 2)
        ids, y = frame_of(self, X, None, reset=True), _response(y)
        check_consistent_length(ids, y)
        found = _effects(ids, y)
        self.effects_, self._sds, self._priors = found
        return ids, y, found

    def transform(self, X: Any) -> np.ndarray:
        """Effects (n, columns) of the ids by all rows of the training; with_sd (n, 2 columns)."""
        check_is_fitted(self)
        ids = frame_of(self, X, None, reset=False)
        return self._codes(ids, self.effects_, self._sds, self._priors)

    def fit_transform(self, X: Any, y: Any) -> np.ndarray:
        """Estimate the effects, and return those that the other folds say the ids of a row have."""
        ids, y, _ = self._fit(X, y)
        width = len(self.get_feature_names_out())
        codes = np.zeros((len(y), width))
        folds = KFold(min(self.folds, len(y)), shuffle=True, random_state=self.random_state)
        for others, own in folds.split(y):
            codes[own] = self._codes(ids.iloc[own], *_effects(ids.iloc[others], y[others]))
        return codes

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of X's columns, and with_sd these with `_sd`."""
        check_is_fitted(self)
        named = getattr(self, "feature_names_in_", None)
        if named is None:
            named = [f"x{j}" for j in range(self.n_features_in_)]
        if input_features is not None:
            if len(input_features) != len(named):
                raise ValueError("input_features should have length equal to number of features")
            if hasattr(self, "feature_names_in_") and list(input_features) != list(named):
                raise ValueError("input_features is not equal to feature_names_in_")
            named = input_features
        more = [f"{name}_sd" for name in named] if self.with_sd else []
        return np.asarray([*named, *more], dtype=object)

    def _codes(self, ids, effects, sds, priors):
        places = [own.index.get_indexer(ids[name]) for name, own in zip(ids, effects, strict=True)]
        pairs = list(zip(places, effects, strict=True))
        columns = [np.where(at < 0, 0.0, own.to_numpy()[at]) for at, own in pairs]
        if self.with_sd:
            each = zip(places, sds, priors, strict=True)
            columns += [np.where(at < 0, prior, own.to_numpy()[at]) for at, own, prior in each]
        return np.column_stack(columns)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _response(y):
    y = column_or_1d(y, warn=True, dtype=np.float64, input_name="y")
    assert_all_finite(y, input_name="y")
    return y


def _effects(ids: pd.DataFrame, y: np.ndarray):
    """By column the effects of its ids, their conditional SDs, and the SD of an unseen id's."""
    names = [f"g{j}" for j in range(ids.shape[1])]
    frame = ids.set_axis(names, axis=1)
    used = [name for name in names if 1 < frame[name].nunique() < len(frame)]
    none = pd.Series([0.0], [frame.iloc[0, 0]])
    effects, sds, priors = [none] * len(names), [none] * len(names), [0.0] * len(names)
    if not used or np.ptp(y) == 0.0:
        return effects, sds, priors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a variance of 0 is an answer here
        found = fit_formula("y ~ 1", frame.assign(y=y), groups=used, na_action="raise")
    for name in used:
        place = names.index(name)
        effects[place] = _column(found.random_effects[name])
        sds[place] = _column(found.random_effects_se[name])
        priors[place] = float(np.sqrt(found.covariances[name].iloc[0, 0]))
    return effects, sds, priors


def _column(values):
    return values.iloc[:, 0] if isinstance(values, pd.DataFrame) else values
