"""Responses as families take them: successes out of trials in every spelling, categories, and what
a value may be.

Binomial responses have one form inside: successes y, trials m, prior weights w. Host NumPy.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ..numerics.families.family import (
    Bernoulli,
    Binomial,
    Distribution,
    Ordinal,
    Truncated,
    ZeroInflated,
)
from ..support.arguments import listed
from .determinacy import is_constant
from .formula import Formula, _cut
from .model_matrices import Matrices, Part, _part, parts_of

WHOLE = 1e-6  # relative distance from a whole number that counts as none
SPELLINGS = "cbind(successes, failures), trials=, or a proportion with weights= as its trials"


@dataclass(frozen=True, eq=False)
class Observed:
    """What a family needs of the rows used besides `Design.y`, which are successes where there
    are trials.
    """

    family: Distribution
    "With the categories of an ordinal response; of one trial in every row `Bernoulli`."
    trials: np.ndarray | None = field(repr=False, default=None)
    "(n,)"
    outcome: str | None = None
    "Which outcome is modelled, as 'y = \"yes\"'; None where the response says so itself."
    as_proportions: bool = False
    "Whether the response was given as proportions."
    labels: tuple[str, ...] = ()
    "Categories of a binary or ordinal response that is not numeric."
    nodes: int = 1
    "Of quadrature over the random effects, in every dimension; 1: Laplace's approximation."

    @property
    def m(self) -> np.ndarray | float:
        """Trials, 1.0 where there are none."""
        return 1.0 if self.trials is None else self.trials

    def shown(self, y: np.ndarray) -> np.ndarray:
        """Internal responses (n, ...) in the form that was given: proportions where they were."""
        if not self.as_proportions:
            return y
        return y / (self.trials if y.ndim == 1 else self.trials[:, None])

    def read(self, y: np.ndarray, response: str) -> np.ndarray:
        """Responses (n,) in the form that was given, as `Design.y` has them; refused where they
        cannot be.
        """
        y = y * self.trials if self.as_proportions else y
        m = np.ones(len(y)) if self.trials is None else self.trials
        _check_values(self.family, y, m, response, pd.RangeIndex(len(y)))
        return y


@dataclass(frozen=True)
class Coding:
    """How a response is read: made before its rows are chosen, as rows may lack categories."""

    family: Distribution
    response: str
    parts: Mapping[str, Part]
    "`y`, and `of` where the left side has two numbers: failures of cbind(), trials of a quotient."
    is_quotient: bool
    labels: tuple = ()
    "Categories where the response is a column of them, in order."

    def numbers(self, columns: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
        """The columns with that of the response as numbers; call it with the rows used."""
        if not self.labels:
            return dict(columns)
        name = _plain_column(self.parts["y"], columns)
        used = set(columns[name].unique())
        labels = self.labels
        if isinstance(self.family, Ordinal):
            if empty := [label for label in labels if label not in used]:
                raise ValueError(
                    f"no row of the response {self.response!r} is {listed(empty)}: thresholds "
                    "beside an empty category are not determined; leave it out of the categories"
                )
        else:
            labels = tuple(label for label in labels if label in used)
        codes = pd.Categorical(columns[name], categories=list(labels)).codes
        return {**columns, name: pd.Series(codes.astype(float))}


def without_response(family: Distribution) -> Coding:
    """Of a design without a response of its own: those that it will have are numbers."""
    return Coding(family, "", {}, False)


def coding_of(formula: Formula, family: Distribution, columns: Mapping[str, pd.Series]) -> Coding:
    """How the response of a formula is to be read, from all rows of its columns."""
    parts, is_quotient = response_parts(formula, family)
    coding = Coding(family, formula.response or "", parts, is_quotient)
    name = _plain_column(parts["y"], columns)
    if name is None or len(parts) > 1:
        return coding
    column = columns[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        is_ordered_enough = True
        labels = list(column.cat.categories)
    elif pd.api.types.is_bool_dtype(column.dtype):
        is_ordered_enough = True
        labels = [False, True]
    elif pd.api.types.is_numeric_dtype(column.dtype):
        if not isinstance(family, Ordinal):
            return coding
        is_ordered_enough = True
        labels = sorted(column.dropna().unique())
    else:
        is_ordered_enough = False
        labels = sorted(column.dropna().unique(), key=str)
    return replace(
        coding, labels=tuple(_checked_labels(family, name, labels, column, is_ordered_enough))
    )


def _checked_labels(family, name, labels, column, is_ordered):
    if isinstance(family, Ordinal):
        if not is_ordered:
            raise ValueError(unordered_message(name, labels))
        if len(labels) < 2:
            raise ValueError(
                f"the response {name!r} has {len(labels)} category: there is nothing to fit"
            )
        return labels
    if not isinstance(family, Binomial):
        raise ValueError(
            f"the response {name!r} is not numeric but {column.dtype}, and the family "
            f"{family.name!r} has {family.values}; make it numbers"
        )
    used = [label for label in labels if (column == label).any()]
    if len(used) > 2:
        raise ValueError(
            f"the response {name!r} has {len(used)} categories, {listed(used[:4])}: a binomial "
            f"response has two; use family='ordinal', or make a column of {name} == {used[-1]!r}"
        )
    return labels


def unordered_message(name: Any, labels: Sequence[Any]) -> str:
    """Why a response that is text cannot be taken for ordered categories."""
    return (
        f"the response {name!r} is text, whose order is not known: make it an ordered category, as "
        f"by pandas.Categorical({name}, categories=[{', '.join(map(repr, labels[:3]))}, ...], "
        "ordered=True)"
    )


def response_parts(formula: Formula, family: Distribution) -> tuple[dict[str, Part], bool]:
    """The parts of the left side, `y` and perhaps `of`, and whether it is a quotient."""
    text = formula.response or ""
    sides = _cut(text, "/")
    is_quotient = len(sides) == 2
    if match := re.fullmatch(r"cbind\s*\((.*)\)", text, re.DOTALL):
        pieces = [piece for _, piece in _cut(match[1], ",")]
        if not family.has_trials:
            raise ValueError(
                "cbind(successes, failures) is a response of binomial families, not of "
                f"{family.name!r}"
            )
        if len(pieces) != 2:
            raise ValueError(
                f"the response {text!r} must be cbind(successes, failures), two columns"
            )
    elif is_quotient:
        if not family.has_trials:
            raise ValueError(
                f"the response {text!r} is a quotient, which binomial families have; write "
                f"I({text}) for its value"
            )
        pieces = [piece for _, piece in sides]
    else:
        return {"y": parts_of(formula)["y"]}, False
    texts = [
        piece if piece.isidentifier() or piece.startswith("`") else f"I({piece})"
        for piece in pieces
    ]
    labels = [f"response {text!r}"] * 2
    made = [_part(f"0 + {piece}", label) for piece, label in zip(texts, labels, strict=True)]
    return dict(zip(("y", "of"), made, strict=True)), is_quotient


def _plain_column(part: Part, columns) -> str | None:
    """The column that a response is, None where it is computed."""
    plain = [str(variable) for variable, plain in part.variables if plain]
    return plain[0] if len(plain) == len(part.variables) == 1 and plain[0] in columns else None


def one_column(matrix, label: str) -> np.ndarray:
    """A response evaluated to one column of numbers; of a condition the column that says it
    holds.
    """
    values, names = matrix
    true = [j for j, name in enumerate(names) if name.endswith(("[True]", "[T.True]"))]
    if len(names) > 1 and len(true) == 1:
        return values[:, true[0]]
    if len(names) != 1:
        raise ValueError(
            f"the {label} must be one column of numbers, not {listed(names) or 'nothing'}"
        )
    return values[:, 0]


def observed(
    coding: Coding,
    matrices: Matrices,
    weights: np.ndarray | None,
    trials: np.ndarray | None,
    index: pd.Index,
) -> tuple[np.ndarray | None, np.ndarray | None, Observed]:
    """Responses y (n,) of the rows used, prior weights, and what else the family needs of them; y
    is None without.
    """
    family, response = coding.family, coding.response
    if not coding.parts:
        return None, weights, _observed_later(family, trials)
    y = one_column(matrices["y"], f"response {response!r}")
    other = one_column(matrices["of"], f"response {response!r}") if "of" in coding.parts else None
    made = Observed(family)
    if isinstance(family, Ordinal):
        made = replace(made, family=replace(family, categories=tuple(map(text_of, coding.labels))))
    if not family.has_trials:
        if trials is not None:
            raise ValueError(
                f"trials= belongs to binomial families; {family.name!r} has {family.values}"
            )
    else:
        y, weights, made = _binomial(coding, made, y, other, weights, trials, index)
    m = np.ones(len(y)) if made.trials is None else made.trials
    _check_values(made.family, y, m, response, index)
    _check_spread(made.family, y, m, response, coding.labels)
    return y, weights, made


def _observed_later(family, trials):
    """What is known before there is a response."""
    if trials is not None and not family.has_trials:
        raise ValueError(
            f"trials= belongs to binomial families; {family.name!r} has {family.values}"
        )
    if isinstance(family, Binomial) and (trials is None or (trials == 1.0).all()):
        return Observed(Bernoulli(family.link))
    return Observed(family, trials)


def check_response(
    seen: Observed, y: np.ndarray, used: np.ndarray, response: str, index: pd.Index
) -> None:
    """Refuse a response y (n,) that the rows used (n,) of a design cannot have, as `fit` does; warn
    as it does.
    """
    m = seen.m * np.ones(len(y))
    _check_values(seen.family, y[used], m[used], response, index[used])
    _check_spread(seen.family, y[used], m[used], response, seen.labels)


def _binomial(coding, made, y, other, weights, trials, index):
    response, labels = coding.response, coding.labels
    if labels:
        shown = tuple(map(text_of, labels))
        outcome = f'{response} = "{shown[-1]}"' if labels != (False, True) else f"{response} = True"
        used = tuple(shown)[-2:] if len(shown) > 2 else shown
        made = replace(made, outcome=outcome, labels=used)
    if other is not None and not coding.is_quotient:
        if trials is not None:
            raise ValueError(f"the response {response!r} says its trials itself: leave trials= out")
        _refuse_rows(
            (y < 0) | (other < 0),
            np.minimum(y, other),
            index,
            response,
            "successes and failures are counts",
        )
        made = replace(made, trials=y + other)
    elif other is not None or trials is not None or _is_share(y):
        y, weights, made = _shares(coding, made, y, other, weights, trials, index)
    if made.trials is not None and (made.trials <= 0).any():
        _refuse_rows(
            made.trials <= 0,
            made.trials,
            index,
            response,
            "the number of trials must be positive; leave such rows out",
        )
    if isinstance(made.family, Binomial) and (made.trials is None or (made.trials == 1.0).all()):
        made = replace(made, family=Bernoulli(made.family.link), trials=None, as_proportions=False)
    return y, weights, made


def _shares(coding, made, y, other, weights, trials, index):
    """Counts with trials, or proportions: (y, weights, Observed)."""
    response = coding.response
    if other is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            y = y / other
        if trials is None and weights is None:
            first, second = (piece for _, piece in _cut(response, "/"))
            raise ValueError(
                f"the response {response!r} is a proportion of trials that are not given: write "
                f"cbind({first}, {second} - {first}), or {first} with trials={second!r}"
            )
    if trials is None and weights is None:
        raise ValueError(
            f"the response {response!r} has values between 0 and 1, and nothing says out of how "
            f"many trials: write {SPELLINGS}"
        )
    if trials is None:  # glmer's spelling: the weights of a proportion are its trials
        trials, weights = weights, None
    inside = (y >= 0) & (y <= 1)
    is_proportion = other is not None or (_is_share(y) and inside.all())
    if not is_proportion and _is_share(y):
        _refuse_rows(~inside, y, index, response, "counts and proportions do not mix")
    made = replace(made, trials=trials, as_proportions=bool(is_proportion))
    if is_proportion:
        y = y * trials
        whole = np.round(y)
        is_whole = np.abs(y - whole) <= WHOLE * np.maximum(1.0, np.abs(y))
        y = np.where(is_whole, whole, y)
    return y, weights, made


def _is_share(y):
    """Whether some value lies strictly between 0 and 1."""
    return bool(((y > 0) & (y < 1)).any())


def _check_values(family, y, m, response, index):
    """Refuse what the family cannot have, naming the first row; warn of counts that are no whole
    numbers.
    """
    advice = ""
    if isinstance(family, Truncated) and (y == 0).any():
        advice = '; zeros beside a truncated family need zero_inflation="~ 1" (a hurdle model)'
    elif family.name == "beta" and ((y == 0) | (y == 1)).any():
        advice = "; move 0 and 1 inside, as by (y * (n - 1) + 0.5) / n, or leave those rows out"
    elif (
        isinstance(family, Bernoulli)
        and np.isin(y, (0.0, 1.0)).mean() < 1
        and len(np.unique(y)) == 2
    ):
        advice = f"; make a column of {response} == {y.max():g}"
    elif isinstance(family, Binomial) and (y > m).any():
        advice = "; more successes than trials"
    must = f"family {family.name!r} has {family.values}{advice}"
    _refuse_rows(family.outside(y, m), y, index, response, must)
    if family.is_count and not isinstance(family, Bernoulli):
        broken = np.abs(y - np.round(y)) > WHOLE * np.maximum(1.0, np.abs(y))
        if broken.any():
            i = int(np.argmax(broken))
            warnings.warn(
                f"the response {response!r} is no whole number in {broken.sum()} rows, first in "
                f"row {index[i]!r} ({y[i]:g}): the likelihood of family {family.name!r} is "
                "evaluated there all the same",
                UserWarning,
                stacklevel=5,
            )
    elif isinstance(family, Bernoulli):
        _refuse_rows(~np.isin(y, (0.0, 1.0)), y, index, response, must)


def _refuse_rows(bad, y, index, response, why):
    if bad.any():
        i = int(np.argmax(bad))
        more = f" (and {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
        raise ValueError(
            f"row {index[i]!r}: the response {response!r} is {y[i]:g} there{more}; {why}"
        )


def _check_spread(family, y, m, response, labels):
    """Refuse a response that has nothing to tell."""
    n = len(y)
    if isinstance(family, Ordinal):
        return
    if family.has_trials:
        for value, all_rows in ((0, y == 0), (1, y == m)):
            if all_rows.all():
                shown = repr(labels[0]) if labels else f"{value}"
                raise ValueError(
                    f"the response {response!r} is {shown} in all {n} rows: there is nothing to fit"
                )
    elif family.is_count and (y == 0).all():
        raise ValueError(f"the response {response!r} is 0 in all {n} rows: there is nothing to fit")
    elif not family.is_count and is_constant(y):
        raise ValueError(
            f"the response {response!r} is {y[0]:g} in all {n} rows: there is nothing to fit"
        )
    if isinstance(family, ZeroInflated) and not (y == 0).any():
        raise ValueError(
            f"the response {response!r} has no zeros, and zero_inflation= nothing to model: leave "
            "it out"
        )


def text_of(label: Any) -> str:
    """A category as its name in tables."""
    return f"{label:g}" if isinstance(label, float | np.floating) else str(label)
