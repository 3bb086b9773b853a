"""Many responses whose residuals covary: every lane is the fit of that response alone."""

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax as interlace


def data(n=30, responses=3, seed=0):
    rng = np.random.default_rng(seed)
    d = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), 3),
            "visit": np.tile(list("abc"), n),
            "x": rng.normal(size=3 * n),
        }
    )
    d = d[rng.random(len(d)) < 0.9].reset_index(drop=True)
    level = rng.normal(size=(n, responses))[d["id"]]
    return d, pd.DataFrame(
        level + rng.normal(size=(len(d), responses)) + d[["x"]].to_numpy(), columns=list("pqr")
    )


@pytest.mark.parametrize(
    ("formula", "residual"),
    [("~ x", "us(visit | id)"), ("~ x + (1 | id)", "ar1(visit | id)")],
    ids=["us", "ar1"],
)
def test_every_lane_is_the_fit_of_its_response(formula, residual):
    d, Y = data()
    many = interlace.fit_many(formula, d, responses=Y, residual=residual)
    for name in Y:
        alone = quiet_fit(f"{name} {formula}", d.assign(**{name: Y[name]}), residual=residual)
        assert_allclose(many.llf[name], alone.llf, rtol=0, atol=1e-7)
        assert_allclose(many.fe_params.loc[name], alone.fe_params, rtol=1e-6, atol=1e-8)
        assert_allclose(many.fe_bse.loc[name], alone.fe_bse, rtol=1e-6)
        assert_allclose(many.fe_df.loc[name], alone.fe_df, rtol=1e-5)
        assert_allclose(
            many.parameters.loc[name, alone.parameters.index],
            alone.parameters,
            rtol=1e-5,
            atol=1e-6,
        )
    assert_allclose(many["p"].llf, many.llf["p"], rtol=0, atol=1e-7)


def test_a_response_with_gaps_is_not_fitted():
    d, Y = data()
    Y.loc[3, "q"] = np.nan
    many = interlace.fit_many("~ x", d, responses=Y, residual="us(visit | id)")
    assert (
        "1 missing values: with residual= or dispersion= a response has all rows"
        in many.status["q"]
    )
    assert np.isfinite(many.llf["p"])


def test_the_bootstrap_is_parametric():
    d, Y = data()
    fit = quiet_fit("p ~ x", d.assign(p=Y["p"]), residual="cs(visit | id)", method="ML")
    made = fit.bootstrap(200, seed=1)
    assert list(made.estimates.columns) == list(fit.parameters.index)
    # Of 200 replicates the SD is known to 5 %, and the estimates of one sample are off their truth
    # by an SE.
    assert_allclose(made.bse["x"], fit.fe_bse["x"], rtol=0.25)
    table = fit.confint("boot", nsim=50, seed=0)
    assert (table["lower"] < table["upper"]).all()
    with pytest.raises(ValueError, match="kind='cases' is not offered for models with residual="):
        fit.bootstrap(5, kind="cases")


def test_groups_are_fitted_one_by_one():
    d, Y = data()
    with pytest.raises(ValueError, match="fit groups one by one"):
        interlace.fit_many("p ~ x", d.assign(p=Y["p"]), by="visit", residual="us(visit | id)")
