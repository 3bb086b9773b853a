"""Generalised mixed models: what a compiled and a fitted one know beyond, or otherwise than,
linear ones. State.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from ..design.auxiliary import check_dispersion, with_zero_inflation
from ..design.design import Design, build
from ..design.files import is_scanned
from ..design.formula import parse, with_auxiliary
from ..design.frames import snapshot
from ..engines.laplace import GeneralizedEstimate, curvature_of
from ..numerics.covariance.parameters import has_prior
from ..numerics.families.family import Distribution, Ordinal, family_of
from ..numerics.uncertainty.curvature import Curvature
from ..runtime.programs.tiers import ways
from ..support.arguments import one_of
from ..support.later import is_jax_array, is_traced
from ..support.warnings import ConvergenceWarning, SeparationWarning, SingularFitWarning
from . import response
from .compiled import CORES, CompiledModel, held
from .fitted import DF_METHODS, METHODS, FittedModel
from .linear_predictor import Rows, _of_fit
from .optimum import GeneralizedOptimum
from .parameters import component_names, natural_names, natural_values, varcorr_table
from .separation import Separation, separation
from .singularity import singular_message

# deviance units that may be left to gain where a number of the family runs off to infinity
SETTLED = 1e-3
MOST_NODES = 25
MOST_EFFECTS = 3  # a level, for quadrature


class CompiledGeneralizedModel(CompiledModel):
    """A generalised mixed model, before it is fitted."""

    def __init__(self, design: Design, data: Any, arguments: dict[str, Any], core: str = "auto"):
        self.design, self.data, self.arguments, self.core_choice = design, data, arguments, core

    @classmethod
    def of(
        cls,
        formula: str,
        data: Any,
        groups: str | Iterable[str] | None = None,
        random: str | Iterable[str] | None = None,
        core: str = "auto",
        **arguments: Any,
    ) -> Self:
        """The model of a formula and data; arguments: all of `fit` that say what the model is."""
        one_of("core", core, CORES)
        arguments = held(arguments)
        family, trials, dispersion, zero_inflation, nagq = (
            arguments[name] for name in ("family", "trials", "dispersion", "zero_inflation", "nagq")
        )
        family = with_zero_inflation(family_of(family), zero_inflation)
        check_dispersion(family, dispersion)
        if is_scanned(data):
            kind = type(data).__name__
            raise TypeError(
                f"with family={family.name!r} the data must be a data frame, not {kind}: read it "
                "first"
            )
        data = snapshot(data)
        if core in ("sparse", "iterative"):
            raise ValueError(
                f"core={core!r} is for linear mixed models, not for family={family.name!r}"
            )
        written = dict(contrasts=arguments.get("contrasts"), proportion=family.has_trials)
        parsed = parse(formula, groups, random, **written)
        parsed = with_auxiliary(parsed, dispersion=dispersion, zero_inflation=zero_inflation)
        rows = {name: arguments[name] for name in ("weights", "offset", "na_action", "cov")}
        design = build(parsed, data, **rows, family=family, trials=trials)
        if has_prior([f.block for f in design.factors]):
            raise ValueError(
                f"priors in cov= are for linear mixed models so far, not for family={family.name!r}"
            )
        return cls(with_nodes(design, nagq), data, arguments, core)

    @property
    def family(self) -> Distribution:
        """The distribution of the response."""
        return self.design.observed.family

    @property
    def beta0(self) -> np.ndarray:
        """Coefficients (p,) where the search starts: those of the model without random effects."""
        return self.engine.joint_start().c

    @property
    def phi0(self) -> np.ndarray:
        """The family's numbers (r,) where the search starts, on their free scales."""
        return self.engine.joint_start().g

    def deviance(self, theta, beta, phi=(), *, offset=None):
        """-2 log-likelihood by Laplace's approximation.

        theta (d,): absolute, lme4's order. beta (p,). phi (r,): numbers of the family on their free
        scales (logarithms of what is positive, the first threshold and logarithms of the gaps after
        it, coefficients of predictors); nothing where the family has none. The mode of the random
        effects is searched inside; derivatives of every order are those of the implicit function.
        offset (n,): in place of the model's, one number for each row used; with derivatives too, so
        that it may be what a network puts out.
        """
        wanted = {"theta": len(self.theta0), "beta": len(self.beta0), "phi": len(self.phi0)}
        given = [_vector(a) for a in (theta, beta, phi)]
        for (name, size), values in zip(wanted.items(), given, strict=True):
            if values.shape != (size,):
                raise ValueError(
                    f"{name} of this model is {size} numbers, not an array of shape {values.shape}"
                )
        if offset is not None:
            offset = self._row_vector("offset", offset)
        return self.engine.joint_deviance(*given, offset)

    def loglik(self, theta, beta, phi=(), *, offset=None):
        """Log-likelihood: minus half of `deviance`."""
        return -0.5 * self.deviance(theta, beta, phi, offset=offset)

    def estimate(self, reml: bool = False) -> GeneralizedEstimate:
        """The fitted model as arrays, without names, tables or warnings."""
        return self.engine.estimate(False, None)

    def with_response(self, y, *, weights=None, offset=None) -> Self:
        """The same model of another response y (n,) in the form of the first, and of other
        weights or offset (n,).
        """
        given = {"y": y, "weights": weights, "offset": offset}
        given = {
            name: self._row_vector(name, values)
            for name, values in given.items()
            if values is not None
        }
        if any(is_traced(values) for values in given.values()):
            self.engine.require("traced_rows")
        if "y" in given:
            given["y"] = self.design.observed.read(given["y"], self.design.response)
        return self.with_design(replace(self.design, **given))


def with_nodes(design: Design, nagq: int) -> Design:
    """The design with so many nodes of quadrature (0: Laplace, coefficients beside the random
    effects), refused where the model does not go with them.
    """
    _check_nodes(nagq, design)
    return replace(design, observed=replace(design.observed, nodes=int(nagq)))


def _check_nodes(nagq: int, design: Design) -> None:
    """Refuse quadrature where the integral has too many dimensions, and nagq=0 where numbers of the
    family would have to be estimated too.
    """
    is_whole = isinstance(nagq, int | np.integer) and not isinstance(nagq, bool)
    if not is_whole or not 0 <= nagq <= MOST_NODES:
        raise ValueError(
            "nagq must be a whole number: 0 (coefficients beside the random effects), 1 (Laplace), "
            f"or up to {MOST_NODES} nodes of quadrature, not {nagq!r}"
        )
    family = design.observed.family
    if nagq == 0 and family.parameters:
        raise ValueError(
            f"nagq=0 estimates coefficients beside the random effects, and family {family.name!r} "
            f"has {family.parameters[0].name!r} besides: it is for binomial and Poisson families; "
            "use nagq=1"
        )
    if nagq <= 1:
        return
    if len(design.factors) > 1:
        names = " and ".join(repr(f.name) for f in design.factors[:2])
        raise ValueError(
            f"quadrature needs one grouping factor, and there are {names}: use nagq=1 (Laplace)"
        )
    f = design.factors[0]
    if len(f.columns) > MOST_EFFECTS or f.across is not None:
        why = "its levels covary" if f.across is not None else f"{f.name!r} has {len(f.columns)}"
        raise ValueError(
            f"quadrature needs at most {MOST_EFFECTS} independent effects a level, and {why}: use "
            "nagq=1"
        )


def _vector(values):
    """Numbers as an array of floats, a JAX array as it is."""
    return values if is_jax_array(values) else np.atleast_1d(np.asarray(values, float))


class FittedGeneralizedModel(FittedModel):
    """A fitted generalised mixed model: theta is absolute, coefficients are on the scale of the
    link.
    """

    estimate: GeneralizedEstimate
    has_residual = False

    @classmethod
    def of(
        cls,
        model: CompiledGeneralizedModel,
        method: str | None = None,
        df_method: str | None = None,
        theta0: Iterable[float] | None = None,
    ) -> Self:
        """Estimate a compiled model by maximum likelihood; warns of separation, singular and
        unfinished fits.
        """
        if (method or "ML") != "ML":
            one_of("method", method, METHODS)
            raise ValueError(
                "REML integrates the fixed effects out of a Gaussian likelihood; with "
                f"family={model.family.name!r} there is no such integral: leave method= out, or "
                "say method='ML'"
            )
        if (df_method or "normal") != "normal":
            one_of("df_method", df_method, DF_METHODS)
            raise ValueError(
                f"df_method={df_method!r} belongs to linear mixed models: these degrees of "
                "freedom are results about Gaussian quadratic forms; with "
                f"family={model.family.name!r} leave it out, or say 'normal' (z tests)"
            )
        start = None if theta0 is None else model.checked_theta(theta0)
        with ways() as ran:
            found = cls(model, model.engine.estimate(False, start), "ML", "normal")
        found.execution = " and ".join(sorted(ran))
        _report(found)
        return found

    def by(self, method: str) -> Self:
        """Itself: generalised models are fitted by maximum likelihood."""
        one_of("method", method, ("ML",))
        return self

    def with_parameters(self, theta: np.ndarray, beta: np.ndarray, gamma: np.ndarray) -> Self:
        """The same fit with other estimates, for what is computed of them alone."""
        changed = replace(self.estimate, theta=theta, beta=beta, gamma=gamma)
        return type(self)(self.model, changed, self.method, self.df_method)

    @property
    def family(self) -> Distribution:
        """The distribution of the response."""
        return self.model.family

    @property
    def nagq(self) -> int:
        """Nodes of quadrature, in every dimension; 1: Laplace's approximation; 0: the same with
        coefficients estimated beside the random effects.
        """
        return self.design.observed.nodes

    @property
    def integral(self) -> str:
        """How the likelihood is integrated over the random effects, in words."""
        beside = (
            "Laplace's approximation, coefficients estimated beside the random effects (nagq=0)"
        )
        known = {0: beside, 1: "Laplace's approximation"}
        return known.get(self.nagq, f"quadrature with {self.nagq} nodes")

    @property
    def sigma(self) -> float:
        """What scatters the responses: sigma of a Gaussian, the root of the dispersion of a gamma
        or inverse Gaussian, the scale of Student's t, the size, alpha or precision of other
        families; 1 where there is none, NaN where it differs by row.
        """
        if isinstance(self.family, Ordinal) or not self.design.predictors:
            return 1.0
        first = self.design.predictors[0]
        if first.parameter == "zero_probability":
            return 1.0
        if first.D is not None:
            return float("nan")
        value = float(np.exp(self.estimate.gamma[0]))
        return float(np.sqrt(value)) if first.parameter == "dispersion" else value

    @property
    def nparams(self) -> int:
        """Number of coefficients, parameters of the random effects and numbers of the family."""
        e = self.estimate
        return len(e.beta) + len(e.theta) + len(e.gamma)

    @functools.cached_property
    def separation(self) -> Separation | None:
        """Coefficients that have no finite estimate, as they separate the outcomes; None where
        there are none.
        """
        return separation(self.design, self.estimate)

    @property
    def converged(self) -> bool:
        """Whether what is left to gain is negligible, and all coefficients are finite."""
        ended = self.estimate.converged or (
            bool(self.runaway) and self.estimate.predicted_decrease < SETTLED
        )
        return ended and self.separation is None

    @functools.cached_property
    def runaway(self) -> dict[str, str]:
        """Numbers of the family that run off to infinity, where it is another family, with what
        that says.
        """
        if not len(self.estimate.gamma) or not np.isfinite(self.estimate.deviance):
            return {}
        known = np.diag(self.conditioned_covariance)[-len(self.estimate.gamma) :] == 0.0
        names = [name for name, is_known in zip(self.family_names, known, strict=True) if is_known]
        return {name: _LIMITS.get(name, "it is not determined by the data") for name in names}

    @property
    def optimum(self) -> GeneralizedOptimum:
        """Certificate of the optimiser and of the modes of the random effects."""
        usual, e = super().optimum, self.estimate
        return GeneralizedOptimum(
            **{field.name: getattr(usual, field.name) for field in fields(usual)},
            mode_decrement=e.mode_decrement,
            mode_residual=e.mode_residual,
            trips=e.trips,
            negative_information=int((e.W < 0.0).sum()),
        )

    @property
    def residual_doubt(self) -> None:
        """None: there is no residual variance beside the random effects that could be confounded
        with them.
        """
        return None

    @property
    def singularity(self) -> str:
        """What it is about a singular fit, and what to try, in words; empty where the fit is not
        singular.
        """
        if not self.is_singular:
            return ""
        return singular_message(self.design, self.singular_terms, self.covariances, 1.0, None)

    # All parameters

    @functools.cached_property
    def conditioned_covariance(self) -> np.ndarray:
        """Covariance of all parameters in conditioned coordinates (t, c, g)."""
        return self.model.engine.conditioned_covariance(self.estimate)

    @functools.cached_property
    def joint_covariance(self) -> np.ndarray:
        """Covariance of (theta, beta, gamma); zero columns of Lambda count as known."""
        J = self.estimate.jacobian
        return J @ self.conditioned_covariance @ J.T

    @property
    def curvature(self) -> Curvature:
        """Covariances of the coefficients, and of the parameters of the random effects beside a
        sigma that is known.
        """
        return curvature_of(self.conditioned_covariance, self.estimate)

    @property
    def beta_covariance(self) -> np.ndarray:
        """Covariance of the coefficients (p, p), a block of that of all parameters."""
        return self.curvature.vcov

    @property
    def family_names(self) -> list[str]:
        """Names of all numbers of the family, as `size`; with a predictor one for each column,
        after a colon.
        """
        return response.family_names(self.design)

    # Random effects, on the scale of the link

    @property
    def covariances(self) -> dict[str, pd.DataFrame]:
        """Covariance matrix of the random effects by factor, terms x terms, on the scale of the
        link.
        """
        pairs = zip(self.design.factors, self.Lambdas, strict=True)
        return {
            f.name: pd.DataFrame(L @ L.T, index=list(f.columns), columns=list(f.columns))
            for f, L in pairs
        }

    @functools.cached_property
    def _conditional(self) -> list[list[np.ndarray]]:
        found = self.model.engine.mode_covariances(self.estimate)
        sizes = [len(f.levels) for f in self.design.factors]
        return [[a[:m] for a, m in zip(arrays, sizes, strict=True)] for arrays in found]

    @property
    def variance_components(self) -> dict[str, float | dict[str, float]]:
        """Variances by factor (one number for a lone intercept, else by term); `"residual"` of a
        Gaussian family.
        """
        found = super().variance_components
        del found["residual"]
        return found | ({"residual": self.scale} if self.family.name == "gaussian" else {})

    # Rows

    @property
    def linear_predictor(self) -> pd.Series:
        """X beta + Z b + offset of the rows used, on the scale of the link."""
        return pd.Series(self.estimate.eta, index=self.design.index)

    def free_rows(self, rows: Rows) -> list[np.ndarray]:
        """Parameters of the family in rows, on their free scales: (n,) each."""
        return response.free_rows(self.design, self.estimate.gamma, rows.D, len(rows.X))

    def labelled(self, values: np.ndarray, index: pd.Index) -> pd.Series | pd.DataFrame:
        """Means (n,) as a Series, probabilities of categories as a frame."""
        return response.labelled(self.family, values, index)

    @functools.cached_property
    def fittedvalues(self) -> pd.Series | pd.DataFrame:
        """Expected responses of the rows used: probabilities where there are trials, of every
        category of an ordinal response (a frame).
        """
        values = response.mean(self.family, self.estimate.eta, self.free_rows(_of_fit(self.design)))
        return self.labelled(values, self.design.index)

    @property
    def resid(self) -> pd.Series:
        """Response (the proportion of successes where there are trials) minus fitted values."""
        if isinstance(self.family, Ordinal):
            raise ValueError(
                "categories have no residuals y - mean: use scaled_residuals(), or compare "
                "fittedvalues with shares"
            )
        return self.design.y / self.design.observed.m - self.fittedvalues

    @property
    def parameters(self) -> pd.Series:
        """Coefficients, standard deviations `sd_x|g`, correlations `cor_x.(Intercept)|g`, numbers
        of the family.

        The numbers are on their natural scale, but for predictors, whose coefficients are `size:x`
        and the like.
        """
        factors = self.design.factors
        components = varcorr_table(factors, self.covariances, 1.0)["sdcor"].to_numpy()[:-1]
        names = [
            *component_names(factors)[:-1],
            *(name for f in factors for name in natural_names(f)),
        ]
        values = np.concatenate([components, natural_values(factors, self.theta)])
        own = pd.Series(
            response.natural_gamma(self.design, self.estimate.gamma), index=self.family_names
        )
        return pd.concat([self.fe_params, pd.Series(values, index=names), own])

    def __repr__(self) -> str:
        return (
            f"<Fit of {self.design.formula}, family {self.family.name} ({self.family.link}), "
            f"{self.nobs} rows>"
        )


_LIMITS = {
    "size": "there is no overdispersion: use family='poisson'",
    "alpha": "there is no overdispersion: use family='poisson'",
    "precision": "the probability does not vary beyond the model: use family='binomial'",
    "nu": "the tails are those of a Gaussian: use family='gaussian'",
    "zero_probability": "there are no more zeros than the counts have: leave zero_inflation= out",
}


def _report(fit: FittedGeneralizedModel) -> None:
    """Warn of separation, of a search that did not end at the optimum, of singular fits and
    limits of families.
    """
    for name, meaning in fit.runaway.items():
        text = f"{name!r} of family {fit.family.name!r} runs off to infinity: {meaning}"
        warnings.warn(text, SingularFitWarning, stacklevel=5)
    if fit.separation is not None:
        warnings.warn(fit.separation.message, SeparationWarning, stacklevel=5)
    elif not fit.converged:
        text = f"the fit of {fit.design.formula} did not converge: {fit.optimum.message}"
        warnings.warn(text, ConvergenceWarning, stacklevel=5)
    if fit.is_singular:
        warnings.warn(fit.singularity, SingularFitWarning, stacklevel=5)
