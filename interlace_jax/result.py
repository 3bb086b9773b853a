"""The labelled result of a fit: what it knows, and the list of what can be asked of it."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from .diagnostics.augment import augment
from .diagnostics.influence import influence
from .diagnostics.jackknife import jackknife
from .diagnostics.residuals import leverage, residuals, scaled_residuals
from .inference.coefficients import coefficients, test
from .inference.intervals import profile
from .inference.prediction import predict
from .inference.robust import robust
from .inference.single_terms import drop1, ranova
from .inference.tails import t_pvalue, t_quantile
from .inference.terms import f_table
from .inference.variances import delta, icc, r2, structure, uncertainty, varcorr
from .models.fitted import FittedModel
from .models.simulation import simulate
from .reporting.tidy import glance, tidy
from .resampling.bootstrap import bootstrap
from .resampling.cross_validation import cross_validated
from .resampling.intervals import confint
from .saving import save
from .summary import Summary


class Fit(FittedModel):
    """A fitted linear mixed model.

    Tables are pandas, labelled by coefficient, factor, level and term. Variances are in squared
    units of the response, deviances are -2 log L.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.fe_params.round(2)
    Intercept    251.41
    Days          10.47
    dtype: float64
    >>> fit.fe_conf_int.round(2)
                lower   upper
    Intercept  237.01  265.80
    Days         7.21   13.73
    >>> fit.varcorr[["grp", "var1", "var2", "sdcor"]].round(2)
            grp         var1  var2  sdcor
    0   Subject  (Intercept)   NaN  24.74
    1   Subject         Days   NaN   5.92
    2   Subject  (Intercept)  Days   0.07
    3  Residual          NaN   NaN  25.59
    >>> round(fit.aic, 1), fit.nobs, fit.ngroups, fit.is_singular
    (1755.6, 180, {'Subject': 18}, False)
    """

    # Fixed effects

    @property
    def fe_cov(self) -> pd.DataFrame:
        """Covariance matrix of the coefficients."""
        names = list(self.design.columns)
        return pd.DataFrame(coefficients(self).vcov, index=names, columns=names)

    @property
    def fe_bse(self) -> pd.Series:
        """Standard errors of the coefficients."""
        return self._by_coefficient(np.sqrt(np.diagonal(coefficients(self).vcov)))

    @property
    def fe_tvalues(self) -> pd.Series:
        """Coefficients over their standard errors."""
        return self.fe_params / self.fe_bse

    @functools.cached_property
    def fe_df(self) -> pd.Series:
        """Degrees of freedom of the t statistics by `df_method`; infinite for "normal"."""
        return self._by_coefficient(coefficients(self).df(np.eye(len(self.design.columns))))

    @property
    def fe_pvalues(self) -> pd.Series:
        """Two-sided p-values of the coefficients."""
        return self._by_coefficient(t_pvalue(self.fe_tvalues, self.fe_df))

    @property
    def fe_conf_int(self) -> pd.DataFrame:
        """95% intervals of the coefficients: columns `lower` and `upper`."""
        half = t_quantile(0.975, self.fe_df) * self.fe_bse
        return pd.DataFrame({"lower": self.fe_params - half, "upper": self.fe_params + half})

    coefficients = coefficients
    test = test
    anova = f_table
    drop1 = drop1
    ranova = ranova
    robust = robust

    # Variances and functions of all parameters

    structure = property(structure)
    varcorr = property(varcorr)
    uncertainty = property(uncertainty)
    delta = delta
    icc = icc
    r2 = r2
    confint = confint
    profile = profile

    # Tables of one shape for all models

    tidy = tidy
    glance = glance

    # Rows

    predict = predict
    simulate = simulate
    residuals = residuals
    scaled_residuals = scaled_residuals
    leverage = leverage
    influence = influence
    jackknife = jackknife
    augment = augment

    # Refits

    bootstrap = bootstrap
    cross_val = cross_validated

    # For other processes

    save = save

    # For the eye

    def summary(self) -> Summary:
        """The fit as a table; `str()` of it is text, a notebook shows it as HTML.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> print(fit.summary())
        Linear mixed model fit by REML (Satterthwaite df)
        Formula: Reaction ~ Days + (1 + Days | Subject)
        ...
        Fixed effects:
                  Estimate Std. Error    df t value Pr(>|t|)
        Intercept  251.405      6.825 17.00  36.838   <2e-16 ***
        Days        10.467      1.546 17.00   6.771 3.26e-06 ***
        ...
        """
        return Summary(self)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
