"""Profiles and their limits against exact ones, dense deviances and least squares."""

import itertools

import numpy as np
import pandas as pd
import pytest
from helpers import oracle
from helpers.cases import lmm_cases, load_case
from helpers.fits import fitted, quiet_fit
from helpers.profiled import SDS, SLOPE
from numpy.testing import assert_allclose
from scipy import optimize, stats

PROFILED = [
    p for p in lmm_cases(method="ML") if "limits_exact" in (p.values[0].get("ci_profile") or {})
]


@pytest.mark.parametrize("case", PROFILED)
def test_profile_limits_are_the_exact_ones(case):
    reference = case["ci_profile"]["limits_exact"]
    coefficients = dict(zip(case["coef_names"], case["coef_names_formulaic"], strict=True))
    table = fitted(case.name).confint("profile")
    variances = [name for name in table.index if name not in coefficients.values()]
    names = variances + [coefficients[name] for name in list(reference)[len(variances) :]]
    limits = np.array(list(reference.values()), float)
    width = np.ptp(limits, axis=1)[:, None]
    assert_allclose(table.loc[names] / width, limits / width, atol=1e-7)
    at_bound = {
        (n, side)
        for n, row in zip(names, limits, strict=True)
        for side, v in zip(("lower", "upper"), row, strict=True)
        if v in (0, 1, -1)
    }
    assert set(table.attrs["at_boundary"]) == at_bound


@pytest.mark.parametrize("name", SDS)
@pytest.mark.parametrize("criterion", ["ML", "REML"])
def test_the_dense_deviance_rises_by_the_square_of_zeta(name, criterion):
    """At each end of an interval the constrained minimum of the dense deviance is 3.84 above the
    free one.
    """
    problem, reml = load_case(SLOPE).problem, criterion == "REML"
    fit = fitted(f"sleepstudy_slope_{criterion}")
    for limit in fit.confint("profile", parm=name, criterion=criterion).to_numpy().ravel():
        assert_allclose(
            constrained_minimum(problem, name, limit, reml) - fit.deviance, 1.959964**2, atol=2e-4
        )


def constrained_minimum(problem, name, value, reml):
    """Minimum over (sd_1, sd_2, cor, sigma) in the order of VarCorr with one of them fixed."""
    at = SDS.index(name)

    def f(free):
        sd1, cor, sd2, sigma = np.insert(free, at, value) if at else np.append(value, free)
        if abs(cor) >= 1 or min(sd1, sd2, sigma) <= 0:
            return 1e6
        theta = np.array([sd1, sd2 * cor, sd2 * np.sqrt(1 - cor**2)]) / sigma
        return oracle.joint_deviance(problem, theta, sigma, reml)

    start = np.delete([24.0, 0.05, 5.8, 25.6], at)
    best = optimize.minimize(
        f, start, method="Nelder-Mead", options=dict(xatol=1e-6, fatol=1e-8, maxiter=4000)
    )
    return best.fun


def test_reml_profiles_of_coefficients_stay_ml_and_say_so():
    table = fitted(SLOPE).confint("profile", parm=["Days", "sigma"], criterion="REML")
    assert table.attrs["criterion"] == {"Days": "ML", "sigma": "REML"}
    assert_allclose(table.loc["Days"], fitted(SLOPE).confint("profile", parm="Days").loc["Days"])


def test_without_grouping_differences_the_profile_of_a_mean_is_that_of_least_squares():
    """Where the variance stays 0, zeta^2 = n log(1 + t^2 / n), with t the distance in ML
    standard errors.
    """
    fit = fitted("dyestuff2_ML")
    se = np.sqrt(fit.estimate.vcov[0, 0])
    table = fit.profile("Intercept", zmax=1.0, points=2)
    t = (table.value - fit.fe_params["Intercept"]) / se
    assert_allclose(table.zeta, np.sign(t) * np.sqrt(30 * np.log1p(t**2 / 30)), atol=1e-6)


def test_profiles_rise_through_zero_at_the_estimate():
    table = fitted("sleepstudy_slope_ML").profile(["sd_Days|Subject", "Days"], points=4)
    assert list(table.columns) == ["parameter", "value", "zeta"]
    for name, curve in table.groupby("parameter"):
        assert_allclose(curve.zeta, np.arange(-4, 5) * 0.75, atol=1e-6)
        assert (np.diff(curve.value) > 0).all()
        estimate = fitted("sleepstudy_slope_ML").confint(parm=name)
        assert estimate.lower.iloc[0] < curve.value.iloc[4] < estimate.upper.iloc[0]


def test_a_profile_ends_where_the_parameter_does():
    table = fitted("dyestuff2_ML").profile("sd_(Intercept)|Batch", points=3)
    assert table.value.min() == 0.0 and (table.zeta >= -1e-9).all()


def test_a_profile_has_no_row_twice():
    """Where it has come to a bound, and where the estimate is at one."""
    for name in ("dyestuff2_ML", "sleepstudy_slope_ML"):
        table = fitted(name).profile(zmax=8.0, points=8)
        assert not table.duplicated(["parameter", "value"]).any()
        assert all((np.diff(curve.zeta) > -1e-9).all() for _, curve in table.groupby("parameter"))


def few_groups(seed):
    """Six to fifteen subjects with random slopes that correlate negatively, and the times of one
    subject.
    """
    r = np.random.default_rng(seed)
    m, ni = int(r.choice([6, 8, 10, 15])), int(r.choice([5, 8]))
    g, x = np.repeat(np.arange(m), ni), np.tile(np.arange(ni) * 2.0 / (ni - 1), m)
    sd, rho, sigma = (
        float(r.choice([0.5, 0.8, 1.2])),
        float(r.choice([-0.5, -0.7, -0.85])),
        float(r.choice([0.3, 0.5])),
    )
    b = r.normal(size=(m, 2)) @ np.array([[1, sd * rho], [0, sd * np.sqrt(1 - rho**2)]])
    y = 1 + 0.5 * x + b[g, 0] + b[g, 1] * x + sigma * r.normal(size=m * ni)
    return pd.DataFrame(dict(y=y, x=x, g=g)), x[:ni]


def global_minimum(data, x, which, value):
    """Lowest ML deviance where one of sd_1, sd_2, cor, sigma is held: of balanced groups, from
    many starts.
    """
    X = np.column_stack([np.ones_like(x), x])
    y, C = data.y.to_numpy().reshape(-1, len(x)), np.linalg.inv(X.T @ X)
    B = y @ X @ C
    S, m, n = (B - B.mean(0)).T @ (B - B.mean(0)), *y.shape
    rss = np.sum((y - B @ X.T) ** 2)

    def deviance(free):
        a, b, angle, log_sigma = np.insert(free, which, value)
        rho, s2 = value if which == 2 else np.sin(angle), np.exp(2 * log_sigma)
        A = np.array([[a * a, rho * abs(a * b)], [rho * abs(a * b), b * b]]) + s2 * C
        rest = (
            m * (n - 2) * np.log(s2)
            + rss / s2
            - m * np.linalg.slogdet(C)[1]
            + m * n * np.log(2 * np.pi)
        )
        return m * np.linalg.slogdet(A)[1] + np.trace(np.linalg.solve(A, S)) + rest

    sigma = 0.5 * np.log(rss / (m * (n - 2)))
    starts = itertools.product((1e-3, 0.4, 1.0), (1e-3, 0.4, 1.0), (-1.3, -0.4, 0.8), (sigma,))
    return min(
        optimize.minimize(deviance, np.delete(start, which), method="BFGS").fun for start in starts
    )


@pytest.mark.parametrize(
    ("seed", "name", "level", "right"),
    [(40718, "cor_x.(Intercept)|g", 0.95, -0.94690), (40097, "sd_x|g", 0.99, 0.61544)],
)
def test_limits_with_few_groups_are_those_of_the_global_minimum(seed, name, level, right):
    """Where inner searches that start afresh fall into basins of their own; the lower limits of
    a search by hand.
    """
    data, x = few_groups(seed)
    fit = quiet_fit("y ~ x + (1 + x | g)", data, method="ML")
    limits = fit.confint("profile", parm=name, level=level).loc[name]
    assert_allclose(limits.lower, right, atol=1e-4)
    which = {"sd_x|g": 1, "cor_x.(Intercept)|g": 2}[name]
    rises = [global_minimum(data, x, which, limit) - fit.deviance for limit in limits]
    assert_allclose(rises, stats.chi2.ppf(level, 1), atol=1e-3)


# the lowest deviance at a far correlation is at, or jumps to, an SD of 0
@pytest.mark.parametrize("seed", [3, 21])
def test_a_correlation_may_be_anything_where_an_sd_may_be_zero(seed):
    rng, g, x = (
        np.random.default_rng(seed),
        np.repeat(np.arange(8), 5),
        np.tile(np.linspace(-1, 1, 5), 8),
    )
    y = rng.normal(size=8)[g] + 0.35 * x * rng.normal(size=8)[g] + 0.7 * rng.normal(size=40)
    data = pd.DataFrame(dict(y=y, x=x, g=g))
    fit, without = (
        quiet_fit(f"y ~ x + {term}", data, method="ML") for term in ("(1 + x | g)", "(1 | g)")
    )
    cap = np.sqrt(without.deviance - fit.deviance)
    assert cap < 1.959964
    table = fit.confint("profile", parm="theta_")
    assert table.loc["cor_x.(Intercept)|g"].tolist() == [-1.0, 1.0]
    assert table.loc["sd_x|g", "lower"] == 0.0
    curve = fit.profile("cor_x.(Intercept)|g")
    assert set(curve["parameter"]) == {"cor_x.(Intercept)|g"}
    assert_allclose(curve["zeta"].abs().max(), cap, rtol=1e-5)
