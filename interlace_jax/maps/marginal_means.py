"""Estimated marginal means of every model, and contrasts of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ..inference.coefficients import Coefficients
from ..inference.marginal_means import MarginalMeans
from ..inference.marginal_means import emmeans as means_of_fit
from ..many.designs import Designs
from ..many.fits import ManyFits, with_labels
from ..models.compiled import CompiledModel
from ..models.fitted import FittedModel
from .contrasts import lane_coefficients


@dataclass(frozen=True, eq=False)
class ManyMeans:
    """Marginal means of many models; made by `Many.emmeans`."""

    labels: pd.Index = field(repr=False)
    means: list[MarginalMeans | None] = field(repr=False)
    "By model; None where it was not fitted."

    @property
    def frame(self) -> pd.DataFrame:
        """The label of the model, the variables, then `emmean se df lower upper`: a row for each
        model and mean.
        """
        return self._joined(lambda means: means.frame)

    def contrasts(
        self,
        method: str | Mapping[str, Sequence[float]] | Sequence[Any] = "pairwise",
        adjust: str | None = None,
        ref: Any = None,
    ) -> pd.DataFrame:
        """Contrasts of the means of each model: `contrast estimate se df lower upper t p` after its
        label.

        Arguments as those of the contrasts of one fit: adjust is for the contrasts of one model.
        Over the models, the p-values of one contrast are adjusted by `Many.test(..., adjust="bh")`.
        """
        return self._joined(lambda means: means.contrasts(method, adjust, ref))

    def pairs(self, adjust: str = "tukey") -> pd.DataFrame:
        """All pairwise differences of the means of each model, within each combination of `by`."""
        return self._joined(lambda means: means.pairs(adjust))

    def _joined(self, table_of: Callable[[MarginalMeans], pd.DataFrame]) -> pd.DataFrame:
        tables = []
        for place, means in enumerate(self.means):
            if means is not None:
                table = table_of(means)
                tables.append(with_labels(table, self.labels[[place]].repeat(len(table))))
        return pd.concat(tables, ignore_index=True)

    def __repr__(self) -> str:
        return f"<marginal means of {len(self.means)} models>"


def emmeans(
    many: ManyFits,
    specs: str | Sequence[str],
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    level: float = 0.95,
) -> ManyMeans:
    """Marginal means of the levels of `specs` in every model, as `interlace_jax.emmeans` has them
    for one fit.

    specs: variables of the fixed part whose combinations are wanted. by: more of them; contrasts
    are made within each of their combinations. at: values to use for variables, as `{"x": [0, 1]}`.
    level: of the intervals.
    With `responses=` the grid and the means of numbers are those of all rows of the design; with
    `by=` of the groups'.
    Tables take some milliseconds a model: for very many, write the contrast as a hypothesis and use
    `test`.

    Raises ValueError, TypeError for variables or values that the fixed part does not have.

    >>> words = interlace_jax.load_dataset("crossed")
    >>> responses = words[["rt"]].assign(log_rt=words["rt"] / 1000)
    >>> given = dict(responses=responses)
    >>> many = interlace_jax.fit_many("~ condition + (1 | subject)", words, **given)
    >>> many.emmeans("condition").contrasts("pairwise").iloc[:, :5].round(3)
        model                 contrast  estimate     se       df
    0      rt  congruent - incongruent   -22.470  7.096  852.202
    1  log_rt  congruent - incongruent    -0.022  0.007  852.202
    """
    coefficients = lane_coefficients(many)
    if isinstance(many.work, Designs):
        places = enumerate(coefficients)
        made = [
            None if own is None else _of_group(many, place, own, specs, by, at, level)
            for place, own in places
        ]
        return ManyMeans(many.labels, made)
    known = next(own for own in coefficients if own is not None)
    one = means_of_fit(_carrier(many, known), specs, by, at, level=level)
    return ManyMeans(
        many.labels,
        [None if own is None else replace(one, coefficients=own) for own in coefficients],
    )


def _of_group(
    many: ManyFits, place: int, own: Coefficients, specs, by, at, level: float
) -> MarginalMeans:
    design = many.work.designs[place]
    model = CompiledModel(design, many.work.problem(place)[1], many.work.arguments)
    return means_of_fit(_with_coefficients(many, model, own), specs, by, at, level=level)


def _carrier(many: ManyFits, own: Coefficients) -> FittedModel:
    """A fitted model of the design that all models share, as far as means need one: without a
    response of its own.
    """
    design = many.work.design
    y = np.arange(len(design.X), dtype=float)
    model = CompiledModel(
        replace(design, y=y, response="response"), many.work.data, many.work.arguments
    )
    return _with_coefficients(many, model, own)


def _with_coefficients(many: ManyFits, model: CompiledModel, own: Coefficients) -> FittedModel:
    fit = FittedModel(model, None, many.method, many.df_method)
    fit.remembered(("coefficients", many.df_method), lambda: own)
    return fit
