"""The labelled result of a generalised linear mixed model: what it knows, and the list of what
can be asked of it.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from .diagnostics.response_residuals import response_residuals
from .inference.family_functions import delta, icc, r2
from .inference.family_parameters import family_params, parameter_cov, predictor_table
from .inference.response_prediction import predict_generalized
from .inference.terms import chi_square_table
from .inference.variances import varcorr
from .models.generalized import FittedGeneralizedModel
from .result import Fit
from .summary import GeneralizedSummary


def _refused(what: str, instead: str):
    """A verb of linear mixed models that is not there for generalised ones."""

    def refuse(self: GeneralizedFit, *_: Any, **__: Any) -> Any:
        raise ValueError(
            f"{what} is for linear mixed models so far, not for family={self.family.name!r}: "
            f"{instead}"
        )

    refuse.__doc__ = f"Refused: for linear mixed models so far ({instead})."
    return refuse


class GeneralizedFit(FittedGeneralizedModel, Fit):
    """A fitted generalised linear mixed model: `fit(..., family=)`.

    Tables are those of `Fit`. Coefficients are on the scale of the link; `theta` is absolute, b ~
    N(0, Lambda Lambda'), and deviances are -2 log-likelihood by Laplace's approximation. Tests are
    z tests, and the covariance of the coefficients is a block of that of all parameters,
    `parameter_cov`.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> fit.fe_params.round(2)
    Intercept      -1.40
    period[T.p2]   -0.99
    period[T.p3]   -1.13
    period[T.p4]   -1.58
    dtype: float64
    >>> fit.varcorr[["grp", "sdcor"]].round(2)
        grp  sdcor
    0  herd   0.64
    >>> fit.predict(type="response").head(3).round(3)
    0    0.308
    1    0.142
    2    0.126
    dtype: float64
    """

    parameter_cov = property(parameter_cov)
    family_params = property(family_params)
    delta = delta
    icc = icc
    r2 = r2
    predict = predict_generalized
    residuals = response_residuals
    anova = chi_square_table

    @property
    def dispersion_params(self) -> pd.Series:
        """Coefficients of `dispersion=`, of the logarithm of the family's first parameter; empty
        without it.
        """
        return predictor_table(self, "dispersion")["estimate"].rename(None)

    @property
    def dispersion_params_bse(self) -> pd.Series:
        """Standard errors of `dispersion_params`."""
        return predictor_table(self, "dispersion")["se"].rename(None)

    @property
    def zero_params(self) -> pd.Series:
        """Coefficients of `zero_inflation=`, of the logit of the probability of a zero; empty
        without its predictor.
        """
        return predictor_table(self, "zero_inflation")["estimate"].rename(None)

    @property
    def zero_params_bse(self) -> pd.Series:
        """Standard errors of `zero_params`."""
        return predictor_table(self, "zero_inflation")["se"].rename(None)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances, covariances, SDs and correlations, with standard errors and intervals, as
        `Fit.varcorr`.
        """
        table = varcorr(self)
        if self.family.name == "gaussian":
            return table.assign(
                **{name: table[name].where(table["grp"] != "Residual") for name in _UNKNOWN}
            )
        return table.iloc[:-1]

    leverage = _refused(
        "leverage()", "residuals('pearson') and scaled_residuals() show single rows"
    )
    jackknife = _refused("jackknife()", "standard errors are those of the likelihood")
    augment = _refused(
        "augment()", "fittedvalues, residuals() and scaled_residuals() are its columns"
    )

    def summary(self) -> GeneralizedSummary:
        """The fit as a table; `str()` of it is text, a notebook shows it as HTML.

        >>> cbpp = interlace_jax.load_dataset("cbpp")
        >>> formula = "incidence ~ period + (1 | herd)"
        >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
        >>> print(str(fit.summary()).partition("Number")[0])
        Generalised linear mixed model: binomial (logit), Laplace
        Formula: incidence ~ period + (1 | herd)
        Trials: size
        <BLANKLINE>
            AIC     BIC  logLik deviance
        194.053 204.179 -92.026  184.053
        <BLANKLINE>
        Random effects:
        Groups Name        Variance Std.Dev.
        herd   (Intercept)   0.4125   0.6423
        """
        return GeneralizedSummary(self)


_UNKNOWN = ("vcov_se", "sdcor_se", "lower", "upper")
