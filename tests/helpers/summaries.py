"""Fits and variants of them whose tables are read."""

from dataclasses import replace
from functools import cache

import numpy as np

import interlace_jax as interlace
from interlace_jax.result import Fit


@cache
def sleepstudy():
    return interlace.load_dataset("sleepstudy")


@cache
def slope():
    return interlace.fit("Reaction ~ Days + (1 + Days | Subject)", sleepstudy())


@cache
def crossed():
    data = interlace.load_dataset("crossed")
    data.loc[3:5, "rt"] = np.nan
    return interlace.fit("rt ~ condition + (1 + condition | subject)", data, groups="item")


def at(fit, **changes):
    """The fit with other numbers in its estimate: tables for results that data seldom give."""
    return with_estimate(fit.model, replace(fit.estimate, **changes))


def with_estimate(model, estimate):
    """A REML fit of any estimate, singular where its theta is."""
    fit = Fit(model, estimate, "REML", "satterthwaite")
    return Fit(
        model,
        replace(estimate, vanishing=[np.diag(Lam) == 0.0 for Lam in fit.Lambdas]),
        "REML",
        "satterthwaite",
    )
