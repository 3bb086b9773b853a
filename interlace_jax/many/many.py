"""The labelled result of many fits."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..design.design import Design
from ..inference.coefficients import t_pvalue
from ..models.parameters import component_names, component_pairs, natural_names, natural_values, relative_factors
from ..numerics.uncertainty.curvature import degrees_of_freedom, derivatives, in_user_units
from ..runtime.devices import gathered, share, spread
from ..support.arguments import one_of
from ..support.later import jnp
from .chunks import filled
from .designs import Designs
from .lanes import over_lanes
from .permutation import PermutationTest, Refitted, permutation_test
from .responses import Responses
from .run import _theta_names, run_all

CACHED = 256  # lanes whose second derivatives stay in the processor's cache


class Many:
    """Results of `fit_many`: tables with one row a model (its response name, its number, or its group).

    `many[label]` is the full `Fit` of one model.
    """

    def __init__(
        self, work: Responses | Designs, method: str, df_method: str, table: pd.DataFrame, single: Callable[[int], Any]
    ):
        self.method, self.df_method, self._work, self._single = method, df_method, work, single
        self._table = table.set_axis(work.labels)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._table.index)

    def __getitem__(self, label: Any) -> Any:
        try:
            place = self._table.index.get_loc(label)
        except (KeyError, TypeError, pd.errors.InvalidIndexError):
            raise ValueError(
                f"there is no model {label!r}; the labels are {self._table.index[:5].tolist()} ..."
            ) from None
        return self._single(place)

    def _part(self, kind: str) -> pd.DataFrame:
        names = [name for name in self._table if name.startswith(kind + ":")]
        return self._table[names].rename(columns=lambda name: name[len(kind) + 1 :])

    @property
    def fe_params(self) -> pd.DataFrame:
        """Coefficients, models x coefficients."""
        return self._part("beta")

    @property
    def fe_bse(self) -> pd.DataFrame:
        """Standard errors of the coefficients."""
        return self._part("bse")

    @property
    def fe_tvalues(self) -> pd.DataFrame:
        """Coefficients over their standard errors."""
        return self.fe_params / self.fe_bse

    @functools.cached_property
    def fe_df(self) -> pd.DataFrame:
        """Degrees of freedom by `df_method`, computed on first access.

        In a job of several processes each computes its share, so all of them must ask (`fit_many` does so at once).
        """
        params = self.fe_params
        found = np.full(params.shape, np.inf)
        if self.df_method == "satterthwaite":
            t, log_sigma = self._part("t").to_numpy(), np.log(self.sigma.to_numpy())
            one = functools.partial(_chunk_df, self._work, self.method == "REML", t, log_sigma)
            mine = share(len(self._work))
            for places, columns, df in itertools.chain(*gathered(list(spread(one, mine)))):
                found[np.ix_(places, params.columns.get_indexer(columns))] = df
        return pd.DataFrame(found, params.index, params.columns).where(params.notna())

    @property
    def fe_pvalues(self) -> pd.DataFrame:
        """Two-sided p-values of the coefficients."""
        t = self.fe_tvalues
        return pd.DataFrame(t_pvalue(t, self.fe_df), index=t.index, columns=t.columns)

    @property
    def theta(self) -> pd.DataFrame:
        """Entries of the relative factors Lambda, named as lme4 does; of structures `g.scale`, `g.free(rho)`."""
        return self._part("theta")

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviations."""
        return self._table["sigma"]

    @property
    def variance_components(self) -> pd.DataFrame:
        """Variances, columns (factor, term) and ("residual", "")."""
        found = {}
        for f, S in zip(self._work.design.factors, self._covariances, strict=True):
            found |= {(f.name, column): S[:, j, j] for j, column in enumerate(f.columns)}
        return pd.DataFrame(found | {("residual", ""): self.sigma.to_numpy() ** 2}, index=self._table.index)

    @property
    def _covariances(self) -> list[np.ndarray]:
        """Covariance matrices (models, k, k) of the random effects, by factor."""
        scale = self.sigma.to_numpy()[:, None, None] ** 2
        return [scale * Lam @ Lam.mT for Lam in relative_factors(self._work.design.factors, self.theta.to_numpy())]

    @property
    def parameters(self) -> pd.DataFrame:
        """All parameters: coefficients, standard deviations `sd_x|g`, correlations `cor_x.(Intercept)|g`, `sigma`.

        With covariance structures also theirs, such as `rho|g`.
        """
        columns = []
        for f, S in zip(self._work.design.factors, self._covariances, strict=True):
            sd = np.sqrt(np.einsum("rkk->rk", S))
            with np.errstate(invalid="ignore"):  # a correlation with an effect of variance zero
                columns += [
                    sd[:, i] if i == j else S[:, i, j] / (sd[:, i] * sd[:, j]) for i, j in component_pairs(f.sizes)
                ]
        factors = self._work.design.factors
        values = np.column_stack([*columns, self.sigma, natural_values(factors, self.theta.to_numpy())])
        names = [*component_names(factors), *(name for f in factors for name in natural_names(f))]
        return self.fe_params.join(pd.DataFrame(values, self._table.index, names))

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
        """Whether a variance is 0 or a correlation +-1, or the residual variance 0 or not told from the others."""
        return self._table["singular"].rename("is_singular")

    @property
    def status(self) -> pd.Series:
        """How each search ended: "converged", "stalled", "step limit"; or why a model could not be fitted."""
        return self._table["status"]

    @property
    def certificate(self) -> pd.DataFrame:
        """Largest `gradient` (absolute, conditioned parameters), `predicted_decrease` (deviance units) and `steps`."""
        return self._table[["gradient", "predicted_decrease", "steps"]]

    def adjusted_pvalues(self, method: str = "bh") -> pd.DataFrame:
        """p-values adjusted over the models, each coefficient for itself: false discovery rate by "bh" or "by"."""
        one_of("method", method, ("bh", "by"))
        p = self.fe_pvalues
        return p.apply(lambda column: _false_discovery(column, method))

    def _refitted(self, design: Design) -> Refitted:
        """These models fitted to another design."""
        work = self._work.with_design(design)
        table = run_all(work, self.method, progress=False)
        again = Many(work, self.method, self.df_method, table, self._single)
        return Refitted(again.fe_tvalues.to_numpy(), again.converged.sum(), again.is_singular.sum())

    def permutation_test(
        self,
        predictor: str,
        n: int = 1000,
        *,
        within: str | None = None,
        between: str | None = None,
        seed: Any = None,
        progress: bool | None = None,
    ) -> PermutationTest:
        """Permutation test of a predictor in every model, and in all of them together by the largest |t| (max-T).

        The values of the predictor are shuffled n times, the same way for all responses, and every model is refitted.

        Parameters
        ----------
        predictor
            A column of the data. All coefficients that it enters are tested.
        within
            A column: values move among the rows of each of its levels, as for a condition that varies within subjects.
        between
            A column: whole levels exchange their values, as for a property of subjects. Without either, rows exchange
            theirs.
        seed
            Anything `numpy.random.default_rng` takes; the same seed gives the same permutations.
        """
        if not isinstance(self._work, Responses):
            raise ValueError("a permutation test needs models that share a design: use responses= in place of by=")
        arguments = predictor, n, within, between, seed, progress
        return permutation_test(self._work, self.fe_tvalues, self._refitted, *arguments)

    def to_frame(self) -> pd.DataFrame:
        """One tidy frame: a row per model and coefficient with `estimate se df t p`."""
        pieces = dict(estimate=self.fe_params, se=self.fe_bse, df=self.fe_df, t=self.fe_tvalues, p=self.fe_pvalues)
        tidy = pd.DataFrame({name: piece.stack() for name, piece in pieces.items()})
        return tidy.rename_axis([self._table.index.name or "model", "coefficient"]).reset_index()

    def __repr__(self) -> str:
        fitted, singular = int(self.converged.sum()), int(self.is_singular.sum())
        return f"<{len(self)} fits of {self._work.formula} by {self.method}: {fitted} converged, {singular} singular>"


def _false_discovery(p: pd.Series, method: str) -> pd.Series:
    known = p.dropna()
    return pd.Series(scipy.stats.false_discovery_control(known, method=method), index=known.index).reindex(p.index)


def _chunk_df(work, reml, t, log_sigma, i) -> list[tuple[np.ndarray, list[str], np.ndarray]]:
    """Places, columns and degrees of freedom (models, p) of one chunk; t and log sigma are those of all models."""
    results = []
    for places, design, lanes, *_ in work.chunk(i)[0]:
        every = filled(places, lanes.count)
        at = t[every, : len(_theta_names(design))], log_sigma[every]
        found = _derivatives(lanes, reml, *at)
        df = np.asarray(_degrees_of_freedom(lanes, reml, *at, found))
        results.append((places, list(design.columns), df[: len(places)]))
    return results


_derivatives = over_lanes(lambda m, reml, t, log_sigma: derivatives(t, log_sigma, m, reml), CACHED)


@over_lanes
def _degrees_of_freedom(m, reml, t, log_sigma, found):
    curvature = in_user_units(found, t, log_sigma, m)
    return degrees_of_freedom(jnp.eye(m.p, dtype=t.dtype), curvature)
