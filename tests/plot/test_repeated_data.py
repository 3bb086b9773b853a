"""Correlations by lag and SDs by visit: what the data have, what the model has, and its band."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit, sleepstudy
from numpy.testing import assert_allclose

from interlace_jax.plot.repeated_data import correlations_by_lag, sds_by_visit


@cache
def serial():
    formula, residual = "Reaction ~ Days + (1 | Subject)", "ar1h(Days | Subject)"
    return quiet_fit(formula, sleepstudy(), residual=residual)


def test_without_gaps_they_are_those_of_the_wide_table():
    f = serial()
    r = sleepstudy()["Reaction"] - f.predict(include_re=False)
    wide = sleepstudy().assign(r=r).pivot(index="Subject", columns="Days", values="r").to_numpy()
    V = f.residual_covariance.to_numpy() + f.variance_components["Subject"]
    sd = np.sqrt(np.diag(V))
    sds = sds_by_visit(f)
    assert_allclose(sds["sd"], np.sqrt(np.mean(wide**2, 0)), rtol=1e-10)
    assert_allclose(sds["model"], sd, rtol=1e-8)
    z, found = wide / sd, correlations_by_lag(f).set_index("lag")
    for lag in (1, 6):
        a, b = z[:, :-lag].ravel(), z[:, lag:].ravel()
        observed = a @ b / np.sqrt(a @ a * (b @ b))
        assert_allclose(found.loc[lag, "correlation"], observed, rtol=1e-8)
        model = np.mean(np.diagonal(V / np.outer(sd, sd), lag))
        assert_allclose(found.loc[lag, "model"], model, rtol=1e-8)
        assert found.loc[lag, "lower"] < model < found.loc[lag, "upper"]


def test_distances_are_binned_and_have_no_visits():
    rng = np.random.default_rng(0)
    d = pd.DataFrame({"id": np.repeat(np.arange(30), 5), "t": rng.uniform(0, 10, 150)})
    d["y"] = rng.normal(size=150)
    f = quiet_fit("y ~ 1", d, residual="sp_exp(t | id)")
    table = correlations_by_lag(f)
    assert len(table) == 12 and table["pairs"].sum() == 300
    assert (np.diff(table["lag"]) > 0).all()
    with pytest.raises(ValueError, match="SDs by visit need visits"):
        sds_by_visit(f)
    with pytest.raises(ValueError, match="needs a fit with residual="):
        correlations_by_lag(quiet_fit("y ~ 1 + (1 | id)", d))
