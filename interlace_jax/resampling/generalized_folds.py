"""Cross-validation of generalised models: every fold is the model fitted without its rows.

The predictive density of a row is that of the family over its random effects given the training
rows: with eta normal, of mean x'beta + z'b^ and variance sum_g z'C_g z (C_g the covariance of the
effects of a level given the training rows; all of its variance where a level has none), an integral
of one dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..models import response
from ..models.generalized import CompiledGeneralizedModel, FittedGeneralizedModel
from ..models.linear_predictor import _of_fit
from ..numerics.families.family import Ordinal
from ..support.progress import progress_bar
from .folds import CrossValidation, Fold, folds_of
from .generalized_refits import ending, fit_without, unfit
from .scores import LIKELIHOOD_SCORES, _score, _scores

COLUMNS = ["observed", "predicted", "log_density"]


class _Predicted(NamedTuple):
    """What the model of a fold says about its test rows."""

    values: np.ndarray
    "(3, rows) observed, predicted, and the log of the predictive density."
    status: str
    converged: bool
    singular: bool


def cross_validate_generalized(
    model: CompiledGeneralizedModel,
    cv: Any,
    k: int,
    by: str | None,
    scoring: Any,
    seed: Any,
    progress: bool | None,
) -> CrossValidation:
    """What `cross_val` does, for a generalised model that has been compiled."""
    design = model.design
    is_ordinal = isinstance(design.observed.family, Ordinal)
    known = {"log_score": LIKELIHOOD_SCORES["log_score"]} if is_ordinal else LIKELIHOOD_SCORES
    scores, folds = _scores(scoring, known), folds_of(design, model.data, cv, k, by, seed)
    bar = progress_bar(
        len(folds), "fold", "fitting", len(folds) > 20 if progress is None else progress
    )
    found = []
    for fold in folds:
        found.append(_predicted(model, fold))
        bar.update(1)
    bar.close()
    labels = pd.Index([fold.label for fold in folds], name="fold", tupleize_cols=False)
    table = {"n_train": [len(fold.train) for fold in folds]}
    table["n_test"] = [len(fold.test) for fold in folds]
    by_fold = pd.DataFrame([_score(scores, f.values) for f in found], labels)
    ends = [(f.converged, f.singular, f.status) for f in found]
    outcomes = pd.DataFrame(ends, labels, columns=["converged", "singular", "status"])
    rows = np.concatenate([fold.test for fold in folds])
    values = np.concatenate([f.values for f in found], axis=1)
    predictions = pd.DataFrame(values.T, design.index[rows], columns=COLUMNS)
    predictions.insert(0, "fold", labels.repeat([len(fold.test) for fold in folds]))
    return CrossValidation(
        pd.concat([pd.DataFrame(table, labels), by_fold, outcomes], axis=1),
        pd.Series(_score(scores, values), name="pooled"),
        predictions.iloc[np.argsort(rows, kind="stable")],
    )


def _predicted(model: CompiledGeneralizedModel, fold: Fold) -> _Predicted:
    design, test = model.design, fold.test
    used = np.isin(np.arange(len(design.y)), fold.train)
    observed = (design.y / design.observed.m)[test]
    if reason := unfit(design, used):
        nothing = np.full(len(test), np.nan)
        return _Predicted(np.array([observed, nothing, nothing]), reason, False, False)
    fit = fit_without(model, used)
    free = fit.free_rows(_of_fit(design))
    eta, variances = fit.estimate.eta, _effect_variances(fit)
    rows = [a[test] for a in (eta, variances, *free)]
    trials = np.ones(len(used)) * design.observed.m
    row = design.y[test], design.w[test], trials[test]
    density = response.averaged_log_density(fit.family, *row, rows[0], rows[2:], rows[1])
    if isinstance(fit.family, Ordinal):
        mean = np.exp(density)
    else:
        mean = response.averaged(fit.family, rows[0], rows[2:], rows[1])
    return _Predicted(
        np.array([observed, mean, density]), ending(fit), fit.converged, fit.is_singular
    )


def _effect_variances(fit: FittedGeneralizedModel) -> np.ndarray:
    """Variance (n,) of z'b given the rows of the fit, the factors as if independent."""
    total = 0.0
    for f, C in zip(fit.design.factors, fit.mode_covariances, strict=True):
        total = total + np.einsum("nk,nkl,nl->n", f.Z, C[f.codes], f.Z)
    return total
