"""SDs that are a power of fitted values: nlme's fixed point, and what it does not offer."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax as interlace

DATA = Path(__file__).parents[1] / "reference" / "residual" / "data" / "bodyweight.csv"
FORMULA, OF_FITTED = "weight ~ time * diet", interlace.Power("fitted")


@cache
def data():
    return pd.read_csv(DATA)


@cache
def fit():
    return quiet_fit(FORMULA, data(), dispersion=OF_FITTED)


def test_without_random_effects_it_is_gls_of_nlme():
    """`gls(weight ~ time * diet, weights = varPower())` of nlme 3.1-162, whose optimiser stops at
    about 1e-6.
    """
    f = fit()
    assert_allclose(f.structure["estimate"]["power fitted"], 2.11751985558, rtol=1e-5)
    assert_allclose(f.deviance, 1611.2181197561, rtol=0, atol=1e-6)
    beta = [251.514929529736, 0.363820840648, 201.071109262024, 252.490961973054]
    se = [2.486713890655, 0.067361942869, 12.668039191831, 15.458072045919]
    assert_allclose(f.fe_params.iloc[:4], beta, rtol=1e-6)
    assert_allclose(f.fe_bse.iloc[:4], se, rtol=1e-5)


def test_it_is_a_fixed_point():
    f = fit()
    held = quiet_fit(
        FORMULA, data().assign(size=f.fittedvalues.to_numpy()), dispersion=interlace.Power("size")
    )
    assert_allclose(held.fittedvalues, f.fittedvalues, rtol=1e-7)
    assert_allclose(held.theta, f.theta, rtol=1e-6)
    assert_allclose(f.residual_sd, f.sigma * np.abs(f.fittedvalues) ** f.theta[-1], rtol=1e-6)


def test_what_needs_a_likelihood_or_refits_is_refused():
    f, larger = fit(), quiet_fit("weight ~ time * diet + I(time**2)", data(), dispersion=OF_FITTED)
    with pytest.raises(ValueError, match="fixed point and maximises no likelihood"):
        interlace.anova(f.by("ML"), larger.by("ML"))
    with pytest.raises(ValueError, match="has no likelihood as a function of theta"):
        interlace.compile(FORMULA, data(), dispersion=OF_FITTED)
    with pytest.raises(ValueError, match="the bootstrap is not offered with .* give the power of"):
        f.bootstrap(2)
    with pytest.raises(ValueError, match="use fit one by one"):
        interlace.fit_many(FORMULA, data(), by="diet", dispersion=OF_FITTED)
    with pytest.raises(ValueError, match="would depend on its own prediction"):
        f.predict(data().head(2), interval="prediction")
    flat = data().assign(weight=lambda d: d["weight"] - d["weight"].mean())
    with pytest.raises(ValueError, match="fitted values are 0"):
        interlace.fit(
            "weight ~ 0 + time",
            flat.assign(time=lambda d: d["time"] * (d.index > 3)),
            dispersion=OF_FITTED,
        )
