"""Fits that several test files look at, each made once in a session."""

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from helpers.cases import Case, load_case
from numpy.testing import assert_allclose

import interlace_jax as interlace


@cache
def fitted(name: str) -> interlace.Fit:
    """The fit of a reference case; what it warns of is tested elsewhere."""
    case = load_case(name)
    return quiet_fit(case.formula, case.frame, **arguments(case))


def arguments(case: Case) -> dict[str, Any]:
    """What `fit` takes beside formula and data."""
    return dict(method=case["method"], weights=case["weights"], offset=case["offset"])


def quiet_fit(*args: Any, **kwargs: Any) -> interlace.Fit:
    """`fit` without warnings of singularity, rank or convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return interlace.fit(*args, **kwargs)


def sleepstudy() -> pd.DataFrame:
    """A fresh copy."""
    return interlace.load_dataset("sleepstudy")


def assert_same_effects(many: interlace.Many, other: interlace.Many, rows=slice(None)) -> None:
    """Fits of the same numbers in another container or company: searches may differ by rounding,
    and end within 1e-6 standard errors of each other.
    """
    difference = many.fe_params.iloc[rows].to_numpy() - other.fe_params.iloc[rows].to_numpy()
    assert_allclose(np.divide(difference, other.fe_bse.iloc[rows]), 0, atol=1e-6)
