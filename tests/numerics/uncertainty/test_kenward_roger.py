"""Kenward-Roger against the n x n formulas, and against pbkrtest."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import arrays, oracle
from helpers.cases import lmm_cases
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose
from scipy import stats

from interlace_jax.numerics.likelihood import coordinates
from interlace_jax.numerics.uncertainty import kenward_roger
from interlace_jax.runtime import calls

CONTRASTS = [np.eye(3)[[0]], np.eye(3)[[1]], np.array([[1.0, 2, -1]]), np.eye(3)[1:], np.eye(3)]


@arrays.quick_jit
def adjusted(theta, sigma, m):
    return kenward_roger.kenward_roger(
        coordinates.to_conditioned(theta, m.layout, m.A), jnp.log(sigma), m
    )


def both(problem, theta):
    sigma = oracle.sigma(problem, theta, True)
    ours = calls.run(adjusted, theta, sigma, arrays.condition(problem))
    return ours, oracle.kenward_roger(problem.used(), theta, CONTRASTS)


@pytest.mark.parametrize(
    "kind", ["slope", "independent", "nested_slopes", "crossed_slopes", "nested_crossed", "weights"]
)
def test_covariance_and_df_are_those_of_the_dense_formulas(kind):
    problem = oracle.random_design(1, kind)
    ours, dense = both(problem, oracle.random_theta(problem, 1))
    assert_allclose(ours.adjusted, dense.cov, rtol=1e-6, atol=1e-9)
    found = np.array([kenward_roger.f_approximation(L, ours) for L in CONTRASTS])
    assert_allclose(found[:, 0], dense.df, rtol=1e-6)
    assert_allclose(found[:, 1], dense.scale, rtol=1e-6)


@pytest.mark.parametrize("theta", [[0.0, 0.0, 0.0], [0.8, 0.3, 0.0]])
def test_at_the_boundary_it_is_as_defined_as_inside(theta):
    problem = oracle.random_design(1, "slope")
    ours, dense = both(problem, np.array(theta))
    assert_allclose(ours.adjusted, dense.cov, rtol=1e-6, atol=1e-9)
    assert_allclose(kenward_roger.f_approximation(np.eye(3), ours)[0], dense.df[-1], rtol=1e-6)


@pytest.mark.parametrize(
    "case", [p for p in lmm_cases(method="REML") if "df" in p.values[0].get("kenward_roger", {})]
)
def test_fits_have_the_df_and_covariance_of_pbkrtest(case):
    reference, names = case["kenward_roger"], case["coef_names_formulaic"]
    c = fitted(case.name).coefficients("kenward-roger")
    order = [c.names.index(name) for name in names]
    scale = np.sqrt(np.diag(reference["vcov_adj"]))
    assert_allclose(
        c.vcov[np.ix_(order, order)] / np.outer(scale, scale),
        reference["vcov_adj"] / np.outer(scale, scale),
        atol=1e-6,
    )
    assert_allclose(c.df(np.eye(len(order)))[order], list(reference["df"].values()), rtol=1e-6)


def test_years_and_seconds_give_the_same_df():
    frame = sleepstudy().assign(shifted=lambda f: 1e3 * f.Days + 2e6)
    fit = quiet_fit(
        "Reaction ~ shifted + (1 + shifted | Subject)", frame, df_method="kenward-roger"
    )
    assert_allclose(fit.fe_df["shifted"], 17.0, rtol=1e-7)


def test_the_method_applies_to_everything_about_coefficients():
    frame = sleepstudy().iloc[:150]
    fit = quiet_fit(
        "Reaction ~ Days + (1 + Days | Subject)",
        frame.drop(index=[3, 4, 5, 17]),
        df_method="kenward-roger",
    )
    c = fit.coefficients("kenward-roger")
    assert_allclose(fit.fe_bse, np.sqrt(np.diag(c.vcov)))
    assert_allclose(fit.fe_cov, c.vcov)
    assert (c.vcov.diagonal() > fit.estimate.vcov.diagonal()).all()
    assert_allclose(fit.fe_tvalues, fit.fe_params / fit.fe_bse)


def test_ml_fits_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="REML"):
        fitted("sleepstudy_slope_ML").test("Days = 0", ddf="kenward-roger")


@pytest.mark.parametrize("blocks", [2, 3, 4, 5])
def test_a_balanced_split_plot_has_the_f_test_of_its_cell_means(blocks):
    """The paired t test of the means, squared, with blocks - 1 df: 2 df, where the formulas are
    0 / 0, too.
    """
    rng = np.random.default_rng(1)
    block, treat = np.repeat(np.arange(blocks), 6), np.tile(np.repeat([0, 1], 3), blocks)
    y = (
        rng.normal(size=blocks)[block]
        + 0.8 * treat
        + 2 * rng.normal(size=2 * blocks)[2 * block + treat]
    )
    frame = pd.DataFrame(
        dict(y=y + 0.5 * rng.normal(size=6 * blocks), block=block, treat=treat)
    ).astype({"block": str})
    fit = quiet_fit("y ~ block + C(treat) + (1 | block:treat)", frame)
    assert not fit.is_singular
    mean = frame.groupby(["block", "treat"])["y"].mean().unstack()
    wanted = stats.ttest_rel(mean[1], mean[0])
    row = fit.anova(3, "kenward-roger").loc["C(treat)"]
    assert_allclose(row[["F value", "DenDF"]], [wanted.statistic**2, blocks - 1], rtol=1e-6)
    assert_allclose(row["Pr(>F)"], wanted.pvalue, rtol=1e-6)
    one = fit.test("C(treat)[T.1] = 0", ddf="kenward-roger").iloc[0]
    assert_allclose([one.t**2, one.df], [wanted.statistic**2, blocks - 1], rtol=1e-6)


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("df", [0.5, 1.0, 2.0, 3.0, 4.0, 7.0])
def test_components_that_are_alike_have_the_df_of_each_and_no_scale(q, df):
    """One variance, known on df degrees of freedom: W = 2 / df for a derivative of Phi that is
    Phi.
    """
    one = kenward_roger.Adjusted(np.eye(q), np.eye(q), np.eye(q)[None], np.array([[2.0 / df]]))
    assert_allclose(kenward_roger.f_approximation(np.eye(q), one), (df, 1.0), rtol=1e-12)


def test_two_df_are_no_gap_between_their_neighbours():
    """Of components that differ, where mean and variance of the statistic run off to infinity."""
    rng = np.random.default_rng(2)
    slopes = np.array([S @ S.T for S in rng.normal(size=(2, 3, 3))])

    def df(size):
        return kenward_roger.f_approximation(
            np.eye(3), kenward_roger.Adjusted(np.eye(3), np.eye(3), slopes, size * np.eye(2))
        )

    A2 = np.einsum("ij,iab,jba->", np.eye(2), slopes, slopes)
    found, scale = df(3.0 / A2)
    assert_allclose((found, scale), (2.0, 1.0))
