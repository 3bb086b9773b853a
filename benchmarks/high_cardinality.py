"""Identifiers with very many values: `python benchmarks/high_cardinality.py FOLDER`.

Four data sets of the comparison of Sigrist (2023, arXiv 2307.02071): a linear mixed model, and as
the mean a small neural network and gradient boosting with the same random part; test errors beside
the published ones. FOLDER holds the data as github.com/fabsig/Compare_ML_HighCardinality_
Categorical_Variables publishes them (`data/`: imdb.csv.gz, spotify.csv.gz, wages.csv.gz,
au_anual_import_commodity.csv.gz) and its folds (`cv_folds/`: imdb.json, spotify.json, wages.json);
au_import has none there, and gets five random ones. Original sources: IMDb by wrandrall on Kaggle
(CC BY-SA 4.0), Spotify by Tidy Tuesday (2020-01-21, CC0), the National Longitudinal Survey of young
women (Stata's nlswork), UNdata's annual imports of Australia.

Boosting has its defaults, the network the settings below; those of imdb, whose 159 predictors are
mostly rare indicators, were chosen from six on a fifth of the first training fold, which holds the
test rows of the other folds. Seconds are processor time of a whole fit in this process, compilation
included, of which a first fit takes most. Published errors are means of five folds; boosting's is
GPBoost, tuned, LMMNN's by its authors.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import machine
import numpy as np
import optax
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed

import interlace_jax as interlace  # noqa: E402
from interlace_jax.sklearn import MixedEffects  # noqa: E402

ROUNDS = 3  # of mean and random effects in turn


class Case(NamedTuple):
    """A data set, its model, and what is published of it: mean squared errors of five folds."""

    file: str
    response: str
    groups: tuple[str, ...]
    time: str | None  # effects of each group are quadratic in it
    left_out: tuple[str, ...]
    # Sigrist's, but for LMMNN (Simchoni and Rosset's network, by its authors)
    published: dict[str, float | None]
    network: dict[str, float] = {}  # other settings than the usual


CASES = {
    "imdb": Case(
        "imdb",
        "score",
        ("director_id", "type_id"),
        None,
        (),
        {"LMM": 1.016, "LMMNN": 0.974, "boosting": 0.850},
        dict(decay=0.3, clip=3.0, epochs=16),
    ),
    "spotify": Case(
        "spotify",
        "danceability",
        ("artist_id", "album_id", "playlist_id", "subgenre_id"),
        None,
        (),
        {"LMM": 0.0111, "LMMNN": 0.0093, "boosting": 0.0091},
    ),
    "wages": Case(
        "wages", "ln_wage", ("idcode",), "t", (), {"LMM": 0.321, "LMMNN": None, "boosting": 0.083}
    ),
    "au_import": Case(
        "au_anual_import_commodity",
        "trade_usd",
        ("commodity_id",),
        "t",
        ("commodity", "comm_code", "year"),
        {"LMM": 0.743, "LMMNN": 0.713, "boosting": 0.651},
    ),
}


class Network(RegressorMixin, BaseEstimator):
    """A perceptron of two hidden layers, trained by Adam on squared errors."""

    def __init__(
        self,
        width: int = 64,
        epochs: int = 20,
        batch: int = 256,
        seed: int = 0,
        decay: float = 1e-3,  # of the weights
        clip: float = np.inf,  # standard deviations of a predictor that count
    ):
        self.width, self.epochs, self.batch, self.seed = width, epochs, batch, seed
        self.decay, self.clip = decay, clip

    def fit(self, X: Any, y: Any) -> Network:
        """Train on X (n, columns), standardised, and y (n,)."""
        X, y = self._clipped(X), np.asarray(y)
        self.mean_, self.sd_ = y.mean(), y.std()
        target = np.asarray((y - self.mean_) / self.sd_, np.float32)
        rng = np.random.default_rng(self.seed)
        sizes = [X.shape[1], self.width, self.width, 1]
        weights = [
            (rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32), np.zeros(b, np.float32))
            for a, b in zip(sizes, sizes[1:], strict=False)
        ]
        steps = self.epochs * (len(y) // self.batch)
        adam = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=self.decay)

        @jax.jit
        def epoch(carry, X, y):
            def step(carry, rows):
                weights, state = carry
                change = jax.grad(lambda w: jnp.mean((_value(w, rows[0]) - rows[1]) ** 2))(weights)
                change, state = adam.update(change, state, weights)
                return (optax.apply_updates(weights, change), state), None

            return jax.lax.scan(step, carry, (X, y))[0]

        carry = weights, adam.init(weights)
        for _ in range(self.epochs):
            rows = rng.permutation(len(y))[: len(y) // self.batch * self.batch]
            rows = rows.reshape(-1, self.batch)
            carry = epoch(carry, X[rows], target[rows])
        self.weights_ = jax.tree.map(np.asarray, carry[0])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Expected responses (n,)."""
        found = _value(self.weights_, self._clipped(X))
        return self.mean_ + self.sd_ * np.asarray(found, float)

    def _clipped(self, X):
        return np.clip(X, -self.clip, self.clip).astype(np.float32)


def _value(weights, X):
    for W, b in weights[:-1]:
        X = jax.nn.silu(X @ W + b)
    W, b = weights[-1]
    return (X @ W + b)[:, 0]


def read(folder: Path, case: Case) -> tuple[pd.DataFrame, list[str]]:
    """The data of a case, and the predictors of its mean."""
    data = pd.read_csv(folder / f"{case.file}.csv.gz").drop(columns=list(case.left_out))
    if case.response == "trade_usd":
        data["trade_usd"] = np.log(data["trade_usd"])
    others = [c for c in data if c not in (case.response, *case.groups)]
    data = data.rename(columns={c: f"x{i}" for i, c in enumerate(others) if c != case.time})
    predictors = [c for c in data if c not in (case.response, *case.groups)]
    if case.time:
        data["t"] = data["t"] / data["t"].abs().max()
        data["t2"] = data["t"] ** 2
    return data, predictors


def folds(folder: Path, case: Case, n: int) -> list[np.ndarray]:
    """Rows of the training sets, as published (counted from 1 there), or five random ones."""
    path = folder / f"{case.file}.json"
    if path.exists():
        found = json.loads(path.read_text())
        found = list(found.values()) if isinstance(found, dict) else found
        return [np.asarray(rows) - 1 for rows in found]
    part = np.random.default_rng(100).permutation(n) % 5
    return [np.flatnonzero(part != k) for k in range(5)]


def random_part(case: Case) -> list[str]:
    """The random-effects terms of a case."""
    columns = ["1"] + (["0 + t", "0 + t2"] if case.time else [])
    return [f"({column} | {group})" for group in case.groups for column in columns]


def linear(case: Case, predictors: list[str], train: pd.DataFrame, test: pd.DataFrame):
    """Predictions of the linear mixed model."""
    used = [c for c in predictors if not (case.file == "wages" and c == case.time)]
    formula = f"{case.response} ~ " + " + ".join(used + random_part(case))
    return interlace.fit(formula, train).predict(test).to_numpy()


def around(made):
    """Predictions of a regressor, as it is made for a case, with the random part."""

    def predicted(case, predictors, train, test):
        random = random_part(case)
        columns = [*predictors, *case.groups, *(["t2"] if case.time else [])]
        model = MixedEffects(made(case), random=random, rounds=ROUNDS, folds=2, random_state=0)
        return model.fit(train[columns], train[case.response]).predict(test[columns])

    return predicted


MODELS = {
    "linear": linear,
    "network": around(lambda case: make_pipeline(StandardScaler(), Network(**case.network))),
    "boosting": around(lambda case: HistGradientBoostingRegressor(random_state=0)),
}
PEERS = {"linear": "LMM", "network": "LMMNN", "boosting": "boosting"}


def main() -> None:
    """Fit what is asked for, print a table, and store the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--folds", type=int, default=5, help="of the five, the first so many")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of variances at 0, and of rounds that end before they settle
    path = HERE / "results" / "high_cardinality.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    for name in given.data:
        case = CASES[name]
        data, predictors = read(given.folder, case)
        for k, rows in enumerate(folds(given.folder, case, len(data))[: given.folds]):
            held_out = np.ones(len(data), bool)
            held_out[rows] = False
            train, test = data[~held_out], data[held_out]
            for model in given.models:
                start = time.process_time()
                found = MODELS[model](case, predictors, train, test)
                seconds = time.process_time() - start
                if name == "spotify":  # as published
                    found = np.clip(found, 0.0, 1.0)
                error = float(np.mean((test[case.response].to_numpy() - found) ** 2))
                own = results.setdefault(name, {}).setdefault(model, {})
                own[str(k + 1)] = dict(error=error, seconds=seconds)
                print(f"{name} fold {k + 1} {model}: {error:.4f}, {seconds:.1f} s", flush=True)
                path.write_text(
                    json.dumps(dict(machine=machine.describe(), results=results), indent=1)
                )
    print_table(results)


def print_table(results: dict[str, Any]) -> None:
    """Means over the folds that there are, beside the published ones of five."""
    print("\n| data | model | folds | MSE | seconds | published |\n|---|---|---:|---:|---:|---:|")
    for name, models in results.items():
        for model, by_fold in models.items():
            error, seconds = (
                np.mean([f[what] for f in by_fold.values()]) for what in ("error", "seconds")
            )
            theirs = CASES[name].published[PEERS[model]]
            row = name, model, len(by_fold), f"{error:.4f}", f"{seconds:.0f}", theirs or ""
            print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
