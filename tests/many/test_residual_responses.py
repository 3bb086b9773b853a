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
    with pytest.raises(ValueError, match="not computed for many models whose residuals covary"):
        many.test("x", ddf="kenward-roger")
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


def test_responses_with_gaps_are_fits_of_the_rows_that_they_have():
    d, Y = data()
    Y.loc[[3, 8], "q"] = np.nan
    Y.loc[d["visit"] == "c", "r"] = np.nan
    many = interlace.fit_many("~ x", d, responses=Y, residual="us(visit | id)")
    alone = quiet_fit("q ~ x", d.assign(q=Y["q"]), residual="us(visit | id)")
    assert_allclose(many.llf["q"], alone.llf, rtol=0, atol=1e-7)
    assert_allclose(many.fe_bse.loc["q"], alone.fe_bse, rtol=1e-6)
    assert_allclose(many.fe_df.loc["q"], alone.fe_df, rtol=1e-5)
    assert_allclose(
        many.parameters.loc["q", alone.parameters.index], alone.parameters, rtol=1e-5, atol=1e-6
    )
    assert many.nobs["q"] == alone.nobs
    assert "has a variance for every 'visit', but 'c' is seen" in many.status["r"]
    assert np.isfinite(many.llf["p"])


def test_groups_are_models_of_their_own():
    d, Y = data()
    d = d.assign(p=Y["p"], site=np.where(d["id"] < 14, "north", "south"))
    many = interlace.fit_many("p ~ x", d, by="site", residual="cs(visit | id)", dispersion="~ x")
    for site in ("north", "south"):
        alone = quiet_fit(
            "p ~ x", d[d["site"] == site], residual="cs(visit | id)", dispersion="~ x"
        )
        assert_allclose(many.llf[site], alone.llf, rtol=0, atol=1e-7)
        assert_allclose(
            many.parameters.loc[site, alone.parameters.index],
            alone.parameters,
            rtol=1e-5,
            atol=1e-6,
        )
    with pytest.raises(ValueError, match="need dtype='float64'"):
        interlace.fit_many("p ~ x", d, by="site", residual="cs(visit | id)", dtype="float32")


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
