"""Confidence intervals of every parameter, by name and by any method: Wald, profile or
bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..inference.intervals import chosen_names, profile_intervals, wald_intervals
from ..models.fitted import FittedModel
from ..support.arguments import check_level, one_of
from .bootstrap import bootstrap

METHODS = ("wald", "profile", "boot")


def confint(
    fit: FittedModel,
    method: str = "wald",
    level: float = 0.95,
    parm: str | Iterable[str] | None = None,
    criterion: str = "ML",
    nsim: int = 1000,
    seed: Any = None,
) -> pd.DataFrame:
    """Intervals `lower upper` of SDs (`sd_x|g`), correlations (`cor_x.(Intercept)|g`), `sigma` or
    the numbers of a family, and coefficients.

    method: "wald" (t quantiles with `fe_df`; SDs on the log scale, correlations on Fisher's z,
    numbers of a family on their free scales),
    "profile" (where the deviance, everything else re-optimised, has risen by the chi-square
    quantile) or "boot" (percentiles of a parametric bootstrap; `bootstrap` has other kinds).
    parm: names to select; "theta_" stands for all variance parameters, "beta_" for all
    coefficients.
    criterion: of the profiles of variance parameters, "ML" (as lme4, also for a REML fit) or
    "REML"; those of coefficients are ML. `attrs["criterion"]` of the table says which, and
    `attrs["at_boundary"]` lists the limits (name, side) that are 0, -1 or 1 because the profile
    does not rise enough before that.
    nsim, seed: of the bootstrap.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.confint("profile").round(2)
                                   lower   upper
    sd_(Intercept)|Subject         14.38   37.72
    cor_Days.(Intercept)|Subject   -0.48    0.69
    sd_Days|Subject                 3.80    8.75
    sigma                          22.90   28.86
    Intercept                     237.68  265.13
    Days                            7.36   13.58
    """
    check_level(level)
    one_of("method", method, METHODS)
    names = chosen_names(fit.design, parm)
    if method == "wald":
        return wald_intervals(fit, names, level)
    if method == "profile":
        return profile_intervals(fit, names, level, criterion)
    return bootstrap(fit, nsim, seed).confint(level).loc[names]
