"""Permutation tests of a predictor over many responses: the predictor is shuffled, every model refitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from ..design.design import Design, build
from ..support.arguments import whole_number
from ..support.progress import progress_bar
from .responses import Responses

TRIALS = 20  # permutations, at most, after which one that changes nothing is no chance


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """Two-sided permutation p-values of |t|."""

    table: pd.DataFrame
    "A row per model and coefficient: `t`, its own `p`, and `p_max`, adjusted over the models by the largest |t|."
    null: pd.DataFrame = field(repr=False)
    "Largest |t| over the models, permutations x coefficients."
    outcomes: pd.DataFrame = field(repr=False)
    "A row per permutation: models `fitted`, `converged` and `singular`."


class Refitted(NamedTuple):
    """What fits of all models to one permutation of the predictor gave."""

    t: np.ndarray
    "(models, p) t statistics, NaN where a model could not be fitted."
    converged: int
    singular: int


def permutation_test(
    work: Responses,
    observed: pd.DataFrame,
    refit: Callable[[Design], Refitted],
    predictor: str,
    n: int,
    within: str | None,
    between: str | None,
    seed: Any,
    progress: bool | None,
) -> PermutationTest:
    """`Many.permutation_test`, of its models, their t statistics (models x coefficients), and how to refit them."""
    whole_number("n", n, 1)
    frame, used = nw.from_native(work.data, eager_only=True), work.design.rows
    shuffle = _shuffle(frame, used, predictor, within, between)

    def permuted(rng: np.random.Generator) -> Design:
        rows = np.arange(len(frame))
        rows[used] = used[shuffle(rng)]
        data = frame.with_columns(frame[predictor][rows.tolist()].alias(predictor))
        design = build(work.formula, data.to_native(), **work.arguments, response=False)
        if design.columns != work.design.columns:
            raise ValueError(f"a permutation of {predictor!r} changes which coefficients can be estimated")
        return design

    def moved(design: Design) -> np.ndarray:
        return np.any(design.X != work.design.X, 0)

    trial = np.random.default_rng(0)
    changed = next(filter(np.any, (moved(permuted(trial)) for _ in range(TRIALS))), None)
    if changed is None:
        raise ValueError(
            f"permutations of {predictor!r} change no fixed effect of '{work.formula}': name a column that is in its "
            "fixed part, and that varies among what is shuffled"
        )
    rng = np.random.default_rng(seed)
    threshold = observed.abs().to_numpy() * (1 - 1e-9)  # ties, despite rounding
    largest, outcomes = [], []
    reached = np.zeros(threshold.shape, int)
    bar = progress_bar(n, "permutation", "permuting", progress is not False)
    for _ in range(n):
        design = permuted(rng)
        changed |= moved(design)
        again = refit(design)
        t = np.abs(again.t)
        largest.append(np.fmax.reduce(t, 0))
        reached += t >= threshold
        outcomes.append((np.isfinite(t).any(1).sum(), again.converged, again.singular))
        bar.update()
    bar.close()
    largest, names = np.array(largest), np.array(work.design.columns)
    above = (largest[:, None] >= threshold).sum(0)
    tables = [_table(observed[names[j]], names[j], reached[:, j], above[:, j], n) for j in np.flatnonzero(changed)]
    table = pd.concat(tables).rename_axis(work.labels.name or "model").reset_index()
    null = pd.DataFrame(largest[:, changed], columns=names[changed])
    return PermutationTest(table, null, pd.DataFrame(outcomes, columns=["fitted", "converged", "singular"]))


def _table(t: pd.Series, name: str, reached, above, n) -> pd.DataFrame:
    """The data as they are count as one of n + 1 arrangements (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. 9)."""
    share = {"p": (1 + reached) / (n + 1), "p_max": (1 + above) / (n + 1)}
    p = {what: np.where(t.notna(), value, np.nan) for what, value in share.items()}
    return pd.DataFrame(dict(coefficient=name, t=t) | p, index=t.index)


def _shuffle(frame: nw.DataFrame, used: np.ndarray, predictor: str, within: str | None, between: str | None):
    """A function of a random generator: for every row used (n,), which of them its new value comes from."""
    if within is not None and between is not None:
        raise ValueError("give within= (shuffle inside each level) or between= (shuffle whole levels), not both")
    for name in (predictor, within, between):
        if name is not None and name not in frame.columns:
            raise ValueError(f"{name!r} is not a column of the data; there are {', '.join(frame.columns)}")
    n = len(used)
    if within is None and between is None:
        return lambda rng: rng.permutation(n)
    codes = _codes(frame, within or between)[used]
    if within is not None:
        home = np.argsort(codes, kind="stable")
        back = np.argsort(home)
        return lambda rng: np.lexsort((rng.random(n), codes))[back]
    _, first, level = np.unique(codes, return_index=True, return_inverse=True)
    values = _codes(frame, predictor)[used]
    if np.any(values != values[first][level]):
        raise ValueError(
            f"{predictor!r} varies within the levels of {between!r}, so that whole levels cannot be shuffled: "
            f"write within={between!r}"
        )
    return lambda rng: first[rng.permutation(len(first))][level]


def _codes(frame: nw.DataFrame, name: str) -> np.ndarray:
    return pd.factorize(frame[name].to_pandas())[0]
