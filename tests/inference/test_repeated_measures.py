"""Models with a residual covariance: identities with simpler models, invariances, and
derivatives.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from helpers.repeated import data, fit
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace

SLEEP = {  # R's `sleep`: extra hours of sleep of ten patients under two drugs (Student 1908)
    "a": [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    "b": [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
}


def sleep():
    frame = (
        pd.DataFrame(SLEEP)
        .rename_axis("id")
        .reset_index()
        .melt("id", var_name="drug", value_name="extra")
    )
    return frame.sample(frac=1.0, random_state=0).reset_index(drop=True)


def test_two_visits_are_the_paired_t_test():
    found = quiet_fit("extra ~ drug", sleep(), residual="us(drug | id)", df_method="kenward-roger")
    expected = stats.ttest_rel(SLEEP["b"], SLEEP["a"])
    assert_allclose(found.fe_tvalues["drug[T.b]"], expected.statistic, rtol=1e-7)
    assert_allclose(found.fe_df["drug[T.b]"], 9, rtol=1e-6)
    assert_allclose(found.fe_pvalues["drug[T.b]"], expected.pvalue, rtol=1e-6)


def test_over_two_visits_structures_with_one_variance_are_one():
    found = [
        quiet_fit("extra ~ drug", sleep(), residual=f"{tag}(drug | id)")
        for tag in ("cs", "ar1", "toep", "ad")
    ]
    assert_allclose([f.deviance for f in found], found[0].deviance, rtol=0, atol=1e-8)


def test_complete_data_and_us_are_manova():
    complete = data().groupby("id").filter(lambda g: len(g) == 4)
    found = quiet_fit("y ~ arm * visit", complete, residual="us(visit | id)")
    wide = complete.pivot(index=["id", "arm"], columns="visit", values="y")
    means = wide.groupby("arm").transform("mean")
    N = len(wide)
    S = ((wide - means).T @ (wide - means)).to_numpy() / (N - 2)
    assert_allclose(found.residual_covariance, S, rtol=1e-6)
    a, b = (wide.xs(arm, level="arm")["V3"] for arm in "AB")
    contrast = interlace.emmeans(found, "arm", by="visit").frame
    assert_allclose(contrast.query("visit == 'V3'")["emmean"], [a.mean(), b.mean()], rtol=1e-8)
    assert_allclose(contrast["df"], N - 2, rtol=1e-5)


def test_compound_symmetry_is_a_random_intercept():
    a, b = fit("cs(visit | id)"), quiet_fit("y ~ arm * visit + (1 | id)", data())
    assert_allclose(a.deviance, b.deviance, rtol=0, atol=1e-7)
    assert_allclose(a.fe_bse, b.fe_bse, rtol=1e-6)
    total = b.variance_components["id"] + b.scale
    assert_allclose(
        a.residual_correlation.iloc[0, 1], b.variance_components["id"] / total, rtol=1e-5
    )
    assert_allclose(a.scale, total, rtol=1e-5)


def test_a_negative_correlation_is_found_that_no_random_intercept_has():
    rng = np.random.default_rng(0)
    d = pd.DataFrame({"id": np.repeat(np.arange(40), 3), "v": np.tile(list("abc"), 40)})
    E = rng.normal(size=(40, 3))
    d["y"] = (E - 0.8 * E.mean(1, keepdims=True)).ravel()
    assert quiet_fit("y ~ 1", d, residual="cs(v | id)").residual_correlation.iloc[0, 1] < -0.2


def test_exponential_over_unit_times_is_ar1():
    a, b = fit("ar1(t | id)"), fit("sp_exp(t | id)")
    assert_allclose(a.deviance, b.deviance, rtol=0, atol=1e-7)
    assert_allclose(
        b.residual_correlation(np.array([0.0, 1.0, 2.0])),
        a.residual_correlation.iloc[0, :3],
        rtol=1e-5,
    )


def test_known_dispersion_is_weights():
    d = data().assign(w=lambda d: 1 / (1 + d["t"]) ** 2.0, size=lambda d: 1.0 + d["t"])
    model = interlace.compile("y ~ arm * t", d, dispersion=interlace.Power("size"))
    weighted = interlace.compile("y ~ arm * t + (1 | id)", d, weights="w")
    both = interlace.compile("y ~ arm * t + (1 | id)", d, dispersion=interlace.Power("size"))
    assert_allclose(both.deviance([0.7, 1.0]), weighted.deviance([0.7]), rtol=0, atol=1e-8)
    assert_allclose(
        model.deviance([0.0]), interlace.compile("y ~ arm * t", d, dispersion="~ t").deviance([0.0])
    )


@pytest.mark.parametrize("residual", ["ar1h({} | id)", "toep({} | id)"])
def test_units_and_order_do_not_matter(residual):
    d = data()
    base = quiet_fit("y ~ arm * visit", d, residual=residual.format("t"), df_method="kenward-roger")
    other = d.assign(t=7 * d["t"] + 2000, y=1e6 * d["y"]).sample(frac=1.0, random_state=5)
    moved = quiet_fit(
        "y ~ arm * visit", other, residual=residual.format("t"), df_method="kenward-roger"
    )
    assert_allclose(moved.fe_params, 1e6 * base.fe_params, rtol=1e-6)
    assert_allclose(moved.fe_bse, 1e6 * base.fe_bse, rtol=1e-6)
    assert_allclose(moved.fe_df, base.fe_df, rtol=1e-5)
    assert_allclose(moved.residual_correlation, base.residual_correlation, rtol=1e-5, atol=1e-7)


def test_sigma_is_the_first_groups_and_the_model_is_not():
    a = fit("ar1(t | arm / id)")
    swapped = data().assign(arm=lambda d: np.where(d["arm"] == "A", "Z", d["arm"]))
    b = quiet_fit("y ~ arm * visit", swapped, residual="ar1(t | arm / id)")
    assert_allclose(a.deviance, b.deviance, rtol=0, atol=1e-7)
    assert_allclose(b.sigma, a.structure.estimate["sd | B"], rtol=1e-5)
    assert "The residual variance above is that of arm A." in str(a.summary())


def test_the_likelihood_and_the_fit_have_derivatives():
    model = fit("ar1(t | id)").model
    theta = fit("ar1(t | id)").theta + 0.05
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: model.loglik(x))(jnp.asarray(theta))
        by_y = jax.grad(lambda y: model.with_response(y).estimate().beta[1])(
            jnp.asarray(model.design.y)
        )
    steps = 1e-5 * np.eye(len(theta))
    expected = [(model.loglik(theta + e) - model.loglik(theta - e)) / 2e-5 for e in steps]
    assert_allclose(slope, expected, rtol=1e-5, atol=1e-5)
    for row in (0, 7):
        moved = []
        for side in (1e-4, -1e-4):
            y = model.design.y.copy()
            y[row] += side
            moved.append(model.with_response(y).estimate().beta[1])
        assert_allclose(by_y[row], (moved[0] - moved[1]) / 2e-4, rtol=1e-4, atol=1e-6)


def test_simulated_responses_have_the_covariance_of_the_fit():
    found = fit("us(visit | id)")
    Y = found.simulate(4000, seed=0)
    d = data()
    mine = d[d["id"] == 3].sort_values("t")
    C = np.cov(Y.loc[mine.index].to_numpy())
    expected = found.residual_covariance.loc[mine["visit"], mine["visit"]].to_numpy()
    # Standard error of a covariance from 4000 draws: sqrt((s_ii s_jj + s_ij^2) / 4000), five of
    # them.
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / 4000)
    assert (np.abs(C - expected) < 5 * error).all()


def test_other_structures_of_columns_serve_random_effects():
    d = data()
    free = quiet_fit(
        "y ~ arm * visit + (0 + visit | id)", d, cov={"id": interlace.Toeplitz(heterogeneous=True)}
    )
    exact = fit("toeph(visit | id)")
    # it has that model as its limit without a residual of its own
    assert free.deviance < exact.deviance + 1e-6
    assert [name.split("|")[0] for name in free.structure.index][-3:] == ["rho1", "rho2", "rho3"]


def test_intervals_list_the_parameters_of_residuals():
    found = fit("csh(visit | id)")
    table = found.confint()
    names = ["sd V0", "sd V1", "sd V2", "sd V3", "rho | visit within id"]
    assert list(table.index[:5]) == names
    assert_allclose(table.loc[names], found.structure.loc[names, ["lower", "upper"]])
    assert list(itertools.islice(found.parameters.index, 8, None)) == ["sigma", *names]
