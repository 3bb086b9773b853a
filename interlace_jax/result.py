"""The labelled result of a fit. Everything is computed elsewhere; here it gets its names."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from scipy import special

from . import inference, modes, optimize, tables
from .compute import run
from .design import Design, Factor
from .deviance import deviance
from .errors import ConvergenceWarning, SingularFitWarning
from .estimate import Estimate
from .prediction import fitted_values, predict

if TYPE_CHECKING:
    from .model import Model

NEGLIGIBLE = 1e-7  # deviance units: a search that stalled with less than this to gain has converged
SINGULAR = 1e-4  # standard deviation relative to sigma, per unit RMS of its column; lme4's tolerance

_modes = jax.jit(modes.modes)
_mode_covariances = jax.jit(modes.mode_covariances)
_satterthwaite = jax.jit(inference.satterthwaite)
_hessian = jax.jit(jax.hessian(deviance))


@dataclass(frozen=True, eq=False)
class Optimum:
    """How the search for theta ended."""

    theta: np.ndarray
    "(d,)"
    gradient: np.ndarray
    "(d,) absolute derivatives of the deviance in conditioned parameters: standard deviations of unit-RMS columns."
    predicted_decrease: float
    "Deviance units still to gain by the optimiser's quadratic model; free of scale."
    steps: int
    "Evaluations of deviance and gradient."
    status: str
    message: str
    hessian: Any = field(repr=False)
    "Call it for the Hessian (d, d) of the profiled deviance in conditioned parameters."

    @functools.cached_property
    def hessian_eigenvalues(self) -> np.ndarray:
        """Eigenvalues (d,) of the Hessian, increasing; positive at a minimum inside the parameter space."""
        return np.linalg.eigvalsh(self.hessian())


class Fit:
    """A fitted linear mixed model.

    Tables are pandas, labelled by coefficient, factor, level and term. Variances are in squared units of the response,
    deviances are -2 log L.
    """

    def __init__(self, model: Model, estimate: Estimate, method: str, df_method: str):
        self.model, self.estimate, self.method, self.df_method = model, estimate, method, df_method

    @property
    def _design(self) -> Design:
        return self.model.design

    @property
    def theta(self) -> np.ndarray:
        """Entries (d,) of the relative factors Lambda: factors as in `ngroups`, lower triangles column by column."""
        return self.estimate.theta

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return float(self.estimate.sigma)

    @property
    def scale(self) -> float:
        """Residual variance."""
        return self.sigma**2

    @property
    def deviance(self) -> float:
        """-2 log-likelihood; the REML criterion for a REML fit."""
        return float(self.estimate.deviance)

    @property
    def llf(self) -> float:
        """Log-likelihood; restricted for a REML fit."""
        return -0.5 * self.deviance

    @property
    def nparams(self) -> int:
        """Number of fixed effects, variance parameters and sigma."""
        return len(self._design.columns) + len(self.theta) + 1

    @property
    def aic(self) -> float:
        """Deviance + 2 nparams."""
        return self.deviance + 2.0 * self.nparams

    @property
    def bic(self) -> float:
        """Deviance + log(nobs) nparams, for ML and REML alike."""
        return self.deviance + float(np.log(self.nobs)) * self.nparams

    @property
    def nobs(self) -> int:
        """Rows used."""
        return len(self._design.y)

    @property
    def n_dropped(self) -> int:
        """Rows left out for missing values."""
        return self._design.n_dropped

    @property
    def ngroups(self) -> dict[str, int]:
        """Levels used of every grouping factor, most levels first."""
        return {f.name: len(f.levels) for f in self._design.factors}

    @property
    def dropped_columns(self) -> tuple[str, ...]:
        """Fixed-effects columns left out because they depend linearly on those before them."""
        return self._design.dropped_columns

    @property
    def converged(self) -> bool:
        """Whether what is left to gain is negligible."""
        e = self.estimate
        return bool(e.status == optimize.CONVERGED or (np.isfinite(e.deviance) and e.predicted_decrease < NEGLIGIBLE))

    @property
    def optimum(self) -> Optimum:
        """Certificate of the optimiser."""
        e = self.estimate
        names = {optimize.CONVERGED: "converged", optimize.STALLED: "stalled", optimize.EXHAUSTED: "step limit"}
        status = names[int(e.status)]
        message = f"{status} after {int(e.steps)} evaluations, predicted decrease {float(e.predicted_decrease):.1e}"
        hessian = functools.partial(run, _hessian, e.t, self.model.moments, self.method == "REML")
        return Optimum(e.theta, e.gradient, float(e.predicted_decrease), int(e.steps), status, message, hessian)

    # Fixed effects

    def _by_coefficient(self, values: np.ndarray) -> pd.Series:
        return pd.Series(values, index=list(self._design.columns))

    @property
    def fe_params(self) -> pd.Series:
        """Coefficients."""
        return self._by_coefficient(self.estimate.beta)

    @property
    def fe_cov(self) -> pd.DataFrame:
        """Covariance matrix of the coefficients."""
        names = list(self._design.columns)
        return pd.DataFrame(self.estimate.vcov, index=names, columns=names)

    @property
    def fe_bse(self) -> pd.Series:
        """Standard errors of the coefficients."""
        return self._by_coefficient(np.sqrt(np.diag(self.fe_cov)))

    @property
    def fe_tvalues(self) -> pd.Series:
        """Coefficients over their standard errors."""
        return self.fe_params / self.fe_bse

    @functools.cached_property
    def fe_df(self) -> pd.Series:
        """Degrees of freedom of the t statistics by `df_method`; infinite for "normal"."""
        p = len(self._design.columns)
        if self.df_method == "normal" or p == 0:
            return self._by_coefficient(np.full(p, np.inf))
        e, reml = self.estimate, self.method == "REML"
        return self._by_coefficient(run(_satterthwaite, e.t, np.log(e.sigma), np.eye(p), self.model.moments, reml))

    @property
    def fe_pvalues(self) -> pd.Series:
        """Two-sided p-values of the coefficients."""
        t, df = -np.abs(self.fe_tvalues), self.fe_df
        return self._by_coefficient(2.0 * np.where(np.isinf(df), special.ndtr(t), special.stdtr(df, t)))

    @property
    def fe_conf_int(self) -> pd.DataFrame:
        """95% intervals of the coefficients: columns `lower` and `upper`."""
        df = self.fe_df
        quantile = np.where(np.isinf(df), special.ndtri(0.975), special.stdtrit(df, 0.975))
        return pd.DataFrame({"lower": self.fe_params - quantile * self.fe_bse, "upper": self.fe_params + quantile * self.fe_bse})

    # Random effects

    def _by_level(self, arrays: Iterable[np.ndarray]) -> dict[str, pd.Series | pd.DataFrame]:
        """Label arrays (m, k), one per factor."""
        labelled = {}
        for f, values in zip(self._design.factors, arrays, strict=True):
            frame = pd.DataFrame(values, index=f.levels, columns=list(f.columns))
            labelled[f.name] = frame if len(f.columns) > 1 else frame.iloc[:, 0].rename(f.name)
        return labelled

    @functools.cached_property
    def mode_arrays(self) -> list[np.ndarray]:
        """Conditional modes as arrays (m, k), by factor in the order of `ngroups`."""
        found = run(_modes, self.estimate.t, self.model.moments)
        return [b[: len(f.levels)] for b, f in zip(found, self._design.factors, strict=True)]

    @functools.cached_property
    def mode_covariances(self) -> list[np.ndarray]:
        """Covariances of the random effects given y and beta, arrays (m, k, k), by factor in the order of `ngroups`."""
        found = run(_mode_covariances, self.estimate.t, self.model.moments)
        return [self.scale * c[: len(f.levels)] for c, f in zip(found, self._design.factors, strict=True)]

    @property
    def random_effects(self) -> dict[str, pd.Series | pd.DataFrame]:
        """Conditional modes (BLUPs): by factor a Series over levels, or a frame levels x terms."""
        return self._by_level(self.mode_arrays)

    @property
    def random_effects_se(self) -> dict[str, pd.Series | pd.DataFrame]:
        """Standard deviations of the random effects given y, theta and beta (lme4's condVar)."""
        return self._by_level(np.sqrt(np.einsum("mkk->mk", c)) for c in self.mode_covariances)

    def random_effects_ci(self, level: float = 0.95) -> dict[str, pd.DataFrame]:
        """Normal intervals of the random effects: columns `lower`, `upper`, or (term, "lower") and (term, "upper")."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, as in 0.95, not {level!r}")
        z = special.ndtri(0.5 + level / 2)
        intervals = {}
        for f, b, covariance in zip(self._design.factors, self.mode_arrays, self.mode_covariances, strict=True):
            half = z * np.sqrt(np.einsum("mkk->mk", covariance))
            columns = pd.MultiIndex.from_product([f.columns, ["lower", "upper"]])
            bounds = np.stack([b - half, b + half], axis=-1).reshape(len(b), -1)
            frame = pd.DataFrame(bounds, index=f.levels, columns=columns)
            intervals[f.name] = frame if len(f.columns) > 1 else frame.droplevel(0, axis=1)
        return intervals

    @functools.cached_property
    def Lambdas(self) -> list[np.ndarray]:
        """Relative covariance factors (k, k), lower triangular, by factor in the order of `ngroups`."""
        found, theta = [], iter(self.theta)
        for f in self._design.factors:
            Lam, start = np.zeros((len(f.columns),) * 2), 0
            for size in f.sizes:
                for j in range(start, start + size):
                    for i in range(j, start + size):
                        Lam[i, j] = next(theta)
                start += size
            found.append(Lam)
        return found

    @property
    def covariances(self) -> dict[str, pd.DataFrame]:
        """Covariance matrix of the random effects by factor, terms x terms."""
        pairs = zip(self._design.factors, self.Lambdas, strict=True)
        return {f.name: pd.DataFrame(self.scale * L @ L.T, index=list(f.columns), columns=list(f.columns)) for f, L in pairs}

    @property
    def variance_components(self) -> dict[str, float | dict[str, float]]:
        """Variances by factor (one number for a lone intercept, else by term), and `"residual"`."""
        components: dict[str, Any] = {}
        for name, S in self.covariances.items():
            variances = dict(zip(S.columns, np.diag(S).tolist(), strict=True))
            components[name] = variances["(Intercept)"] if list(variances) == ["(Intercept)"] else variances
        return components | {"residual": self.scale}

    @property
    def varcov(self) -> pd.DataFrame:
        """Covariance matrix of the random effects; for several factors block diagonal over (factor, term)."""
        return tables.varcov(self.covariances)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances, covariances, SDs and correlations: `grp var1 var2 vcov sdcor`, as lme4's VarCorr data frame."""
        return tables.varcorr(self._design.factors, self.covariances, self.scale)

    @functools.cached_property
    def singular_terms(self) -> list[tuple[Factor, list[int]]]:
        """Factors at the boundary with the columns of Lambda that vanish."""
        layout, found = self.model.moments.layout, []
        for i, (f, Lam) in enumerate(zip(self._design.factors, self.Lambdas, strict=True)):
            A = self.model.moments.A[layout.order[i]]
            small = np.diag(Lam) * np.sqrt(np.diag(A.T @ A)) < SINGULAR
            if small.any():
                found.append((f, np.flatnonzero(small).tolist()))
        return found

    @property
    def is_singular(self) -> bool:
        """Whether a variance is 0 or a correlation +-1: a diagonal of Lambda times its column's RMS is below 1e-4."""
        return bool(self.singular_terms)

    # Rows

    @functools.cached_property
    def fittedvalues(self) -> pd.Series:
        """X beta + Z b + offset, on the index of the rows used."""
        return pd.Series(fitted_values(self._design, self.estimate.beta, self.mode_arrays), index=self._design.index)

    @property
    def resid(self) -> pd.Series:
        """Response minus fitted values."""
        return self._design.y - self.fittedvalues

    def predict(
        self,
        newdata: Any = None,
        include_re: bool = True,
        allow_new_levels: bool = True,
        offset: str | Iterable[float] | None = None,
    ) -> pd.Series:
        """Expected response for the rows of a frame (by default those of the fit).

        newdata: a frame with the columns of the formula; transforms and categories are those of the fit.
        include_re: add the random effects of the levels known; False gives population values.
        allow_new_levels: a level the fit has not seen has random effect 0; False refuses it.
        offset: needed again when the fit's was an array; an offset column is read from newdata.
        """
        return predict(self._design, self.estimate.beta, self.mode_arrays, newdata, include_re, allow_new_levels, offset)

    def refit(self, y: Iterable[float]) -> Fit:
        """The same model of another response, one number per row used."""
        return self.model.with_response(y).fit(self.method, df_method=self.df_method)

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Fit:
        """Fit again with a changed formula (a dot stands for what was there: `". ~ . + x"`), data or arguments of `fit`."""
        method = arguments.pop("method", self.method)
        df_method = arguments.pop("df_method", self.df_method)
        return self.model.update(formula, data, **arguments).fit(method, df_method=df_method)

    # For the eye

    def summary(self) -> tables.Summary:
        """The fit as a table; `str()` of it is text, a notebook shows it as HTML."""
        return tables.Summary(self)

    def __repr__(self) -> str:
        return f"<Fit of {self._design.formula} by {self.method}, {self.nobs} rows>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def report(fit: Fit) -> None:
    """Warn of a fit that is singular, or not at its optimum."""
    if not fit.converged:
        warnings.warn(
            f"the fit of {fit.model.design.formula} did not converge: {fit.optimum.message}", ConvergenceWarning, stacklevel=4
        )
    if fit.is_singular:
        warnings.warn(tables.singular_message(fit), SingularFitWarning, stacklevel=4)
