"""Bootstraps that several tests read."""

from functools import cache

from helpers.fits import fitted


@cache
def _sleep():
    return fitted("sleepstudy_slope_REML")


@cache
def _parametric():
    return _sleep().bootstrap(400, seed=1)
