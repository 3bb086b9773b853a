"""Fits of many models as labelled tables. State; what can be asked of it is listed in `batch`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy

from ..design.design import Design
from ..inference.tails import t_pvalue
from ..models.parameters import (
    component_name,
    component_pairs,
    natural_names,
    natural_values,
    relative_factors,
)
from ..models.residual import residual_names, residual_values
from ..runtime.devices import gathered, share, spread
from ..support.arguments import listed, one_of
from .chunks import Chunk, theta_names_of
from .curvature import KEPT, LaneCurvatures, curvatures
from .designs import Designs
from .responses import Responses
from .run import linear_tables, run_all


class ManyFits:
    """Fits of many models: tables with one row a model (its response name, its number, or its
    group).

    A coefficient or variance that a model does not have is missing in its row.
    """

    _tables_of = staticmethod(linear_tables)

    def __init__(
        self,
        work: Responses | Designs,
        method: str,
        df_method: str,
        table: pd.DataFrame,
        single: Callable[[int], Any],
    ):
        self.method, self.df_method, self.work, self._single = method, df_method, work, single
        self._table = table.set_axis(work.labels)
        self._curvatures: list[LaneCurvatures] | None = None

    @classmethod
    def of(
        cls,
        work: Responses | Designs,
        method: str,
        df_method: str,
        single: Callable[[int], Any],
        checkpoint: Any = None,
        progress: bool | None = None,
    ) -> Self:
        """Fit all models. single: makes the full fit of the model at a place."""
        work, table = run_all(work, method, cls._tables_of, checkpoint, progress)
        return cls(work, method, df_method, table, single)

    @property
    def labels(self) -> pd.Index:
        """What tells the models apart."""
        return self._table.index

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.labels)

    def __getitem__(self, label: Any) -> Any:
        place = self._place(label)
        if not isinstance(place, int):
            known = listed(self.labels.tolist(), 5)
            raise ValueError(f"there is no model {label!r}; the labels are {known}")
        return self._single(place)

    def _place(self, label: Any) -> int | None:
        """Where a model stands; None for what is the label of none, or a part of the labels of
        several.
        """
        levels = self.labels.nlevels
        if levels > 1 and not (isinstance(label, tuple) and len(label) == levels):
            return None
        try:
            place = self.labels.get_loc(label)
        except (KeyError, TypeError, ValueError, pd.errors.InvalidIndexError):
            return None
        return int(place) if isinstance(place, int | np.integer) else None

    def _part(self, kind: str, names: list[str] | None = None) -> pd.DataFrame:
        """The columns of a kind, by name or all of them."""
        prefix = kind + ":"
        if names is None:
            names = [name.removeprefix(prefix) for name in self._table if name.startswith(prefix)]
        return self._table[[prefix + name for name in names]].set_axis(pd.Index(names), axis=1)

    @functools.cached_property
    def coefficients(self) -> list[str]:
        """Names of all coefficients that some model has, in the order of the formula as far as
        models have it.
        """
        return _united(design.columns for _, design in self.work.named)

    @property
    def fe_params(self) -> pd.DataFrame:
        """Coefficients, models x coefficients."""
        return self._part("beta", self.coefficients)

    @property
    def fe_bse(self) -> pd.DataFrame:
        """Standard errors of the coefficients."""
        return self._part("bse", self.coefficients)

    @property
    def fe_tvalues(self) -> pd.DataFrame:
        """Coefficients over their standard errors."""
        return self.fe_params / self.fe_bse

    @functools.cached_property
    def fe_df(self) -> pd.DataFrame:
        """Degrees of freedom by `df_method`, computed on first access.

        In a job of several processes each computes its share, so all of them must ask (`fit_many`
        does so at once).
        """
        params = self.fe_params
        found = np.full(params.shape, np.inf)
        if self.df_method == "satterthwaite":
            (found,) = self.over_curvatures(
                lambda c: (c.degrees_of_freedom(np.eye(params.shape[1])),)
            )
        return pd.DataFrame(found, params.index, params.columns).where(params.notna())

    def over_curvatures(
        self, function: Callable[[LaneCurvatures], tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, ...]:
        """Arrays (models, ...) that a function makes of the second-order facts of lanes, NaN for
        what was not fitted.

        What it makes them of is kept for further calls where it takes up to a gigabyte, otherwise
        computed anew, chunk by chunk. All processes of a job must call this.
        """
        if self._curvatures is None and self._size_of_curvatures() <= KEPT:
            self._curvatures = self._mapped(lambda part: part)
        if self._curvatures is None:
            made = self._mapped(lambda part: (part.places, function(part)))
        else:
            made = [(part.places, function(part)) for part in self._curvatures]
        whole = tuple(np.full((len(self), *a.shape[1:]), np.nan) for a in made[0][1])
        for places, arrays in made:
            for to, values in zip(whole, arrays, strict=True):
                to[places] = values
        return whole

    def over_chunks(self, function: Callable[[Chunk], Any]) -> list[Any]:
        """What a function makes of each chunk of models that can be fitted, on all devices.

        All processes of a job must call this.
        """

        def one(i: int) -> list[Any]:
            return [function(chunk) for chunk in self.work.chunk(i)[0]]

        return list(itertools.chain(*gathered(list(spread(one, share(len(self.work)))))))

    def _size_of_curvatures(self) -> int:
        parameters, p = self.optima.shape[1], len(self.coefficients)
        return 8 * len(self) * (parameters + 2) * p**2

    def _mapped(self, function: Callable[[LaneCurvatures], Any]) -> list[Any]:
        facts = self.method == "REML", self.coefficients, self.optima, np.log(self.sigma.to_numpy())
        return self.over_chunks(lambda chunk: function(curvatures(chunk, *facts)))

    @property
    def fe_pvalues(self) -> pd.DataFrame:
        """Two-sided p-values of the coefficients."""
        t = self.fe_tvalues
        return pd.DataFrame(t_pvalue(t, self.fe_df), index=t.index, columns=t.columns)

    @property
    def theta(self) -> pd.DataFrame:
        """Entries of the relative factors Lambda, named as lme4 does; of structures `g.scale`,
        `g.free(rho)`.
        """
        return self._part("theta", _united(theta_names_of(design) for _, design in self.work.named))

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviations."""
        return self._table["sigma"]

    @property
    def variance_components(self) -> pd.DataFrame:
        """Variances, columns (factor, term) and ("residual", "")."""
        found = self._by_design(_variances)
        found[("residual", "")] = self.sigma**2
        return found.set_axis(pd.MultiIndex.from_tuples(found.columns), axis=1)

    @property
    def parameters(self) -> pd.DataFrame:
        """All parameters: coefficients, standard deviations `sd_x|g`, correlations
        `cor_x.(Intercept)|g`, `sigma`.

        With covariance structures also theirs, such as `rho|g`.
        """
        components, structures = self._by_design(_components), self._by_design(_structures)
        return pd.concat([self.fe_params, components, self.sigma, structures], axis=1)

    @property
    def effect_scale(self) -> np.ndarray:
        """What theta is relative to, in every model (models,): sigma."""
        return self.sigma.to_numpy()

    def _by_design(
        self, make: Callable[[Design, np.ndarray, np.ndarray], dict[Any, np.ndarray]]
    ) -> pd.DataFrame:
        """Columns by name that `make` finds from design, theta (r, d) and sigma (r,) of models with
        the same names.
        """
        sigma, parts = self.effect_scale, []
        for places, design in self.work.named:
            theta = self._part("theta", theta_names_of(design)).to_numpy()[places]
            columns = make(design, theta, sigma[places])
            parts.append(pd.DataFrame(list(columns.values()), list(columns), places).T)
        names = _united(part.columns for part in parts)
        whole = pd.concat(parts).reindex(index=range(len(self)), columns=names)
        return whole.set_axis(self.labels)

    @property
    def llf(self) -> pd.Series:
        """Log-likelihoods; restricted for REML."""
        return (-0.5 * self._table["deviance"]).rename("llf")

    @property
    def nobs(self) -> pd.Series:
        """Rows used; 0 for a model that could not be fitted."""
        return self._table["nobs"]

    @property
    def converged(self) -> pd.Series:
        """Whether what is left to gain is negligible."""
        return self._table["converged"]

    @property
    def is_singular(self) -> pd.Series:
        """Whether a variance is 0 or a correlation +-1, or the residual variance 0 or not told
        from the others.
        """
        return self._table["singular"].rename("is_singular")

    @property
    def status(self) -> pd.Series:
        """How each search ended: "converged", "stalled", "step limit"; or why a model could not
        be fitted.
        """
        return self._table["status"]

    @property
    def certificate(self) -> pd.DataFrame:
        """Largest `gradient` (absolute, conditioned parameters), `predicted_decrease` (deviance
        units) and `steps`.
        """
        return self._table[["gradient", "predicted_decrease", "steps"]]

    def adjusted_pvalues(self, method: str = "bh") -> pd.DataFrame:
        """p-values adjusted over the models, each coefficient for itself: false discovery rate
        by "bh" or "by".

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = "Days + (1 + Days | Subject)"
        >>> Y = interlace_jax.fit(f"Reaction ~ {model}", sleep).simulate(4, seed=1).add_prefix("y")
        >>> many = interlace_jax.fit_many(f"~ {model}", sleep, responses=Y)
        >>> (many.adjusted_pvalues() < 0.001).all()
        Intercept    True
        Days         True
        dtype: bool
        """
        one_of("method", method, ("bh", "by"))
        p = self.fe_pvalues
        return p.apply(lambda column: false_discovery(column, method))

    @property
    def optima(self) -> np.ndarray:
        """Conditioned parameters (models, d) at the optimum, in the order in which factors are
        eliminated.
        """
        return self._part("t").to_numpy()

    def by(self, method: str) -> ManyFits:
        """These models fitted by "ML" or "REML"."""
        if method == self.method:
            return self
        return type(self).of(
            self.work,
            method,
            self.df_method,
            lambda place: self._single(place).by(method),
            progress=False,
        )

    def refitted(self, design: Design) -> ManyFits:
        """These responses fitted to another design of their rows."""
        return type(self).of(
            self.work.with_design(design), self.method, self.df_method, self._single, progress=False
        )

    def to_frame(self) -> pd.DataFrame:
        """One tidy frame: a row per model and coefficient with `estimate se df t p`.

        The labels of the models stand in front, in a column with their name, or `model` where they
        have none or one of those of the others.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = "Days + (1 + Days | Subject)"
        >>> Y = interlace_jax.fit(f"Reaction ~ {model}", sleep).simulate(4, seed=1).add_prefix("y")
        >>> many = interlace_jax.fit_many(f"~ {model}", sleep, responses=Y)
        >>> many.to_frame().head(3).round(2)
          model coefficient  estimate    se    df      t    p
        0    y0   Intercept    248.19  6.04  17.0  41.11  0.0
        1    y0        Days     10.93  1.53  17.0   7.13  0.0
        2    y1   Intercept    241.92  5.54  17.0  43.65  0.0
        """
        pieces = dict(
            estimate=self.fe_params,
            se=self.fe_bse,
            df=self.fe_df,
            t=self.fe_tvalues,
            p=self.fe_pvalues,
        )
        columns = {name: piece.to_numpy().ravel() for name, piece in pieces.items()}
        k = len(self.coefficients)
        tidy = pd.DataFrame(
            {"coefficient": np.tile(np.array(self.coefficients, object), len(self))} | columns
        )
        return with_labels(tidy, self.labels.repeat(k))

    def __repr__(self) -> str:
        fitted, singular = int(self.converged.sum()), int(self.is_singular.sum())
        return (
            f"<{len(self)} fits of {self.work.formula} by {self.method}: {fitted} converged, "
            f"{singular} singular>"
        )


def with_labels(table: pd.DataFrame, labels: pd.Index) -> pd.DataFrame:
    """A table with the labels of models (one a row) in front, a column for each of their levels.

    The columns have the names of the index, or `model` (`model_1`, `model_2` of several) where
    there is none, or one that the table has already.
    """
    levels = [labels.get_level_values(i) for i in range(labels.nlevels)]
    default = ["model"] if len(levels) == 1 else [f"model_{i + 1}" for i in range(len(levels))]
    taken = set(table.columns)
    front = {}
    for level, other in zip(levels, default, strict=True):
        has_own = level.name is not None and level.name not in taken
        front[level.name if has_own else other] = level.array
    return pd.concat([pd.DataFrame(front), table.reset_index(drop=True)], axis=1)


def _united(names: Iterable[Sequence[Any]]) -> list[Any]:
    """All names of several sequences, in the order of the longest, then of the next ..."""
    by_length = sorted(map(list, names), key=len, reverse=True)
    return list(dict.fromkeys(itertools.chain(*by_length)))


def _covariances(design: Design, theta: np.ndarray, sigma: np.ndarray) -> list[np.ndarray]:
    """Covariance matrices (r, k, k) of the random effects, by factor."""
    scale = sigma[:, None, None] ** 2
    return [scale * Lam @ Lam.mT for Lam in relative_factors(design.factors, theta)]


def _variances(
    design: Design, theta: np.ndarray, sigma: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """Variances (r,) by factor and term."""
    found = {}
    for f, S in zip(design.factors, _covariances(design, theta, sigma), strict=True):
        found |= {(f.name, column): S[:, j, j] for j, column in enumerate(f.columns)}
    return found


def _components(design: Design, theta: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Standard deviations and correlations (r,) by their names."""
    found = {}
    for f, S in zip(design.factors, _covariances(design, theta, sigma), strict=True):
        sd = np.sqrt(np.einsum("rkk->rk", S))
        with np.errstate(invalid="ignore"):  # a correlation with an effect of variance zero
            for i, j in component_pairs(f.sizes):
                found[component_name(f, i, j)] = (
                    sd[:, i] if i == j else S[:, i, j] / (sd[:, i] * sd[:, j])
                )
    return found


def _structures(design: Design, theta: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters (r,) of covariance structures by their names."""
    names = [name for f in design.factors for name in natural_names(f)]
    found = dict(zip(names, natural_values(design.factors, theta).T, strict=True))
    if design.residual is not None:
        values = np.array(
            [residual_values(design, x, s) for x, s in zip(theta, sigma, strict=True)]
        )
        found |= dict(zip(residual_names(design.residual), values.T, strict=True))
    return found


def false_discovery(p: pd.Series, method: str) -> pd.Series:
    """p-values adjusted over the models that have one, by "bh" or "by"."""
    known = p.dropna()
    return pd.Series(
        scipy.stats.false_discovery_control(known, method=method), index=known.index
    ).reindex(p.index)
