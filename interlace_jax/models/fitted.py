"""A fitted model: data, estimates and their labels.

State; what can be asked of it is listed in `result`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterable
from statistics import NormalDist
from typing import Any, Self

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.determinacy import largest
from ..design.grouping import Factor
from ..numerics.estimation.bfgs import STATUS
from ..numerics.estimation.estimate import Estimate
from ..numerics.uncertainty.curvature import Curvature
from ..numerics.uncertainty.kenward_roger import why_not
from ..runtime.programs.tiers import ways
from ..support.arguments import check_level, chosen, one_of
from ..support.elsewhere import answers
from ..support.warnings import ConvergenceWarning, SingularFitWarning
from .compiled import CompiledModel
from .identifiability import is_perfect, is_rounding, residual_doubt, weighted_size
from .linear_predictor import fitted_values
from .optimum import Optimum, principal_components
from .parameters import (
    component_names,
    level_roots,
    natural_names,
    natural_values,
    relative_factors,
    varcorr_table,
    varcov,
)
from .power_of_fitted import settled
from .residual import relative_sds, residual_matrices, residual_names, residual_values
from .singularity import singular_message

METHODS = ("REML", "ML")
DF_METHODS = ("satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within", "normal")


@answers
class FittedModel:
    """A fitted linear mixed model.

    Tables are pandas, labelled by coefficient, factor, level and term. Variances are in squared
    units of the response, deviances are -2 log L.
    """

    execution = ""
    "How the programs of the search ran; see `Optimum.execution`."

    def __init__(self, model: CompiledModel, estimate: Estimate, method: str, df_method: str):
        self.model, self.estimate = model, estimate
        self.method, self.df_method = method, df_method
        self._remembered: dict[Any, Any] = {}

    @classmethod
    def of(
        cls,
        model: CompiledModel,
        method: str = "REML",
        df_method: str = "satterthwaite",
        theta0: Iterable[float] | None = None,
    ) -> Self:
        """Estimate a compiled model.

        Arguments as in `fit`; warns of a fit that is singular or not at its optimum.
        """
        one_of("method", method, METHODS)
        df_method = chosen("df_method", df_method, DF_METHODS)
        if df_method.startswith("kenward-roger"):
            check_kenward_roger_of(model, method, df_method, "df_method='satterthwaite'")
        if df_method == "between-within":
            subjects_of(model.design)
        start = None if theta0 is None else model.checked_theta(theta0)
        with ways() as ran:
            model, estimate = settled(model, method == "REML", start)
        found = cls(model, estimate, method, df_method)
        found.execution = " and ".join(sorted(ran))
        _check_residual(model, found.estimate)
        _report(found)
        return found

    def refitted(
        self, design: Design, method: str | None = None, df_method: str | None = None
    ) -> Self:
        """The model fitted to another design, by default by the same method and with the same
        rule for df.
        """
        model = self.model.with_design(design)
        return self.of(model, method or self.method, df_method or self.df_method)

    def refit(self, y: Iterable[float]) -> Self:
        """The model fitted to another response, one number per row used.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> fit.refit(sleep["Reaction"] / 1000).fe_params.round(4)
        Intercept    0.2514
        Days         0.0105
        dtype: float64
        """
        return self.of(self.model.with_response(y), self.method, self.df_method)

    def by(self, method: str) -> Self:
        """The model fitted by "ML" or "REML", without repeating the warnings of this fit."""
        if method == self.method:
            return self
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return self.of(self.model, method, "normal")

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Self:
        """Fit again with another formula (as in `Model.update`: `"~ . + x"`), data or arguments.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> fit.update("~ . - (1 + Days | Subject) + (1 + Days || Subject)", method="ML")
        <Fit of Reaction ~ Days + (1 + Days || Subject) by ML, 180 rows>
        """
        method = arguments.pop("method", self.method)
        df_method = arguments.pop("df_method", self.df_method)
        return self.of(self.model.update(formula, data, **arguments), method, df_method)

    def __getstate__(self) -> dict[str, Any]:
        """Without what verbs keep: it is made again where it is asked for."""
        return self.__dict__ | {"_remembered": {}}

    def remembered(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first asked for under this key: verbs keep here what
        costs much.
        """
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    @property
    def design(self) -> Design:
        """The rows used, their matrices and names."""
        return self.model.design

    @property
    def formula(self) -> str:
        """The formula in lme4's spelling, with what `groups=` and `random=` added."""
        return str(self.design.formula)

    @property
    def theta(self) -> np.ndarray:
        """Entries (d,) of the relative factors Lambda: factors as in `ngroups`, lower triangles
        column by column.
        """
        return self.estimate.theta

    @property
    def sigma(self) -> float:
        """Residual standard deviation; with `residual=` or `dispersion=` that of the first visit of
        the first group, where covariates of the dispersion are 0.
        """
        return float(self.estimate.sigma)

    @property
    def scale(self) -> float:
        """Residual variance."""
        return self.sigma**2

    @property
    def deviance(self) -> float:
        """-2 log-likelihood; the REML criterion for a REML fit. Priors do not count."""
        return float(self.estimate.deviance)

    @property
    def llf(self) -> float:
        """Log-likelihood; restricted for a REML fit."""
        return -0.5 * self.deviance

    @property
    def nparams(self) -> int:
        """Number of fixed effects, variance parameters and sigma."""
        return len(self.design.columns) + len(self.theta) + 1

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
        return len(self.design.y)

    @property
    def n_dropped(self) -> int:
        """Rows left out for missing values."""
        return self.design.n_dropped

    @property
    def ngroups(self) -> dict[str, int]:
        """Levels used of every grouping factor, most levels first."""
        return {f.name: len(f.levels) for f in self.design.factors}

    @property
    def dropped_columns(self) -> tuple[str, ...]:
        """Fixed-effects columns left out because they depend linearly on those before them."""
        return self.design.dropped_columns

    @property
    def converged(self) -> bool:
        """Whether what is left to gain is negligible."""
        return bool(self.estimate.converged)

    @property
    def optimum(self) -> Optimum:
        """Certificate of the optimiser."""
        e = self.estimate
        status = STATUS[int(e.status)]
        message = (
            f"{status} after {int(e.steps)} evaluations, predicted decrease "
            f"{float(e.predicted_decrease):.1e}"
        )
        hessian = functools.partial(self.model.engine.hessian, e, self.method == "REML")
        boundary = tuple(
            f"{f.columns[j]}|{f.name}" for f, columns in self.singular_terms for j in columns
        )
        pca = {
            f.name: principal_components(Lam)
            for f, Lam in zip(self.design.factors, self.Lambdas, strict=True)
        }
        decrease, steps = float(e.predicted_decrease), int(e.steps)
        noise = e.noise, e.theta_noise
        return Optimum(
            e.theta,
            e.gradient,
            decrease,
            steps,
            *noise,
            status,
            message,
            boundary,
            pca,
            hessian,
            execution=self.execution,
        )

    def _by_coefficient(self, values: np.ndarray) -> pd.Series:
        return pd.Series(values, index=list(self.design.columns))

    @property
    def fe_params(self) -> pd.Series:
        """Coefficients."""
        return self._by_coefficient(self.estimate.beta)

    has_residual = True
    "Whether there is a residual beside the random effects, with a standard deviation of its own."

    @property
    def beta_covariance(self) -> np.ndarray:
        """Covariance of the coefficients (p, p), before any rule for degrees of freedom adjusts
        it.
        """
        return self.estimate.vcov

    def _by_level(self, arrays: Iterable[np.ndarray]) -> dict[str, pd.Series | pd.DataFrame]:
        """Label arrays (m, k), one per factor."""
        labelled = {}
        for f, values in zip(self.design.factors, arrays, strict=True):
            frame = pd.DataFrame(values, index=f.levels, columns=list(f.columns))
            labelled[f.name] = frame if len(f.columns) > 1 else frame.iloc[:, 0].rename(f.name)
        return labelled

    @functools.cached_property
    def mode_arrays(self) -> list[np.ndarray]:
        """Conditional modes as arrays (m, k), by factor in the order of `ngroups`."""
        found = self.model.engine.modes(self.estimate)
        return [b[: len(f.levels)] for b, f in zip(found, self.design.factors, strict=True)]

    @functools.cached_property
    def _conditional(self) -> list[list[np.ndarray]]:
        found = self.model.engine.mode_covariances(self.estimate)
        sizes = [len(f.levels) for f in self.design.factors]
        return [
            [self.scale * a[:m] for a, m in zip(arrays, sizes, strict=True)] for arrays in found
        ]

    @property
    def mode_covariances(self) -> list[np.ndarray]:
        """Covariances of the random effects given y and beta, arrays (m, k, k), by factor in the
        order of `ngroups`.
        """
        return self._conditional[0]

    @property
    def random_effects(self) -> dict[str, pd.Series | pd.DataFrame]:
        """Conditional modes (BLUPs): by factor a Series over levels, or a frame levels x terms."""
        return self._by_level(self.mode_arrays)

    @property
    def random_effects_se(self) -> dict[str, pd.Series | pd.DataFrame]:
        """Standard deviations of the random effects given y, theta and beta (lme4's condVar)."""
        return self._by_level(np.sqrt(np.einsum("mkk->mk", c)) for c in self.mode_covariances)

    @property
    def random_effects_se_noise(self) -> dict[str, pd.Series | pd.DataFrame]:
        """Standard errors of `random_effects_se` where random probes estimate them (iterative
        core); otherwise 0.
        """
        pairs = zip(*self._conditional, strict=True)
        return self._by_level(
            e / (2.0 * np.sqrt(np.einsum("mkk->mk", c)).clip(1e-150)) for c, e in pairs
        )

    def random_effects_ci(self, level: float = 0.95) -> dict[str, pd.DataFrame]:
        """Normal intervals of the random effects: columns `lower`, `upper`, or (term, "lower")
        and (term, "upper").

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> fit.random_effects_ci()["Subject"].head(2).round(1)
             (Intercept)        Days
                   lower upper lower upper
        S308       -21.4  25.9   4.7  13.7
        S309       -64.1 -16.7 -13.1  -4.1
        """
        check_level(level)
        z = NormalDist().inv_cdf(0.5 + level / 2)
        intervals = {}
        for f, b, covariance in zip(
            self.design.factors, self.mode_arrays, self.mode_covariances, strict=True
        ):
            half = z * np.sqrt(np.einsum("mkk->mk", covariance))
            columns = pd.MultiIndex.from_product([f.columns, ["lower", "upper"]])
            bounds = np.stack([b - half, b + half], axis=-1).reshape(len(b), -1)
            frame = pd.DataFrame(bounds, index=f.levels, columns=columns)
            intervals[f.name] = frame if len(f.columns) > 1 else frame.droplevel(0, axis=1)
        return intervals

    @functools.cached_property
    def Lambdas(self) -> list[np.ndarray]:
        """Relative covariance factors (k, k), lower triangular, by factor in the order of
        `ngroups`.
        """
        return relative_factors(self.design.factors, self.theta)

    @functools.cached_property
    def level_roots(self) -> list[np.ndarray | None]:
        """Roots L (m, m) of the covariances K = L L' across levels, by factor as in `ngroups`;
        None where K = I.
        """
        return level_roots(self.design.factors, self.theta)

    @property
    def covariances(self) -> dict[str, pd.DataFrame]:
        """Covariance matrix of the random effects by factor, terms x terms."""
        pairs = zip(self.design.factors, self.Lambdas, strict=True)
        return {
            f.name: pd.DataFrame(
                self.scale * L @ L.T, index=list(f.columns), columns=list(f.columns)
            )
            for f, L in pairs
        }

    @property
    def variance_components(self) -> dict[str, float | dict[str, float]]:
        """Variances by factor (one number for a lone intercept, else by term), and `"residual"`."""
        components: dict[str, Any] = {}
        for name, S in self.covariances.items():
            variances = dict(zip(S.columns, np.diag(S).tolist(), strict=True))
            components[name] = (
                variances["(Intercept)"] if list(variances) == ["(Intercept)"] else variances
            )
        return components | {"residual": self.scale}

    @property
    def residual_covariance(self) -> Any:
        """Covariance matrix of the residuals of one subject, visits x visits, in squared units of
        the response.

        A dict by group where groups have parameters of their own. Covariates of `dispersion` count
        as 0, weights as 1. Over coordinates (`sp_exp`) it is a function of an array of distances
        instead.
        """
        return residual_matrices(self.design, self.theta, self.sigma)

    @property
    def residual_correlation(self) -> Any:
        """Correlation matrix of the residuals of one subject, in the form of
        `residual_covariance`.
        """
        return residual_matrices(self.design, self.theta, None)

    @property
    def residual_sd(self) -> pd.Series:
        """Standard deviation of the residual of every row used: sigma, by visit, covariates and
        weights.
        """
        return pd.Series(
            self.sigma * relative_sds(self.design, self.theta), index=self.design.index
        )

    @property
    def varcov(self) -> pd.DataFrame:
        """Covariance matrix of the random effects; for several factors block diagonal over
        (factor, term).
        """
        return varcov(self.covariances)

    @functools.cached_property
    def singular_terms(self) -> list[tuple[Factor, list[int]]]:
        """Factors at the boundary with the columns of Lambda that vanish."""
        pairs = zip(self.design.factors, self.estimate.vanishing, strict=True)
        return [(f, np.flatnonzero(flag).tolist()) for f, flag in pairs if flag.any()]

    @property
    def is_singular(self) -> bool:
        """Whether a variance is 0 or a correlation +-1: a diagonal of Lambda times its column's RMS
        is below 1e-4.

        With as many random effects as rows also whether the residual variance is 0, or cannot be
        told from theirs.
        """
        return bool(self.singular_terms or self.residual_doubt)

    @functools.cached_property
    def residual_doubt(self) -> str | None:
        """Why the residual variance means nothing, in words; None where it does."""
        return residual_doubt(self.design, self.model.engine, self.estimate, self.method == "REML")

    @property
    def singularity(self) -> str:
        """What it is about a singular fit, and what to try, in words; empty where the fit is not
        singular.
        """
        if not self.is_singular:
            return ""
        return singular_message(
            self.design, self.singular_terms, self.covariances, self.scale, self.residual_doubt
        )

    @functools.cached_property
    def fittedvalues(self) -> pd.Series:
        """X beta + Z b + offset, on the index of the rows used."""
        return pd.Series(
            fitted_values(self.design, self.estimate.beta, self.mode_arrays),
            index=self.design.index,
        )

    @property
    def resid(self) -> pd.Series:
        """Response minus fitted values."""
        return self.design.y - self.fittedvalues

    @property
    def parameters(self) -> pd.Series:
        """All parameters: coefficients, standard deviations `sd_x|g`, correlations
        `cor_x.(Intercept)|g`, `sigma`.

        With covariance structures also theirs, such as `rho|g`.
        """
        factors = self.design.factors
        components = varcorr_table(factors, self.covariances, self.scale)["sdcor"].to_numpy()
        values = np.concatenate([components, natural_values(factors, self.theta)])
        names = [*component_names(factors), *(name for f in factors for name in natural_names(f))]
        if self.design.residual is not None:
            values = np.append(values, residual_values(self.design, self.theta, self.sigma))
            names += residual_names(self.design.residual)
        return pd.concat([self.fe_params, pd.Series(values, index=names)])

    @functools.cached_property
    def curvature(self) -> Curvature:
        """Covariance of beta and of the variance parameters, from the Hessian of the joint
        deviance.
        """
        return self.model.engine.curvature(self.estimate, self.method == "REML")

    def __repr__(self) -> str:
        return f"<Fit of {self.design.formula} by {self.method}, {self.nobs} rows>"


def check_fit(what: str, value: Any) -> None:
    """Refuse what is no fit."""
    if not isinstance(value, FittedModel):
        raise TypeError(
            f"{what} takes a fit of this package, as interlace_jax.fit makes, not "
            f"{type(value).__name__}"
        )


def subjects_of(design: Design) -> np.ndarray:
    """Subject (n,) of every row, for rules that need to know: those of `residual=`, or the
    levels of the one factor.
    """
    if design.residual is not None and design.residual.residual is not None:
        return design.residual.rows.subject
    if len(design.factors) == 1:
        return design.factors[0].codes
    raise ValueError(
        "'between-within' needs to know the subjects: give residual=, or one grouping factor; or "
        "use 'satterthwaite'"
    )


def check_kenward_roger(design: Design, method: str, instead: str) -> None:
    """Refuse Kenward and Roger's rule where it is not defined; instead: what to write."""
    if design.observed is not None:
        raise ValueError(
            "Kenward-Roger is defined for linear models: generalised ones have z tests"
        )
    if method == "ML":
        raise ValueError(f"Kenward-Roger is defined for REML fits: use method='REML', or {instead}")
    if reason := why_not([f.block for f in design.factors]):
        raise ValueError(f"Kenward-Roger does not apply: {reason}; use {instead}")


def check_kenward_roger_of(model: CompiledModel, method: str, rule: str, instead: str) -> None:
    """Refuse Kenward and Roger's rule, or its linear form, for a model; instead: what to write."""
    check_kenward_roger(model.design, method, instead)
    if rule == "kenward-roger-linear" and model.design.residual is None:
        raise ValueError(
            "'kenward-roger-linear' is for models with residual= or dispersion=: in others the "
            "covariance is linear in its parameters, and 'kenward-roger' is the same"
        )
    model.engine.require("kenward_roger")


def _check_residual(model: CompiledModel, found: Estimate) -> None:
    """Refuse a fit without residual: theta runs off to infinity, and no number of it would mean
    anything.
    """
    design = model.design
    size, scale = weighted_size(design, largest(design.y)), model.engine.products.scale
    by = "the fixed effects" if is_rounding(size, scale) else "the fixed and random effects"
    if is_perfect(size, scale, found.sigma):
        raise ValueError(
            f"{by} fit the response {design.response!r} perfectly, to rounding: there is no "
            "residual variance to estimate. Is the response computed from the predictors, or "
            "constant within the levels of a factor?"
        )


def _report(fit: FittedModel) -> None:
    """Warn of a fit that is singular, or not at its optimum."""
    if not fit.converged:
        warnings.warn(
            f"the fit of {fit.design.formula} did not converge: {fit.optimum.message}",
            ConvergenceWarning,
            stacklevel=5,
        )
    if fit.is_singular:
        warnings.warn(fit.singularity, SingularFitWarning, stacklevel=5)
