"""The infinitesimal jackknife: robust standard errors of all parameters, over independent
groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..inference.prediction import estimates_by_t
from ..inference.variances import uncertainty
from ..models.fitted import FittedModel
from ..models.parameters import component_names
from ..models.residual import residual_names
from ..resampling.regrouping import _check_independent, factor_named, independent_groups
from .influence import group_pulls


@dataclass(frozen=True, eq=False)
class Jackknife:
    """Derivatives of all estimates by the weights of independent groups; made by
    `Fit.jackknife`.
    """

    by: str
    effects: pd.DataFrame = field(repr=False)
    "Groups x parameters: derivatives of the estimates by how many times the group counts."

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance matrix of the estimates, sum_g effect_g effect_g': robust to misspecified
        covariances.
        """
        return self.effects.T @ self.effects

    @property
    def bse(self) -> pd.Series:
        """Standard errors: roots of the diagonal of `cov`."""
        return np.sqrt((self.effects**2).sum())


def jackknife(fit: FittedModel, by: str | None = None) -> Jackknife:
    """Infinitesimal jackknife over independent groups: robust ("sandwich") standard errors of all
    parameters.

    `effects` are the exact derivatives of all parameters (coefficients, `sd_x|g`, `cor_x.y|g`,
    `sigma` and those of `residual=` and `dispersion=`) by the weight with which the log-likelihood
    of a group counts; `cov` and `bse` follow from them. For theta held, the part of the
    coefficients is the cluster-robust covariance CR0 (Liang & Zeger 1986). Valid for many
    independent groups, whatever the covariance within them (forty is a common rule); with few, too
    small.

    by: a factor whose levels share no random effect, by default the outermost one (or the subjects
    whose residuals covary); there is none if factors are crossed.

    Array programs have derivatives by the weights of rows (precisions; not of groups) from JAX
    itself: `jax.jacobian(lambda w: estimate(moments(y, X, groups, w)).beta)(w)`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.jackknife()
    Jackknife(by='Subject')
    >>> fit.jackknife().bse.round(2)
    Intercept                       6.63
    Days                            1.50
    sd_(Intercept)|Subject          4.50
    sd_Days|Subject                 1.05
    cor_Days.(Intercept)|Subject    0.31
    sigma                           4.06
    dtype: float64
    """
    fit.model.engine.require("jackknife")
    design = fit.design
    factor = independent_groups(design, "the jackknife") if by is None else factor_named(design, by)
    _check_independent(design, factor, "the jackknife")
    pull = group_pulls(fit, factor)
    dx = -0.5 * pull.gradient @ fit.curvature.W
    beta = pull.beta + dx[:, :-1] @ estimates_by_t(fit)[0].T
    effects = np.hstack([beta, dx @ uncertainty(fit).slopes_of_components().T])
    names = [*design.columns, *component_names(design.factors)]
    names += [] if design.residual is None else residual_names(design.residual)
    return Jackknife(factor.name, pd.DataFrame(effects, factor.levels, names))
