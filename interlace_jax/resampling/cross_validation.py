"""Cross-validation: every fold is the model refitted without its rows, and all folds are one
batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design, build
from ..design.formula import parse
from ..design.residual_formula import Power, Residual
from ..engines.choice import engine_for
from ..inference.conditional import conditional
from ..models.compiled import CompiledModel
from ..models.fitted import FittedModel
from ..models.generalized import CompiledGeneralizedModel, FittedGeneralizedModel
from ..models.linear_predictor import Rows
from ..numerics.crossproducts.moments import moments
from ..numerics.estimation.bfgs import STATUS
from ..numerics.families.family import Distribution, Gaussian, family_of
from ..numerics.likelihood.random_effects import modes
from ..numerics.uncertainty.sensitivity import row_variances
from ..runtime.compilation import jit
from ..support.arguments import one_of
from ..support.later import jax, jnp
from .folds import CrossValidation, Fold, folds_of, others
from .generalized_folds import cross_validate_generalized
from .refits import Refits, refit_without, without
from .scores import _score, _scores


def cross_val(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    *,
    cv: Any = "logo",
    k: int = 5,
    by: str | None = None,
    scoring: Any = None,
    seed: Any = 0,
    method: str | None = None,
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    na_action: str = "drop",
    cov: Mapping[str, Any] | None = None,
    residual: str | Residual | None = None,
    dispersion: str | Power | None = None,
    family: str | Distribution = "gaussian",
    trials: str | float | Iterable[float] | None = None,
    nagq: int = 1,
    zero_inflation: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> CrossValidation:
    """Predict each part of the data from a model fitted to the rest.

    The predictive distribution of a row is normal. Its mean is x'beta + z'b with the random effects
    of the levels that the training rows have, so the population's for groups left out (or, with
    `cov`, what related levels tell of them).
    Its variance is that of a new observation: the residual's, and that of x'beta + z'b given the
    training rows, which for a group left out has the full variance of the random effects in it;
    theta and sigma count as known.
    With a family it is the family's, over the random effects given the training rows; all
    parameters count as known. `predicted` is the expected response (of binomial families a
    proportion), and scores are `"rmse" "mae" "log_score"`, of an ordinal response `"log_score"`.

    A fold is what `fit` on its training rows and `predict` on its test rows give. The formula is
    evaluated once, in all rows, and that is the same thing as long as its columns span the same
    space whatever rows they are made from: so for `poly`, `scale`, `center` and every coding of a
    factor in the fixed part, and in random terms with an intercept whose columns are correlated. It
    is not for knots placed by the data (`bs` or `cr` with `df=`), for transforms of the response,
    nor for random terms without correlations or intercept (`||`, `0 + scale(x)`), whose columns the
    held-out rows shift a little: compute such columns before, or give `knots=`.

    A fold that cannot be fitted (a level of a fixed factor in the test rows only, fewer than two
    groups left) has missing scores, and says why in `status`.

    Parameters
    ----------
    formula, data, groups, random, method, weights, offset, na_action
        As in `fit`.
    cov, residual, dispersion, family, trials, nagq, zero_inflation, contrasts
        As in `fit`. Where residuals covary predictions are without what the other rows of a subject
        tell of a residual.
    cv
        `"logo"` leaves out one group at a time, `"kfold"` whole groups in k parts of about equal
        size, `"loo"` one row at a time, `"kfold-rows"` rows in k parts. Or a splitter of
        scikit-learn, which splits the rows used, or pairs (train, test) of positions in `data`.
    k
        How many folds the k-fold schemes make.
    by
        What "logo" and "kfold" take for groups, and what a splitter gets as `groups`: a grouping
        factor or a column. By default the grouping factor with the fewest levels, or the subjects
        whose residuals covary.
    scoring
        Which scores: names among `"rmse" "mae" "crps" "log_score"` (by default all), functions of
        (observed, predicted), scikit-learn's scorers; one of these, a list, or a mapping from
        names. log_score is the mean of -log density; of all four, smaller is better.
    seed
        Of the k-fold schemes: anything `numpy.random.default_rng` takes.
    progress
        Show a progress bar; by default when there is more than one chunk of folds.

    Raises
    ------
    ValueError, TypeError
        For input that determines no model, or no folds; for crossed factors that `fit` gives to the
        iterative core.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> found = interlace_jax.cross_val(formula, sleep, cv="kfold", k=3)
    >>> found.folds[["n_test", "rmse", "crps"]].round(1)
          n_test  rmse  crps
    fold
    0         60  48.2  26.7
    1         60  62.9  36.5
    2         60  30.0  19.3
    """
    if family_of(family) != Gaussian() or zero_inflation is not None:
        rows = dict(weights=weights, offset=offset, na_action=na_action, cov=cov)
        of_family = dict(family=family, trials=trials, nagq=nagq, dispersion=dispersion)
        given = rows | of_family | dict(zero_inflation=zero_inflation, contrasts=contrasts)
        model = CompiledGeneralizedModel.of(formula, data, groups, random, **given)
        return cross_validate_generalized(model, cv, k, by, scoring, seed, progress)
    method = method or "REML"
    one_of("method", method, ("REML", "ML"))
    parsed = parse(formula, groups, random, residual, dispersion, contrasts=contrasts)
    design = build(parsed, data, weights=weights, offset=offset, na_action=na_action, cov=cov)
    engine_for(design, "auto").require("cross_validation")
    return cross_validate(design, data, method, cv, k, by, scoring, seed, progress)


def cross_validated(
    fit: FittedModel,
    cv: Any = "logo",
    k: int = 5,
    by: str | None = None,
    scoring: Any = None,
    seed: Any = 0,
    progress: bool | None = None,
) -> CrossValidation:
    """Predict each part of the data from this model fitted to the rest.

    Arguments as in `interlace_jax.cross_val`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.cross_val("kfold", k=3).folds[["n_test", "rmse"]].round(1)
          n_test  rmse
    fold
    0         60  48.2
    1         60  62.9
    2         60  30.0
    """
    fit.model.engine.require("cross_validation")
    if isinstance(fit, FittedGeneralizedModel):
        return cross_validate_generalized(fit.model, cv, k, by, scoring, seed, progress)
    return cross_validate(
        fit.design, fit.model.data, fit.method, cv, k, by, scoring, seed, progress
    )


def cross_validate(
    design: Design,
    data: Any,
    method: str,
    cv: Any,
    k: int,
    by: str | None,
    scoring: Any,
    seed: Any,
    progress: bool | None,
) -> CrossValidation:
    """What `cross_val` does, for a design that has been built."""
    scores, folds = _scores(scoring), folds_of(design, data, cv, k, by, seed)
    sizes, rows_out = (
        np.array([len(fold.test) for fold in folds]),
        np.concatenate([fold.test for fold in folds]),
    )
    real = np.arange(sizes.max())[None] < sizes[:, None]
    tests = np.zeros(real.shape, int)
    tests[real] = rows_out

    def predicted(places, rows, estimate):
        found = _predicted(*rows, estimate.t, estimate.theta, estimate.beta)
        return tuple(np.take_along_axis(np.asarray(a), tests[places], 1) for a in found)

    refits = refit_without(
        design, [others(fold.train, len(design.y)) for fold in folds], method, predicted, progress
    )
    labels = pd.Index([fold.label for fold in folds], name="fold", tupleize_cols=False)
    if design.residual is not None:
        refits = refits._replace(more=_conditional_predictions(design, data, folds, real, refits))
    predictions = _predictions(design, labels, real, rows_out, refits)
    values = predictions[["observed", "predicted", "sd"]].to_numpy().T
    by_fold = [_score(scores, part) for part in np.split(values, np.cumsum(sizes)[:-1], 1)]
    counts = pd.DataFrame({"n_train": [len(fold.train) for fold in folds], "n_test": sizes}, labels)
    return CrossValidation(
        pd.concat([counts, pd.DataFrame(by_fold, labels), _outcomes(labels, refits)], axis=1),
        pd.Series(_score(scores, values), name="pooled"),
        predictions.iloc[np.argsort(rows_out, kind="stable")],
    )


def _conditional_predictions(
    design: Design, data: Any, folds: list[Fold], real: np.ndarray, refits: Refits
) -> tuple[np.ndarray, np.ndarray]:
    """Means, without offsets, and variances over sigma^2 but for 1 / w, (refits, widest) each."""
    found = np.full((2, len(refits.places), real.shape[1]), np.nan)
    for lane, place in enumerate(refits.places):
        test = folds[place].test
        rest = without(design, test)
        estimate = jax.tree.map(lambda a, lane=lane: a[lane], refits.estimate)
        fit = FittedModel(CompiledModel(rest, data, {}), estimate, "REML", "normal")
        rows = Rows(
            design.X[test],
            [f.Z[test] for f in design.factors],
            [f.codes[test] for f in design.factors],
        )
        subjects = design.residual.as_seen_by(rest.residual, test)
        names = tuple(f.name for f in design.factors)
        made = conditional(fit, rows, subjects, design.w[test], names, False, True, None)
        found[:, lane, : len(test)] = made.fitted, made.variance / fit.scale - 1.0 / design.w[test]
    return found[0], found[1]


@jit
def _predicted(plan, y, X, Z, weights, offset, K, t, theta, beta):
    """X beta + Z b of every row, left out or not, and its variance over sigma^2: (lanes, n)
    each.
    """
    codes = [plan.codes[j] for j in plan.layout.order]

    def one(t, theta, beta, w):
        mean = X @ beta
        for b, z, code in zip(
            modes(t, moments(plan, y, X, Z, w, offset, K)), Z, codes, strict=True
        ):
            mean = mean + jnp.einsum("nk,nk->n", z, b[code])
        return mean, row_variances(theta, plan, X, Z, w, K)

    return jax.vmap(one)(t, theta, beta, weights)


def _predictions(
    design: Design, labels: pd.Index, real: np.ndarray, test: np.ndarray, refits: Refits
) -> pd.DataFrame:
    """Fold by fold `fold observed predicted sd` of the test rows; real (folds, widest): places
    in `refits`.
    """
    mean, variance = np.full((2, *real.shape), np.nan)
    mean[refits.places], variance[refits.places] = refits.more
    sigma = np.full(len(labels), np.nan)
    sigma[refits.places] = refits.estimate.sigma
    fold = np.nonzero(real)[0]
    noise = 1.0 if design.weights is None else 1.0 / design.weights[test]
    shift = 0.0 if design.offset is None else design.offset[test]
    columns = {
        "fold": labels[fold],
        "observed": design.y[test],
        "predicted": mean[real] + shift,
        "sd": sigma[fold] * np.sqrt(variance[real] + noise),
    }
    return pd.DataFrame(columns, index=design.index[test])


def _outcomes(labels: pd.Index, refits: Refits) -> pd.DataFrame:
    """How the fit of every fold ended."""
    e, folds = refits.estimate, len(labels)
    converged, singular, status = (
        np.zeros(folds, bool),
        np.zeros(folds, bool),
        np.empty(folds, object),
    )
    converged[refits.places], singular[refits.places] = e.converged, refits.singular
    status[refits.places] = np.where(e.converged, "converged", np.array(STATUS)[e.status])
    for place, reason in refits.failures:
        status[place] = reason
    return pd.DataFrame({"converged": converged, "singular": singular, "status": status}, labels)
