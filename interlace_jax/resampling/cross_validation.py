"""Cross-validation: every fold is the model refitted without its rows, and all folds are one
batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..design.design import Design, build
from ..design.files import refuse_scanned
from ..design.formula import parse
from ..design.frames import as_frame, get_column
from ..design.residual_formula import Power, Residual
from ..design.selection import groupings
from ..engines.choice import engine_for
from ..inference.conditional import conditional
from ..models.compiled import CompiledModel
from ..models.fitted import FittedModel
from ..models.linear_predictor import Rows
from ..numerics.crossproducts.moments import moments
from ..numerics.estimation.bfgs import STATUS
from ..numerics.likelihood.random_effects import modes
from ..numerics.uncertainty.sensitivity import row_variances
from ..runtime.compilation import jit
from ..support.arguments import one_of
from ..support.later import jax, jnp
from .refits import Refits, refit_without, without
from .scores import _score, _scores

SCHEMES = ("logo", "kfold", "loo", "kfold-rows")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What models fitted to some rows predict for others; made by `cross_val`."""

    folds: pd.DataFrame
    "A row per fold: `n_train n_test`, the scores, `converged singular status`."
    pooled: pd.Series
    "The scores over all rows predicted."
    predictions: pd.DataFrame = field(repr=False)
    """A row per row held out, on the index of the data: `fold observed predicted sd`; missing
    where a fold has no fit.
    """

    def __repr__(self) -> str:
        fitted = int(self.folds["converged"].sum())
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.pooled.items())
        return f"<{len(self.folds)} folds, {fitted} converged: {scores}>"

    def _repr_html_(self) -> str:
        return self.folds._repr_html_()


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
    method: str = "REML",
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    na_action: str = "drop",
    cov: Mapping[str, Any] | None = None,
    residual: str | Residual | None = None,
    dispersion: str | Power | None = None,
    progress: bool | None = None,
) -> CrossValidation:
    """Predict each part of the data from a model fitted to the rest.

    The predictive distribution of a row is normal. Its mean is x'beta + z'b with the random effects
    of the levels that the training rows have, so the population's for groups left out (or, with
    `cov`, what related levels tell of them).
    Its variance is that of a new observation: the residual's, and that of x'beta + z'b given the
    training rows, which for a group left out has the full variance of the random effects in it;
    theta and sigma count as known.

    Parameters
    ----------
    formula, data, groups, random, method, weights, offset, na_action, cov, residual, dispersion
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

    A fold is what `fit` on its training rows and `predict` on its test rows give. The formula is
    evaluated once, in all rows, and that is the same thing as long as its columns span the same
    space whatever rows they are made from: so for `poly`, `scale`, `center` and every coding of a
    factor in the fixed part, and in random terms with an intercept whose columns are correlated. It
    is not for knots placed by the data (`bs` or `cr` with `df=`), for transforms of the response,
    nor for random terms without correlations or intercept (`||`, `0 + scale(x)`), whose columns the
    held-out rows shift a little: compute such columns before, or give `knots=`.

    A fold that cannot be fitted (a level of a fixed factor in the test rows only, fewer than two
    groups left) has missing scores, and says why in `status`.

    Raises
    ------
    ValueError, TypeError
        For input that determines no model, or no folds; for crossed factors that `fit` gives to the
        iterative core.
    """
    one_of("method", method, ("REML", "ML"))
    parsed = parse(formula, groups, random, residual, dispersion)
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
    """
    fit.model.engine.require("cross_validation")
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
    scores, folds = _scores(scoring), _folds(design, data, cv, k, by, seed)
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
        design, [_others(fold.train, len(design.y)) for fold in folds], method, predicted, progress
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


class Fold(NamedTuple):
    """Positions among the rows used."""

    label: Any
    train: np.ndarray
    test: np.ndarray


def _folds(design: Design, data: Any, cv: Any, k: int, by: str | None, seed: Any) -> list[Fold]:
    if not isinstance(cv, str):
        return _given(design, data, cv, by)
    one_of("cv", cv, SCHEMES)
    n, rng = len(design.y), np.random.default_rng(seed)
    if cv in ("loo", "kfold-rows"):
        part = np.arange(n) if cv == "loo" else _dealt(np.ones(n), _checked(k, n, "rows"), rng)
        labels = range(part.max() + 1)
    else:
        codes, levels = _groups(design, data, by)
        if cv == "logo":
            part, labels = codes, levels
        else:
            part = _dealt(
                np.bincount(codes), _checked(k, len(levels), f"groups ({levels.name})"), rng
            )[codes]
            labels = range(k)
    return [
        Fold(label, np.flatnonzero(part != i), np.flatnonzero(part == i))
        for i, label in enumerate(labels)
    ]


def _checked(k: int, most: int, what: str) -> int:
    if not (isinstance(k, int | np.integer) and 2 <= k <= most):
        raise ValueError(f"k={k!r}: the number of folds must lie between 2 and the {most} {what}")
    return int(k)


def _dealt(sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Part (m,) of things of some sizes (m,): in random order, the largest first, each to the
    part that has least.
    """
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part, filled = np.empty(len(sizes), int), np.zeros(k)
    for i in order:
        part[i] = np.argmin(filled)
        filled[part[i]] += sizes[i]
    return part


def _groups(design: Design, data: Any, by: str | None) -> tuple[np.ndarray, pd.Index]:
    """Codes (n,) and labels of the groups."""
    factors = {f.name: f for f in groupings(design)}
    if by is None and not factors:
        raise ValueError(
            "this model has no groups to leave out: give by=, a column, or cv='kfold-rows'"
        )
    if by is None or by in factors:
        f = min(factors.values(), key=lambda f: len(f.levels)) if by is None else factors[by]
        return f.codes, f.levels.rename(f.name)
    refuse_scanned(data, f"by={by!r} is no grouping factor")
    column = get_column(as_frame(data), by, "argument by=").iloc[design.rows]
    codes, levels = pd.factorize(column, sort=True)
    missing = np.count_nonzero(codes < 0)
    if missing:
        raise ValueError(f"by={by!r} is missing in {missing} of the {len(codes)} rows used")
    return codes, pd.Index(levels, name=by, tupleize_cols=False)


def _given(design: Design, data: Any, cv: Any, by: str | None) -> list[Fold]:
    """Folds of a splitter or of pairs."""
    n = len(design.y)
    if hasattr(cv, "split"):
        pairs, where = _split(cv, design.y, _groups(design, data, by)[0]), np.arange(n)
    else:
        refuse_scanned(data, "cv has positions of them")
        pairs, where = cv, np.full(len(as_frame(data)), -1)
        where[design.rows] = np.arange(n)
    try:
        folds = [
            Fold(i, _placed(where, train), _placed(where, test))
            for i, (train, test) in enumerate(pairs)
        ]
    except (TypeError, ValueError, IndexError):
        raise ValueError(
            f"cv must be one of {', '.join(map(repr, SCHEMES))}, a splitter with a method split, "
            f"or pairs of arrays (train, test) of positions among the {len(where)} rows"
        ) from None
    empty = [fold.label for fold in folds if not len(fold.test)]
    if empty:
        raise ValueError(f"fold {empty[0]} of cv has no row to predict among the rows used")
    if not folds:
        raise ValueError("cv makes no folds")
    return folds


def _split(cv: Any, y: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored", UserWarning)
        return list(cv.split(np.zeros((len(y), 1)), y, groups))


def _placed(where: np.ndarray, rows: Any) -> np.ndarray:
    """Places of rows that are used, each once."""
    found = where[np.asarray(rows)] if len(rows) else where[:0]
    return np.unique(found[found >= 0])


def _others(rows: np.ndarray, n: int) -> np.ndarray:
    """All n rows but some."""
    mask = np.ones(n, bool)
    mask[rows] = False
    return np.flatnonzero(mask)


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
