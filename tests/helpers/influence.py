"""Measures of influence that several tests read."""

from functools import cache

from helpers.fits import fitted


@cache
def measured(name, level=None, method="exact"):
    return fitted(name).influence(level, method)
