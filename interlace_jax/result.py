"""The labelled result of a fit. Everything is computed elsewhere; here it gets its names."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from .design.design import Design
from .design.grouping import Factor
from .diagnostics.augment import augment
from .diagnostics.influence import influence
from .diagnostics.jackknife import Jackknife, jackknife
from .diagnostics.residuals import leverage, residuals, scaled_residuals
from .inference import variances
from .inference.coefficients import Coefficients, coefficients, t_pvalue, t_quantile, wald_test
from .inference.contrasts import Hypothesis
from .inference.intervals import confint, profile
from .inference.prediction import predict
from .inference.terms import f_table
from .inference.variances import Uncertainty, delta, icc, r2, structure
from .models.identifiability import residual_doubt
from .models.linear_predictor import fitted_values
from .models.optimum import Optimum, principal_components
from .models.parameters import (
    component_names,
    level_roots,
    natural_names,
    natural_values,
    relative_factors,
    varcorr,
    varcov,
)
from .models.simulation import simulate
from .models.singularity import singular_message
from .numerics.estimation.bfgs import STATUS
from .numerics.estimation.estimate import Estimate
from .numerics.uncertainty.curvature import Curvature
from .numerics.uncertainty.delta import Parameters
from .resampling.bootstrap import Bootstrap, bootstrap
from .resampling.cross_validation import CrossValidation, cross_validate
from .summary import Summary
from .support.arguments import check_level
from .support.warnings import ConvergenceWarning, SingularFitWarning

if TYPE_CHECKING:
    from .fitting import Model


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
        """-2 log-likelihood; the REML criterion for a REML fit. Priors do not count."""
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
        return bool(self.estimate.converged)

    @property
    def optimum(self) -> Optimum:
        """Certificate of the optimiser."""
        e = self.estimate
        status = STATUS[int(e.status)]
        message = f"{status} after {int(e.steps)} evaluations, predicted decrease {float(e.predicted_decrease):.1e}"
        hessian = functools.partial(self.model.core.hessian, e, self.method == "REML")
        boundary = tuple(f"{f.columns[j]}|{f.name}" for f, columns in self.singular_terms for j in columns)
        pca = {f.name: principal_components(Lam) for f, Lam in zip(self._design.factors, self.Lambdas, strict=True)}
        decrease, steps = float(e.predicted_decrease), int(e.steps)
        noise = e.noise, e.theta_noise
        return Optimum(e.theta, e.gradient, decrease, steps, *noise, status, message, boundary, pca, hessian)

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
        return pd.DataFrame(self.coefficients().vcov, index=names, columns=names)

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
        return self._by_coefficient(self.coefficients().df(np.eye(len(self._design.columns))))

    @property
    def fe_pvalues(self) -> pd.Series:
        """Two-sided p-values of the coefficients."""
        return self._by_coefficient(t_pvalue(self.fe_tvalues, self.fe_df))

    @property
    def fe_conf_int(self) -> pd.DataFrame:
        """95% intervals of the coefficients: columns `lower` and `upper`."""
        half = t_quantile(0.975, self.fe_df) * self.fe_bse
        return pd.DataFrame({"lower": self.fe_params - half, "upper": self.fe_params + half})

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
        found = self.model.core.modes(self.estimate)
        return [b[: len(f.levels)] for b, f in zip(found, self._design.factors, strict=True)]

    @functools.cached_property
    def _conditional(self) -> list[list[np.ndarray]]:
        found = self.model.core.mode_covariances(self.estimate)
        sizes = [len(f.levels) for f in self._design.factors]
        return [[self.scale * a[:m] for a, m in zip(arrays, sizes, strict=True)] for arrays in found]

    @property
    def mode_covariances(self) -> list[np.ndarray]:
        """Covariances of the random effects given y and beta, arrays (m, k, k), by factor in the order of `ngroups`."""
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
        """Standard errors of `random_effects_se` where random probes estimate them (iterative core); otherwise 0."""
        pairs = zip(*self._conditional, strict=True)
        return self._by_level(e / (2.0 * np.sqrt(np.einsum("mkk->mk", c)).clip(1e-150)) for c, e in pairs)

    def random_effects_ci(self, level: float = 0.95) -> dict[str, pd.DataFrame]:
        """Normal intervals of the random effects: columns `lower`, `upper`, or (term, "lower") and (term, "upper")."""
        check_level(level)
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
        return relative_factors(self._design.factors, self.theta)

    @functools.cached_property
    def level_roots(self) -> list[np.ndarray | None]:
        """Roots L (m, m) of the covariances K = L L' across levels, by factor as in `ngroups`; None where K = I."""
        return level_roots(self._design.factors, self.theta)

    @property
    def structure(self) -> pd.DataFrame:
        """Parameters of the covariance structures, `rho|g` or `length|g`: `estimate se lower upper`.

        The 95% Wald interval is computed on the scale on which the parameter is free, log or that of Fisher's z.
        """
        return structure(self.uncertainty)

    @property
    def covariances(self) -> dict[str, pd.DataFrame]:
        """Covariance matrix of the random effects by factor, terms x terms."""
        pairs = zip(self._design.factors, self.Lambdas, strict=True)
        return {
            f.name: pd.DataFrame(self.scale * L @ L.T, index=list(f.columns), columns=list(f.columns)) for f, L in pairs
        }

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
        return varcov(self.covariances)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances, covariances, SDs and correlations: `grp var1 var2 vcov sdcor`, as lme4's VarCorr data frame.

        Then their standard errors `vcov_se sdcor_se` and the 95% Wald interval `lower upper` of `sdcor`, computed on
        the log scale for SDs and on Fisher's z for correlations; NaN for what is at the boundary.
        """
        found = variances.components(self.uncertainty).rename(columns={"se": "sdcor_se"})
        table = varcorr(self._design.factors, self.covariances, self.scale)
        return table.assign(**{name: found[name].to_numpy() for name in ("vcov_se", "sdcor_se", "lower", "upper")})

    @functools.cached_property
    def singular_terms(self) -> list[tuple[Factor, list[int]]]:
        """Factors at the boundary with the columns of Lambda that vanish."""
        pairs = zip(self._design.factors, self.estimate.vanishing, strict=True)
        return [(f, np.flatnonzero(flag).tolist()) for f, flag in pairs if flag.any()]

    @property
    def is_singular(self) -> bool:
        """Whether a variance is 0 or a correlation +-1: a diagonal of Lambda times its column's RMS is below 1e-4.

        With as many random effects as rows also whether the residual variance is 0, or cannot be told from theirs.
        """
        return bool(self.singular_terms or self.residual_doubt)

    @functools.cached_property
    def residual_doubt(self) -> str | None:
        """Why the residual variance means nothing, in words; None where it does."""
        return residual_doubt(self._design, self.model.core, self.estimate, self.method == "REML")

    # Rows

    @functools.cached_property
    def fittedvalues(self) -> pd.Series:
        """X beta + Z b + offset, on the index of the rows used."""
        return pd.Series(fitted_values(self._design, self.estimate.beta, self.mode_arrays), index=self._design.index)

    @property
    def resid(self) -> pd.Series:
        """Response minus fitted values."""
        return self._design.y - self.fittedvalues

    def scaled_residuals(self, nsim: int = 250, seed: Any = None) -> pd.Series:
        """Share of responses simulated from the model, with new random effects, that lie below the observed one.

        Uniform between 0 and 1 under the model, whatever the row's group, weight and predictors (Dunn & Smyth 1996;
        Hartig's DHARMa); rows of one group are alike. Ties are broken at random. nsim: how many responses; seed: as in
        `simulate`.
        """
        return scaled_residuals(self, nsim, seed)

    def predict(
        self,
        newdata: Any = None,
        include_re: bool | Iterable[str] = True,
        allow_new_levels: bool = True,
        offset: str | Iterable[float] | None = None,
        interval: str | None = None,
        level: float = 0.95,
        theta_uncertainty: bool = False,
    ) -> pd.Series | pd.DataFrame:
        """Expected response for the rows of a frame (by default those of the fit), or `fit lower upper se`.

        newdata: a frame with the columns of the formula; transforms and categories are those of the fit. A row with
        missing values gives NaN.
        include_re: add the random effects of the levels known; False gives population values; names of factors add
        those of these factors only.
        allow_new_levels: a level the fit has not seen has random effect 0; False refuses it.
        offset: needed again when the fit's was an array; an offset column is read from newdata.
        interval: "confidence", for the expected response in the row: from the joint distribution of beta^ - beta and
        b^ - b given theta (Henderson 1975), a new level counting with its full variance z'Sigma z and factors left out
        of include_re not at all. "prediction", for a new response in the row: factors left out of include_re count as
        new levels, and the residual adds sigma^2, over the weights for the rows of the fit (new rows have weight 1).
        theta_uncertainty: add by the delta method what the predictions owe to the estimation of theta.

        Quantiles are Student's t with Satterthwaite's df of the variance in question, or normal if `df_method` is
        "normal". Confidence intervals of population values are those of linear combinations of coefficients: they
        follow `df_method`, Kenward-Roger included.
        """
        return predict(self, newdata, include_re, allow_new_levels, offset, interval, level, theta_uncertainty)

    def residuals(self, kind: str = "conditional") -> pd.Series:
        """Residuals of the rows used.

        kind:

        - "conditional": y - fitted, the same as `resid`.
        - "marginal": y - X beta - offset.
        - "pearson": sqrt(w) (y - fitted), in the unit of the response; lme4's `residuals(type = "pearson")`.
        - "standardized": conditional residuals over their own SD, sigma sqrt((1 - h) / w), with the overall leverage h:
          what is estimated is allowed for, theta is not.
        - "normalized": L^-1 (y - X beta - offset) / sigma, L L' = V the Cholesky factors of the covariance matrix over
          sigma^2: under the model independent standard normal but for the estimation of the parameters. A row's
          value is the error of predicting it from the rows before it, in SDs. Rows that share no random effect are
          taken apart; at most 5000 may be connected (a ValueError otherwise).
        """
        return residuals(self, kind)

    def leverage(self) -> pd.DataFrame:
        """Leverages `fixed random overall` of the rows used: d fitted / d y of each row itself.

        Diagonals of H1 = X (X'V^-1 X)^-1 X'V^-1, H2 = Z D Z'V^-1 (I - H1) and H1 + H2, theta held (Demidenko & Stukel
        2005, Stat. Med. 24); lme4's `hatvalues` are `overall`, HLMdiag's columns `fixef ranef overall`. The sum of
        `overall` is an effective number of parameters.
        """
        return leverage(self)

    def influence(self, level: str | None = None, method: str = "exact") -> pd.DataFrame:
        """What deleting each row, or each level of a grouping factor, does to the fit.

        level: None for the rows used, or the name of a factor.
        method: "exact" refits without the rows, all deletions as one batch.
        "onestep" has no refits: exact deletion for theta and sigma held, and one Newton step of these (for levels, to
        first order in how much of the group is deleted); levels must not share random effects with each other. Good
        where single deletions move theta little.

        Columns, with (i) for a fit without the rows and p coefficients (as HLMdiag's):

        - `cooksd`: (beta - beta(i))' Cov(beta)^-1 (beta - beta(i)) / p;
        - `mdffits`: the same with Cov(beta(i));
        - `covtrace`: |tr(Cov(beta)^-1 Cov(beta(i))) - p|; `covratio`: det Cov(beta(i)) / det Cov(beta);
        - `dfbetas.x`: (beta_x - beta_x(i)) / SE(beta_x(i)), as Belsley, Kuh & Welsch (1980); lme4 has the other sign;
        - `rvc.var_x|g`, `rvc.cov_y.x|g`, `rvc.sigma2`: relative change of (co)variances, component(i) / component - 1;
        - `singular`: whether that fit is (exact only); `status`: how it ended, or why there is none.

        Where the rows left do not determine the model (too few levels, a coefficient lost) numbers are NaN;
        `attrs["failed"]` counts them. A fit by the iterative core has no leverages and deletions.
        """
        return influence(self, level, method)

    def jackknife(self, by: str | None = None) -> Jackknife:
        """Infinitesimal jackknife over independent groups: robust ("sandwich") standard errors of all parameters.

        `effects` are the exact derivatives of coefficients, `sd_x|g`, `cor_x.y|g` and `sigma` by the weight with which
        the log-likelihood of a group counts; `cov` and `bse` follow from them. For theta held, the part of
        the coefficients is the cluster-robust covariance CR0 (Liang & Zeger 1986). Valid for many independent groups,
        whatever the covariance within them (forty is a common rule); with few, too small.

        by: a factor whose levels share no random effect, by default the outermost one; there is none if factors are
        crossed.

        Array programs have derivatives by the weights of rows (precisions; not of groups) from JAX itself:
        `jax.jacobian(lambda w: estimate(moments(y, X, groups, w)).beta)(w)`.
        """
        return jackknife(self, by)

    def augment(self, influence: str | None = "onestep") -> pd.DataFrame:
        """The rows used as pandas, with columns `.fitted`, `.population` (without random effects), `.resid_conditional`
        and the other kinds, `.leverage_fixed` ..., and the measures of `influence`.

        influence: its method, "exact" or "onestep", or None. Normalized residuals are left out above 5000 rows. A fit
        by the iterative core has no leverages, hence no standardized residuals either, and takes influence=None only.
        """
        return augment(self, influence)

    def refit(self, y: Iterable[float]) -> Fit:
        """The same model of another response, one number per row used."""
        return self.model.with_response(y).fit(self.method, df_method=self.df_method)

    def simulate(self, nsim: int = 1, seed: Any = None) -> pd.DataFrame:
        """New responses from the fitted model: rows used x nsim, with new random effects and residuals.

        seed: anything `numpy.random.default_rng` takes; the same seed gives the same draws.
        """
        Y = simulate(self._design, self.estimate.beta, self.Lambdas, self.level_roots, self.sigma, nsim, seed)
        return pd.DataFrame(Y, index=self._design.index)

    def bootstrap(
        self, n: int = 1000, seed: Any = None, kind: str = "parametric", progress: bool | None = None
    ) -> Bootstrap:
        """The model refitted to n sets of new data, as one batch.

        kind: "parametric", responses simulated from this fit; or "cases", whole groups drawn with replacement, for one
        grouping factor or nested ones (crossed groups are not independent of each other).
        """
        return bootstrap(self, n, seed, kind, progress)

    def cross_val(
        self,
        cv: Any = "logo",
        k: int = 5,
        by: str | None = None,
        scoring: Any = None,
        seed: Any = 0,
        progress: bool | None = None,
    ) -> CrossValidation:
        """Predict each part of the data from this model fitted to the rest. Arguments as in `interlace.cross_val`."""
        self.model.core.require_matrix("cross-validation")
        return cross_validate(self._design, self.model.data, self.method, cv, k, by, scoring, seed, progress)

    @property
    def parameters(self) -> pd.Series:
        """All parameters: coefficients, standard deviations `sd_x|g`, correlations `cor_x.(Intercept)|g`, `sigma`.

        With covariance structures also theirs, such as `rho|g`.
        """
        factors = self._design.factors
        components = varcorr(factors, self.covariances, self.scale)["sdcor"].to_numpy()
        values = np.concatenate([components, natural_values(factors, self.theta)])
        names = [*component_names(factors), *(name for f in factors for name in natural_names(f))]
        return pd.concat([self.fe_params, pd.Series(values, index=names)])

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Fit:
        """Fit again with another formula (as in `Model.update`: `"~ . + x"`), data or arguments."""
        method = arguments.pop("method", self.method)
        df_method = arguments.pop("df_method", self.df_method)
        return self.model.update(formula, data, **arguments).fit(method, df_method=df_method)

    # Inference

    @functools.cached_property
    def curvature(self) -> Curvature:
        """Covariance of beta and of the variance parameters, from the Hessian of the joint deviance."""
        return self.model.core.curvature(self.estimate, self.method == "REML")

    @functools.cached_property
    def _by_rule(self) -> dict[str, Coefficients]:
        return {}

    def coefficients(self, ddf: str | None = None) -> Coefficients:
        """Fixed effects as arrays with a rule for degrees of freedom, by default `df_method`."""
        rule = ddf or self.df_method
        if rule not in self._by_rule:
            arguments = self._design.columns, self.estimate, self.model.core, self.method == "REML", rule
            self._by_rule[rule] = coefficients(*arguments, lambda: self.curvature)
        return self._by_rule[rule]

    @property
    def uncertainty(self) -> Uncertainty:
        """What functions of all parameters need: estimates and their covariance."""
        arguments = self._design, self.model.core.products, self.estimate
        return Uncertainty(*arguments, self.coefficients().vcov, self.curvature.W)

    def delta(
        self, fn: Callable[[Parameters], Any], level: float = 0.95, scale: str = "identity"
    ) -> pd.Series | pd.DataFrame:
        """Estimate, SE and Wald interval of any function of the parameters, by the delta method with JAX's derivatives.

        fn: takes `p` with `p.beta` (p,), `p.theta` (d,), `p.sigma`, `p["x"]` (a coefficient) and `p.covariance("g")`
        (k, k), and returns a number (the result is a Series) or a vector (a DataFrame); write it with `jax.numpy`.
        scale: where the interval is computed: "identity", "log", "logit" or "fisher". A variance estimated at 0 counts
        as known to be 0: the likelihood has no quadratic there.

        >>> fit.delta(lambda p: p["Days"] / p.sigma)
        """
        return delta(self.uncertainty, fn, level, scale)

    def icc(self, level: float = 0.95) -> pd.DataFrame:
        """Intraclass correlation, `adjusted` for the fixed effects and `unadjusted`, with intervals (logit scale).

        Share of the random effects' mean variance (over the rows, so that slopes count; Johnson 2014, Methods Ecol.
        Evol. 5) in the variance without and with that of the fixed part (Nakagawa et al. 2017).
        """
        return icc(self.uncertainty, level)

    def r2(self, level: float = 0.95) -> pd.DataFrame:
        """Nakagawa & Schielzeth's R squared, `marginal` and `conditional`, with intervals (logit scale).

        Shares of the fixed part, and of fixed and random parts, in the total variance; random slopes as Johnson (2014).
        """
        return r2(self.uncertainty, level)

    def test(self, hypothesis: Hypothesis, joint: bool = True, ddf: str | None = None) -> pd.DataFrame:
        """Test linear hypotheses about the coefficients.

        hypothesis: text such as "condition = 0", "a = b" or "2 * a - b = 1", several joined by commas or in a list; a
        mapping name -> weight; or weights (p,) or (r, p). One row gives its t test with an interval; several the joint
        F test, or with joint=False a t test each. ddf: "satterthwaite", "kenward-roger" or "normal".
        """
        return wald_test(self.coefficients(ddf), hypothesis, joint)

    def anova(self, type: int = 3, ddf: str | None = None) -> pd.DataFrame:
        """F tests of the terms of the fixed part: `Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F)`, as lmerTest's.

        type: 1, terms in their order; 2, each after all that do not contain it; 3, each after all others, with cells
        counting alike whatever the coding of the factors. Use `interlace_jax.anova` to compare fits.
        """
        return f_table(self._design, self.model.data, self.coefficients(ddf), self.sigma, type)

    def confint(
        self,
        method: str = "wald",
        level: float = 0.95,
        parm: str | Iterable[str] | None = None,
        criterion: str = "ML",
        nsim: int = 1000,
        seed: Any = None,
    ) -> pd.DataFrame:
        """Intervals `lower upper` of SDs (`sd_x|g`), correlations (`cor_x.(Intercept)|g`), `sigma` and coefficients.

        method: "wald" (t quantiles with `fe_df`; SDs on the log scale, correlations on Fisher's z), "profile" (where
        the deviance, everything else re-optimised, has risen by the chi-square quantile) or "boot" (percentiles of a
        parametric bootstrap; `bootstrap` has other kinds).
        parm: names to select; "theta_" stands for all variance parameters, "beta_" for all coefficients.
        criterion: of the profiles of variance parameters, "ML" (as lme4, also for a REML fit) or "REML"; those of
        coefficients are ML. `attrs["criterion"]` of the table says which, and `attrs["at_boundary"]` lists the limits
        (name, side) that are 0, -1 or 1 because the profile does not rise enough before that.
        nsim, seed: of the bootstrap.
        """
        return confint(self, method, level, parm, criterion, nsim, seed)

    def profile(
        self, parm: str | Iterable[str] | None = None, criterion: str = "ML", zmax: float = 3.0, points: int = 6
    ) -> pd.DataFrame:
        """Profiles as a frame `parameter value zeta`: zeta is the signed root of the rise of the deviance.

        A straight line of zeta over value means that Wald intervals are right. zmax: the largest |zeta|; points: so
        many on each side of the estimate. parm, criterion: as in `confint`.
        """
        return profile(self, parm, criterion, zmax, points)

    def by(self, method: str) -> Fit:
        """The same model fitted by "ML" or "REML", without repeating the warnings of this fit."""
        if method == self.method:
            return self
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return self.model.fit(method, df_method="normal")

    # For the eye

    def summary(self) -> Summary:
        """The fit as a table; `str()` of it is text, a notebook shows it as HTML."""
        return Summary(self)

    def __repr__(self) -> str:
        return f"<Fit of {self._design.formula} by {self.method}, {self.nobs} rows>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def report(fit: Fit) -> None:
    """Warn of a fit that is singular, or not at its optimum."""
    if not fit.converged:
        warnings.warn(
            f"the fit of {fit.model.design.formula} did not converge: {fit.optimum.message}",
            ConvergenceWarning,
            stacklevel=4,
        )
    if fit.is_singular:
        warnings.warn(singular_message(fit), SingularFitWarning, stacklevel=4)
