"""Scores of predictions: RMSE, MAE, CRPS, log score, and scorers of scikit-learn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..support.arguments import one_of
from ..support.later import special

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"Of observed values, predicted means and predictive standard deviations."


def rmse(y: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean((y - mean) ** 2)))


def mae(y: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(y - mean)))


def crps(y: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> float:
    """Mean continuous ranked probability score of normal predictions (Gneiting & Raftery 2007,
    JASA 102, sec. 4.2).
    """
    z = (y - mean) / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    between = 2.0 * special.ndtr(z) - 1.0  # the probability of -|z| to |z|, signed
    score = z * between + 2.0 * density - 1.0 / np.sqrt(np.pi)
    return float(np.mean(sd * score))


def log_score(y: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> float:
    """Mean of -log density of normal predictions."""
    z = (y - mean) / sd
    return float(np.mean(0.5 * z**2 + np.log(sd)) + 0.5 * np.log(2.0 * np.pi))


SCORES: dict[str, Score] = {"rmse": rmse, "mae": mae, "crps": crps, "log_score": log_score}


def mean_log_score(y: np.ndarray, mean: np.ndarray, log_density: np.ndarray) -> float:
    """Mean of -log density, of predictions that come with it."""
    return float(-np.mean(log_density))


LIKELIHOOD_SCORES: dict[str, Score] = {"rmse": rmse, "mae": mae, "log_score": mean_log_score}
"Of predictions by a family, whose third number is the log of the predictive density."


def _scores(scoring: Any, known: Mapping[str, Score] = SCORES) -> dict[str, Score]:
    """Scores by name; known: those that have one."""
    if scoring is None:
        return dict(known)
    if isinstance(scoring, Mapping):
        return {name: _one_score(score, known) for name, score in scoring.items()}
    each = (
        [scoring]
        if isinstance(scoring, str) or not isinstance(scoring, Iterable)
        else list(scoring)
    )
    return {_name(score): _one_score(score, known) for score in each}


def _name(score: Any) -> str:
    return score if isinstance(score, str) else getattr(score, "__name__", "score")


def _one_score(score: Any, known: Mapping[str, Score]) -> Score:
    if isinstance(score, str):
        one_of("scoring", score, known)
        return known[score]
    if not callable(score):
        raise TypeError(
            f"scoring must be among {', '.join(map(repr, known))} or a function of (y, y_pred), "
            f"not {score!r}"
        )
    if _is_scorer(score):
        return lambda y, mean, sd: float(score(_Known(mean), np.zeros((len(y), 1)), y))
    return lambda y, mean, sd: float(score(y, mean))


def _is_scorer(score: Callable) -> bool:
    """Whether it is called with (estimator, X, y), as scikit-learn's scorers are, in place of
    (y, y_pred).
    """
    needed = [p for p in inspect.signature(score).parameters.values() if p.default is p.empty]
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in needed) == 3


class _Known:
    """A regressor, as far as scikit-learn's scorers ask, whose predictions are known."""

    def __init__(self, mean: np.ndarray):
        self.mean = mean

    def predict(self, X: Any) -> np.ndarray:
        return self.mean

    def __sklearn_tags__(self) -> Any:
        return SimpleNamespace(estimator_type="regressor")


def _score(scores: dict[str, Score], values: np.ndarray) -> dict[str, float]:
    """Scores of values (3, n), observed, predicted, sd; missing where nothing is predicted."""
    known = values[:, ~np.isnan(values[1])]
    return {name: score(*known) if known.size else np.nan for name, score in scores.items()}
