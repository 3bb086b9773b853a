"""Permutation tests of a predictor over many responses: the predictor is shuffled, every model
refitted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from ..design.design import Design, build
from ..many.fits import ManyFits, with_labels
from ..many.responses import Responses
from ..support.arguments import whole_number
from ..support.progress import progress_bar

TRIALS = 20  # permutations, at most, after which one that changes nothing is no chance
TIES = 1e-9  # relative difference of statistics that rounding may make

Shuffle = Callable[[np.random.Generator], np.ndarray]
"For every row used (n,), which of them its new value comes from."


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """Two-sided permutation p-values of |t|."""

    table: pd.DataFrame
    """A row per model and coefficient: `t`, its own `p`, and `p_max`, adjusted over the models by
    the largest |t|; `refits` and `refits_max`, how many permutations each p counts.
    """
    null: pd.DataFrame = field(repr=False)
    """Largest |t| over the models, permutations x coefficients; missing where some model could
    not be refitted.
    """
    outcomes: pd.DataFrame = field(repr=False)
    "A row per permutation: models `fitted`, `converged` and `singular`."

    def __repr__(self) -> str:
        found = int((self.table["p_max"] <= 0.05).sum())
        return (
            f"<{len(self.null)} permutations of {len(self.table)} tests, {found} at p_max <= 0.05>"
        )


def permutation_test(
    many: ManyFits,
    predictor: str,
    n: int = 1000,
    *,
    within: str | None = None,
    between: str | None = None,
    seed: Any = None,
    progress: bool | None = None,
) -> PermutationTest:
    """Permutation test of a predictor in every model, and in all of them together by the largest
    |t| (max-T).

    The values of the predictor are shuffled n times, the same way for all responses, and every
    model is refitted. A refit that fails is no evidence: it counts neither as reached nor as not
    reached, and a permutation in which a model fails says nothing about the largest |t|. A warning
    says how many there were.

    With random slopes of the predictor, shuffling within subjects tests the sharp null hypothesis
    that no subject has an effect; responses whose subjects have effects of mean zero are not
    exchangeable under it.

    Parameters
    ----------
    predictor
        A column of the data. All coefficients that it enters are tested.
    within
        A column: values move among the rows of each of its levels, as for a condition that varies
        within subjects.
    between
        A column: whole levels exchange their values, as for a property of subjects. Without either,
        rows exchange theirs.
    seed
        Anything `numpy.random.default_rng` takes; the same seed gives the same permutations.

    Raises
    ------
    ValueError
        For models of `by=`; for a predictor that is in no fixed effect, or does not vary in what is
        shuffled; for rows without a level of `within` or `between`.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> found = many.permutation_test("Days", 19, within="Subject", seed=1, progress=False)
    >>> found.table[["model", "coefficient", "p", "p_max"]].round(2)
      model coefficient     p  p_max
    0    y0        Days  0.05   0.05
    1    y1        Days  0.05   0.05
    2    y2        Days  0.05   0.05
    3    y3        Days  0.05   0.05
    """
    if not isinstance(many.work, Responses):
        raise ValueError(
            "a permutation test needs models that share a design: use responses= in place of by="
        )
    whole_number("n", n, 1)
    permuted = _Permuted(many.work, predictor, within, between)
    found = _refit_all(many, permuted, n, seed, progress is not False)
    is_fitted = many.fe_tvalues.notna().all(axis=1).to_numpy()
    lost = int(np.isnan(found.t[:, is_fitted]).any((1, 2)).sum())
    if lost:
        warnings.warn(
            f"in {lost} of {n} permutations of {predictor!r} some models could not be refitted: "
            "these refits are not counted (see `refits` and `refits_max` of the table)",
            stacklevel=2,
        )
    return _result(many, found)


class _Permuted:
    """Designs with the predictor shuffled."""

    def __init__(self, work: Responses, predictor: str, within: str | None, between: str | None):
        self.work, self.predictor = work, predictor
        self.frame = nw.from_native(work.data, eager_only=True)
        self.shuffle = _shuffle(self.frame, work.design.rows, predictor, within, between)
        self.changed = self._changed()

    def design(self, rng: np.random.Generator) -> Design:
        """The design of one permutation."""
        work, used = self.work, self.work.design.rows
        rows = np.arange(len(self.frame))
        rows[used] = used[self.shuffle(rng)]
        column = self.frame[self.predictor][rows.tolist()].alias(self.predictor)
        design = build(
            work.formula,
            self.frame.with_columns(column).to_native(),
            **work.arguments,
            response=False,
        )
        if design.columns != work.design.columns:
            raise ValueError(
                f"a permutation of {self.predictor!r} changes which coefficients can be estimated"
            )
        return design

    def moved(self, design: Design) -> np.ndarray:
        """Which columns (p,) a permutation changes."""
        return np.any(design.X != self.work.design.X, 0)

    def _changed(self) -> np.ndarray:
        """Columns (p,) that the predictor enters, from some permutations."""
        rng = np.random.default_rng(0)
        for _ in range(TRIALS):
            moved = self.moved(self.design(rng))
            if moved.any():
                return moved
        raise ValueError(
            f"permutations of {self.predictor!r} change no fixed effect of '{self.work.formula}': "
            "name a column that is in its fixed part, and that varies among what is shuffled"
        )


@dataclass(frozen=True, eq=False)
class _Refits:
    """What the refits of all permutations gave."""

    t: np.ndarray
    """(n, models, r) |t| of the coefficients that the predictor enters, NaN where a model could
    not be fitted.
    """
    changed: np.ndarray
    "(p,) which coefficients these are."
    outcomes: pd.DataFrame


def _refit_all(many: ManyFits, permuted: _Permuted, n: int, seed: Any, show: bool) -> _Refits:
    rng, changed = np.random.default_rng(seed), permuted.changed.copy()
    statistics, outcomes = [], []
    bar = progress_bar(n, "permutation", "permuting", show)
    for _ in range(n):
        design = permuted.design(rng)
        changed |= permuted.moved(design)
        again = many.refitted(design)
        t = np.abs(again.fe_tvalues.to_numpy())
        statistics.append(t)
        outcomes.append(
            (np.isfinite(t).all(1).sum(), again.converged.sum(), again.is_singular.sum())
        )
        bar.update()
    bar.close()
    table = pd.DataFrame(outcomes, columns=["fitted", "converged", "singular"])
    return _Refits(np.array(statistics)[:, :, changed], changed, table)


def _result(many: ManyFits, found: _Refits) -> PermutationTest:
    """Tables of the shares of permutations that reach what was observed.

    The data as they are count as one arrangement more (Phipson & Smyth 2010, Stat. Appl. Genet.
    Mol. 9).
    """
    names = np.array(many.coefficients, object)[found.changed]
    observed = many.fe_tvalues[names]
    threshold = observed.abs().to_numpy() * (1 - TIES)
    is_model = np.isfinite(threshold).all(1)
    largest = found.t[:, is_model].max(1)  # (n, r), NaN where a model failed
    own = _share(found.t, threshold)
    joint = _share(largest[:, None], threshold)
    tables = []
    for j, name in enumerate(names):
        columns = {"p": own.p[:, j], "p_max": joint.p[:, j], "refits": own.counted[:, j]}
        columns["refits_max"] = np.broadcast_to(joint.counted[:, j], len(observed))
        values = pd.DataFrame(dict(coefficient=name, t=observed[name].to_numpy()) | columns)
        tables.append(with_labels(values, many.labels))
    null = pd.DataFrame(largest, columns=names)
    return PermutationTest(pd.concat(tables, ignore_index=True), null, found.outcomes)


@dataclass(frozen=True)
class _Share:
    p: np.ndarray
    "(models, r), NaN where nothing was observed or no refit succeeded."
    counted: np.ndarray
    "Permutations that p is a share of."


def _share(t: np.ndarray, threshold: np.ndarray) -> _Share:
    """Shares of the permutations, of those whose statistic (n, models or 1, r) is known, that
    reach a threshold.
    """
    counted = np.isfinite(t).sum(0)
    reached = (t >= threshold).sum(0)
    is_known = np.isfinite(threshold) & (counted > 0)
    return _Share(np.where(is_known, (1 + reached) / (1 + counted), np.nan), counted)


def _shuffle(
    frame: nw.DataFrame, used: np.ndarray, predictor: str, within: str | None, between: str | None
) -> Shuffle:
    """How values of the predictor move among the rows used."""
    if within is not None and between is not None:
        raise ValueError(
            "give within= (shuffle inside each level) or between= (shuffle whole levels), not both"
        )
    for name in (predictor, within, between):
        if name is not None and name not in frame.columns:
            raise ValueError(
                f"{name!r} is not a column of the data; there are {', '.join(frame.columns)}"
            )
    n = len(used)
    if within is None and between is None:
        return lambda rng: rng.permutation(n)
    if within is not None:
        codes = _blocks(frame, used, "within", within)
        home = np.argsort(codes, kind="stable")
        back = np.argsort(home)
        return lambda rng: np.lexsort((rng.random(n), codes))[back]
    codes = _blocks(frame, used, "between", between)
    _, first, level = np.unique(codes, return_index=True, return_inverse=True)
    values = _codes(frame, predictor)[used]
    if np.any(values != values[first][level]):
        raise ValueError(
            f"{predictor!r} varies within the levels of {between!r}, so that whole levels cannot "
            f"be shuffled: write within={between!r}"
        )
    return lambda rng: first[rng.permutation(len(first))][level]


def _blocks(frame: nw.DataFrame, used: np.ndarray, argument: str, name: str) -> np.ndarray:
    """The block (n,) of every row used; all must have one."""
    codes = _codes(frame, name)[used]
    missing = int(np.count_nonzero(codes < 0))
    if missing:
        raise ValueError(
            f"{argument}={name!r} is missing in {missing} of the {len(codes)} rows used: every "
            "row needs a block to be shuffled in; fill the column, or leave these rows out of "
            "the data"
        )
    return codes


def _codes(frame: nw.DataFrame, name: str) -> np.ndarray:
    return pd.factorize(frame[name].to_pandas())[0]
