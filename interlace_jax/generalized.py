"""The labelled result of a generalised linear mixed model."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from .engines.laplace import GeneralizedEstimate
from .inference.coefficients import Coefficients
from .inference.response_prediction import predict_generalized
from .inference.terms import chi_square_table
from .inference.variances import Uncertainty, components, intervals
from .models import response
from .models.linear_predictor import _of_fit
from .models.parameters import component_names, natural_names, natural_values, varcorr
from .models.separation import Separation, separation
from .models.singularity import singular_message
from .numerics.families.family import Distribution, Ordinal
from .result import Fit
from .summary import GeneralizedSummary
from .support.arguments import check_level, one_of, texts
from .support.warnings import ConvergenceWarning, SeparationWarning, SingularFitWarning

KINDS = ("response", "pearson", "deviance", "working")


def _refused(what: str, why: str):
    """A verb of linear mixed models that means nothing here, or is not there yet."""

    def refuse(self: GeneralizedFit, *_: Any, **__: Any) -> Any:
        raise ValueError(f"{what} of a fit with family={self.family.name!r} is not available: {why}")

    refuse.__doc__ = f"Refused: {why}."
    return refuse


class GeneralizedFit(Fit):
    """A fitted generalised linear mixed model: `fit(..., family=)`.

    Tables are those of `Fit`. Coefficients are on the scale of the link; `theta` is absolute, b ~ N(0, Lambda Lambda'),
    and deviances are -2 log-likelihood by Laplace's approximation. Tests are z tests, and the covariance of the
    coefficients is a block of that of all parameters, `parameter_cov`.
    """

    estimate: GeneralizedEstimate

    @property
    def family(self) -> Distribution:
        """The distribution of the response."""
        return self._design.observed.family

    @property
    def _family_names(self) -> list[str]:
        """Names of all numbers of the family: `size`, or `size:x` where it has a predictor."""
        return [
            p.parameter if p.D is None else f"{p.parameter}:{column}"
            for p in self._design.predictors
            for column in p.columns
        ]

    @property
    def _own(self) -> dict[str, np.ndarray]:
        """Coefficients by parameter of the family, on free scales."""
        names = [p.parameter for p in self._design.predictors]
        return dict(zip(names, response.by_parameter(self._design.predictors, self.estimate.gamma), strict=True))

    @property
    def sigma(self) -> float:
        """What scatters the responses: sigma of a Gaussian, the root of the dispersion of a Gamma or inverse Gaussian,
        the scale of Student's t, the size, alpha or precision of other families; 1 where there is none, NaN where it
        differs by row.
        """
        if isinstance(self.family, Ordinal) or not self._design.predictors:
            return 1.0
        first = self._design.predictors[0]
        if first.parameter == "zero_probability":
            return 1.0
        if first.D is not None:
            return float("nan")
        value = float(np.exp(self._own[first.parameter][0]))
        return float(np.sqrt(value)) if first.parameter == "dispersion" else value

    @property
    def nparams(self) -> int:
        """Number of coefficients, parameters of the random effects and numbers of the family."""
        e = self.estimate
        return len(e.beta) + len(e.theta) + len(e.gamma)

    @functools.cached_property
    def separation(self) -> Separation | None:
        """Coefficients that have no finite estimate, as they separate the outcomes; None where there are none."""
        return separation(self._design, self.estimate)

    @property
    def converged(self) -> bool:
        """Whether what is left to gain is negligible, and all estimates are finite."""
        return self.estimate.converged and self.separation is None

    @property
    def residual_doubt(self) -> None:
        """None: there is no residual variance beside the random effects that could be confounded with them."""
        return None

    # Parameters

    @functools.cached_property
    def _parameter_cov(self) -> np.ndarray:
        J = self.estimate.jacobian
        return J @ self._conditioned_cov @ J.T

    @property
    def _parameter_names(self) -> list[str]:
        theta = [f"theta_{i}" for i in range(len(self.estimate.theta))]
        return [*theta, *self._design.columns, *self._family_names]

    @property
    def parameter_cov(self) -> pd.DataFrame:
        """Covariance of theta, the coefficients and the numbers of the family (on their free scales, as logarithms).

        Entries of columns of Lambda that are estimated as 0 count as known.
        """
        return pd.DataFrame(self._parameter_cov, index=self._parameter_names, columns=self._parameter_names)

    @property
    def _beta_places(self) -> slice:
        d = len(self.estimate.theta)
        return slice(d, d + len(self.estimate.beta))

    def coefficients(self, ddf: str | None = None) -> Coefficients:
        """Coefficients with their covariance: z tests."""
        if (ddf or "normal") != "normal":
            raise ValueError(_NO_DF.format(ddf))
        V = self._parameter_cov[self._beta_places, self._beta_places]
        return Coefficients(self._design.columns, self.estimate.beta, V)

    @property
    def curvature(self) -> None:
        """Refused: it describes Gaussian likelihoods."""
        self.model.core.require_matrix("the curvature of the joint deviance")

    @property
    def uncertainty(self) -> Uncertainty:
        """Estimates, and the covariances of the coefficients and of the parameters of the random effects."""
        e, d = self.estimate, len(self.estimate.theta)
        W = np.zeros((d + 1, d + 1))
        W[:d, :d] = self._conditioned_cov[:d, :d]
        return Uncertainty(self._design, self.model.core.products, e, self.coefficients().vcov, W)

    @functools.cached_property
    def _conditioned_cov(self) -> np.ndarray:
        return self.model.core.conditioned_covariance(self.estimate)

    @property
    def family_params(self) -> pd.DataFrame:
        """Numbers of the family on their natural scale: `estimate se lower upper` (95%).

        Intervals are computed on the free scale: the logarithm of what is positive, the logit of a probability. Those
        with a predictor of their own are in `dispersion_params` and `zero_params`.
        """
        return self._family_table(0.95)

    def _family_table(self, level: float) -> pd.DataFrame:
        places = self._beta_places.stop + np.arange(len(self.estimate.gamma))
        V = self._parameter_cov[np.ix_(places, places)]
        if isinstance(self.family, Ordinal):
            return _thresholds(self.family, self.estimate.gamma, V, level)
        rows, at = {}, 0
        for parameter, used in zip(self.family.parameters, self._design.predictors, strict=True):
            if used.D is None:
                g, se = self.estimate.gamma[at], np.sqrt(V[at, at])
                half = special.ndtri(0.5 + level / 2.0) * se
                back, by = _BACK.get(parameter.domain, _BACK["unit"])
                rows[parameter.name] = (back(g), by(g) * se, back(g - half), back(g + half))
            at += len(used.columns)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "se", "lower", "upper"], dtype=float)

    def _predictor(self, key: str) -> pd.DataFrame:
        """Coefficients of the predictor given by an argument: estimate, SE, z and p."""
        at = self._beta_places.stop
        for used in self._design.predictors:
            places = slice(at, at + len(used.columns))
            at = places.stop
            if used.key == key:
                values = np.concatenate([self.estimate.theta, self.estimate.beta, self.estimate.gamma])[places]
                V = self._parameter_cov[places, places]
                return Coefficients(used.columns, values, V).t_table(np.eye(len(values))).set_axis(used.columns, axis=0)
        return pd.DataFrame(columns=["estimate", "se"], dtype=float)

    @property
    def dispersion_params(self) -> pd.Series:
        """Coefficients of `dispersion=`, of the logarithm of the family's first parameter; empty without it."""
        return self._predictor("dispersion")["estimate"].rename(None)

    @property
    def dispersion_bse(self) -> pd.Series:
        """Standard errors of `dispersion_params`."""
        return self._predictor("dispersion")["se"].rename(None)

    @property
    def zero_params(self) -> pd.Series:
        """Coefficients of `zero_inflation=`, of the logit of the probability of a zero; empty without its predictor."""
        return self._predictor("zero_inflation")["estimate"].rename(None)

    @property
    def zero_bse(self) -> pd.Series:
        """Standard errors of `zero_params`."""
        return self._predictor("zero_inflation")["se"].rename(None)

    @property
    def parameters(self) -> pd.Series:
        """Coefficients, standard deviations `sd_x|g`, correlations `cor_x.(Intercept)|g`, numbers of the family."""
        factors = self._design.factors
        components = varcorr(factors, self.covariances, 1.0)["sdcor"].to_numpy()[:-1]
        names = [*component_names(factors)[:-1], *(name for f in factors for name in natural_names(f))]
        values = np.concatenate([components, natural_values(factors, self.theta)])
        family = [self.family_params["estimate"], self.dispersion_params, self.zero_params]
        labels = [None, "dispersion", "zero_inflation"]
        own = [
            s.rename(index=lambda n, label=label: n if label is None else f"{label}:{n}")
            for s, label in zip(family, labels, strict=True)
        ]
        return pd.concat([self.fe_params, pd.Series(values, index=names), *(s for s in own if len(s))])

    def with_parameters(self, theta: np.ndarray, beta: np.ndarray, gamma: np.ndarray) -> GeneralizedFit:
        """The same fit with other estimates, for what is computed of them alone."""
        changed = replace(self.estimate, theta=theta, beta=beta, gamma=gamma)
        return GeneralizedFit(self.model, changed, self.method, self.df_method)

    # Random effects

    @property
    def covariances(self) -> dict[str, pd.DataFrame]:
        """Covariance matrix of the random effects by factor, terms x terms, on the scale of the link."""
        pairs = zip(self._design.factors, self.Lambdas, strict=True)
        return {f.name: pd.DataFrame(L @ L.T, index=list(f.columns), columns=list(f.columns)) for f, L in pairs}

    @functools.cached_property
    def _conditional(self) -> list[list[np.ndarray]]:
        found = self.model.core.mode_covariances(self.estimate)
        sizes = [len(f.levels) for f in self._design.factors]
        return [[a[:m] for a, m in zip(arrays, sizes, strict=True)] for arrays in found]

    @property
    def variance_components(self) -> dict[str, float | dict[str, float]]:
        """Variances by factor (one number for a lone intercept, else by term); `"residual"` of a Gaussian family."""
        found = super().variance_components
        del found["residual"]
        return found | ({"residual": self.scale} if self.family.name == "gaussian" else {})

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances, covariances, SDs and correlations, with standard errors and intervals, as `Fit.varcorr`."""
        table = super().varcorr
        return table if self.family.name == "gaussian" else table.iloc[:-1]

    # Rows

    @property
    def linear_predictor(self) -> pd.Series:
        """X beta + Z b + offset of the rows used, on the scale of the link."""
        return pd.Series(self.estimate.eta, index=self._design.index)

    def _free(self, rows) -> list[np.ndarray]:
        return response.free_rows(self._design, self.estimate.gamma, rows.D, len(rows.X))

    @functools.cached_property
    def fittedvalues(self) -> pd.Series | pd.DataFrame:
        """Expected responses of the rows used: probabilities where there are trials, of every category of an ordinal
        response (a frame).
        """
        values = response.mean(self.family, self.estimate.eta, self._free(_of_fit(self._design)))
        return self._labelled(values, self._design.index)

    def _labelled(self, values: np.ndarray, index: pd.Index) -> pd.Series | pd.DataFrame:
        if values.ndim == 1:
            return pd.Series(values, index=index)
        return pd.DataFrame(values, index=index, columns=list(self.family.categories))

    @property
    def resid(self) -> pd.Series:
        """Response (the proportion of successes where there are trials) minus fitted values."""
        if isinstance(self.family, Ordinal):
            raise ValueError(
                "categories have no residuals y - mean: use scaled_residuals(), or compare fittedvalues with shares"
            )
        return self._design.y / self._design.observed.m - self.fittedvalues

    def residuals(self, kind: str = "response") -> pd.Series:
        """Residuals of the rows used.

        kind: "response", as `resid`; "pearson", over the SD of a response given its random effects; "deviance", the
        signed root of twice what the row's log-density lacks of its largest; "working", score over information on the
        scale of the link. Of scaled (quantile) residuals see `scaled_residuals`.
        """
        one_of("kind", kind, KINDS)
        if kind == "response":
            return self.resid
        if kind == "working":
            return pd.Series(self.estimate.score / self.estimate.W, index=self._design.index)
        if isinstance(self.family, Ordinal):
            raise ValueError(f"residuals(kind={kind!r}) are not defined for categories: use scaled_residuals()")
        rows = _of_fit(self._design)
        free, n = self._free(rows), len(self._design.y)
        w = np.ones(n) if rows.weights is None else rows.weights
        m = np.ones(n) * self._design.observed.m
        if kind == "pearson":
            variance = response.variance(self.family, self.estimate.eta, free, w * m)
            return self.resid / np.sqrt(variance)
        y = self._design.y
        values = response.deviance_residuals(self.family, y, w, m, self.estimate.eta, free)
        return pd.Series(values, index=self._design.index)

    def predict(
        self,
        newdata: Any = None,
        type: str = "response",
        include_re: bool | Iterable[str] = True,
        marginal: bool = False,
        allow_new_levels: bool = True,
        offset: str | Iterable[float] | None = None,
        interval: str | None = None,
        level: float = 0.95,
    ) -> pd.Series | pd.DataFrame:
        """Expected responses for the rows of a frame (by default those of the fit), or `fit lower upper se`.

        newdata: a frame with the columns of the formula (and of `dispersion=` and `zero_inflation=`).
        type: "response" (R's default is "link"): means, probabilities where there are trials, and of an ordinal
        response a frame of the probabilities of its categories; "link": X beta + Z b + offset.
        include_re: add the random effects of the levels known; False: those of a typical level, where they are 0;
        names of factors: those of these factors only.
        marginal: averages over the random effects, in place of their estimates: what is expected of all levels
        together. With a curved link that is not the mean of a typical level.
        allow_new_levels, offset: as in `Fit.predict`.
        interval: "confidence", without random effects (include_re=False or marginal=True): limits on the scale of the
        link are transformed.
        """
        return predict_generalized(self, newdata, type, include_re, marginal, allow_new_levels, offset, interval, level)

    def simulate(self, nsim: int = 1, seed: Any = None) -> pd.DataFrame:
        """New responses from the fitted model, with new random effects: rows used x nsim, in the form of the response.

        Counts where it was counts, proportions where it was proportions, of an ordinal response numbers of categories
        from 0. seed: as in `Fit.simulate`.
        """
        shown = self._design.observed.shown(self.new_responses(nsim, seed))
        return pd.DataFrame(shown, index=self._design.index)

    def new_responses(self, nsim: int, seed: Any) -> np.ndarray:
        """What `simulate` draws, as an array (n, nsim): successes where there are trials."""
        e = self.estimate
        return response.simulate_family(self._design, e.beta, e.gamma, self.Lambdas, self.level_roots, nsim, seed)

    # Inference

    def anova(self, type: int = 3, ddf: str | None = None) -> pd.DataFrame:
        """Wald chi-square tests of the terms of the fixed part, type II or III: `Chisq Df Pr(>Chisq)`."""
        if type not in (2, 3):
            raise ValueError(f"type must be 2 or 3 for a generalised model, not {type!r}")
        return chi_square_table(self._design, self.model.data, self.coefficients(ddf), type)

    def confint(
        self,
        method: str = "wald",
        level: float = 0.95,
        parm: str | Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Wald intervals `lower upper` of SDs, correlations, coefficients and numbers of the family.

        SDs are on the log scale, correlations on Fisher's z, the family's numbers on their free scales.
        parm: names to select.
        """
        check_level(level)
        if method != "wald":
            raise ValueError(f"confint of a generalised model has method='wald' so far, not {method!r}")
        table = self._wald(level)
        if parm is None:
            return table
        wanted = list(texts("parm", parm, "sd_(Intercept)|g"))
        if unknown := [name for name in wanted if name not in table.index]:
            raise ValueError(f"there is no parameter {unknown[0]!r}; there are {', '.join(map(repr, table.index))}")
        return table.loc[wanted]

    def _wald(self, level: float) -> pd.DataFrame:
        names = list(self._design.columns)
        beta = self.coefficients().t_table(np.eye(len(names)), level=level).set_axis(names, axis=0)
        parts = [components(self.uncertainty, level).iloc[:-1], beta, self._family_table(level)]
        return pd.concat(parts)[["lower", "upper"]]

    def by(self, method: str) -> GeneralizedFit:
        """Itself: generalised models are fitted by maximum likelihood."""
        one_of("method", method, ("ML",))
        return self

    leverage = _refused("leverage()", "leverages belong to linear mixed models")
    influence = _refused("influence()", "leave rows or groups out with update(data=...) and compare")
    jackknife = _refused("jackknife()", "robust standard errors are there for linear mixed models only")
    augment = _refused("augment()", "fittedvalues, residuals() and scaled_residuals() are its columns")
    bootstrap = _refused("bootstrap()", "refit(y) to the columns of simulate() in a loop")
    profile = _refused("profile()", "confint() gives Wald intervals, anova(m1, m2) tests by the likelihood")
    cross_val = _refused("cross_val()", "fit parts of the data and predict() the rest")
    icc = _refused("icc()", "variance_components has the variances on the scale of the link")
    r2 = _refused("r2()", "variance_components has the variances on the scale of the link")
    delta = _refused("delta()", "parameter_cov is the covariance of all parameters")

    def summary(self) -> GeneralizedSummary:
        """The fit as a table; `str()` of it is text, a notebook shows it as HTML."""
        return GeneralizedSummary(self)


def _thresholds(family, gamma, V, level):
    """Thresholds with their standard errors: sums of the first and the exponentials of the others."""
    J = np.zeros((len(gamma), len(gamma)))
    J[:, 0] = 1.0
    for i in range(1, len(gamma)):
        J[i:, i] = np.exp(gamma[i])
    estimate = np.cumsum(np.append(gamma[:1], np.exp(gamma[1:])))
    se = np.sqrt(np.diag(J @ V @ J.T))
    lower, upper = intervals(estimate, se, level)
    names = [p.name for p in family.parameters]
    return pd.DataFrame(dict(estimate=estimate, se=se, lower=lower, upper=upper), index=names)


def _expit_slope(x):
    return special.expit(x) * special.expit(-x)


_BACK = {
    "positive": (np.exp, np.exp),
    "real": (lambda x: x, np.ones_like),
    "unit": (special.expit, _expit_slope),
}
_NO_DF = (
    "ddf={!r} belongs to linear mixed models: Satterthwaite's and Kenward and Roger's degrees of freedom are results "
    "about Gaussian quadratic forms; generalised models have z tests"
)


def report_generalized(fit: GeneralizedFit) -> None:
    """Warn of separation, of a search that did not end at the optimum, and of singular fits."""
    if fit.separation is not None:
        warnings.warn(fit.separation.message, SeparationWarning, stacklevel=4)
    elif not fit.converged:
        text = f"the fit of {fit.model.design.formula} did not converge: {fit.optimum.message}"
        warnings.warn(text, ConvergenceWarning, stacklevel=4)
    if fit.is_singular:
        warnings.warn(singular_message(fit), SingularFitWarning, stacklevel=4)
