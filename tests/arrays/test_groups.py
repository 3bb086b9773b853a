"""Groups by name, codes that are traced, and what is refused in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from helpers.arrays import quick_jit
from helpers.differentiable import groups as listed
from numpy.testing import assert_allclose

import interlace_jax as interlace

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("kind", ["nested_crossed", "independent"])
def test_traced_codes_give_the_deviance_of_known_ones(kind):
    problem = oracle.random_design(1, kind)
    theta = oracle.random_theta(problem, 1)
    names = [f"f{i}" for i in range(len(problem.factors))]
    rest = {
        name: (f.Z, tuple(map(len, f.terms)))
        for name, f in zip(names, problem.factors, strict=True)
    }
    nested = {"f0": "f2"} if kind == "nested_crossed" else None
    levels = {
        name: f.m + 1 for name, f in zip(names, problem.factors, strict=True)
    }  # one that has no rows
    traces = []

    @quick_jit
    def value_and_effects(codes, theta):
        traces.append(None)
        by_name = {name: (codes[name], *rest[name]) for name in names}
        m = interlace.moments(problem.y, problem.X, by_name, levels=levels, nested=nested)
        return interlace.deviance(theta, m), interlace.random_effects(theta, m)

    codes = {name: f.codes for name, f in zip(names, problem.factors, strict=True)}
    found, effects = value_and_effects(codes, theta)
    value_and_effects(
        {name: f.m - 1 - f.codes for name, f in zip(names, problem.factors, strict=True)}, theta
    )
    assert len(traces) == 1
    assert_allclose(found, oracle.deviance(problem, theta, True), rtol=1e-10)
    m = interlace.moments(problem.y, problem.X, listed(problem, [f.Z for f in problem.factors]))
    for name, f, b in zip(
        names, problem.factors, quick_jit(interlace.random_effects)(theta, m), strict=True
    ):
        assert_allclose(effects[name][: f.m], b, rtol=1e-7, atol=1e-9)
        assert_allclose(effects[name][f.m], 0.0, atol=1e-12)


G, X, Y = np.array([0, 0, 1, 1, 2, 2]), np.ones((6, 1)), np.arange(6.0) ** 2


@pytest.fixture(scope="module")
def by_name():
    """Moments by name, and an estimate."""
    with jax.enable_x64(True):
        m = interlace.moments(Y, X, {"g": G})
        return m, quick_jit(interlace.estimate)(m)


def test_names_come_back(by_name):
    m, e = by_name
    unnamed = interlace.moments(Y, X, [(G, X)])
    modes, spread = interlace.random_effects(e, m, with_variance=True)
    assert_allclose(modes["g"], interlace.random_effects(e.theta, unnamed)[0], rtol=1e-9)
    # With one effect a level: sigma^-2 Cov = (n_j + theta^-2)^-1.
    assert_allclose(spread["g"][:, 0, 0], np.full(3, 1 / (2 + float(e.theta[0]) ** -2)), rtol=1e-9)
    rows = interlace.predict(e, m, X, {"g": G})
    assert_allclose(rows, interlace.predict(e, unnamed, X, [(G, X)]), rtol=1e-9)


def test_the_log_likelihood_is_minus_half_the_deviance(by_name):
    m, _ = by_name
    found = interlace.log_likelihood([0.7], m, reml=False, sigma=1.2)
    assert_allclose(found, -0.5 * interlace.deviance([0.7], m, False, sigma=1.2), rtol=1e-14)


def test_rows_of_traced_codes_that_no_level_has_are_left_out():
    r, codes = np.append(Y, np.nan), np.append(G, -1)
    deviance = quick_jit(
        lambda c: interlace.deviance(
            [0.7], interlace.moments(r, jnp.ones((7, 1)), {"g": c}, levels={"g": 3})
        )
    )
    expected = interlace.deviance([0.7], interlace.moments(Y, X, {"g": G}))
    assert_allclose(deviance(codes), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"Z of groups\['g'\] has shape \(6,\); .*leave Z out",
            lambda: interlace.moments(Y, X, {"g": (G, Y)}),
        ),
        (
            ValueError,
            r"levels=\{'g': 2\}, but codes reach 2: .* at least 3",
            lambda: interlace.moments(Y, X, {"g": G}, levels={"g": 2}),
        ),
        (
            ValueError,
            "levels has 'h', but groups has 'g'",
            lambda: interlace.moments(Y, X, {"g": G}, levels={"h": 2}),
        ),
        (
            ValueError,
            "nested has 'h', but groups has 'g'",
            lambda: interlace.moments(Y, X, {"g": G}, nested={"g": "h"}),
        ),
        (
            ValueError,
            "'g' is said to lie in 'h', but its level 0 is in 0 and 1",
            lambda: interlace.moments(Y, X, {"g": G, "h": np.arange(6) % 2}, nested={"g": "h"}),
        ),
        (
            TypeError,
            r"traced: say how many levels there are, levels=\{'g': ...\}",
            lambda: jax.eval_shape(lambda c: interlace.moments(Y, X, {"g": c}), G),
        ),
        (
            TypeError,
            r"codes of groups\['g'\] are whole numbers",
            lambda: jax.eval_shape(lambda c: interlace.moments(Y, X, {"g": c}, levels={"g": 3}), Y),
        ),
        (
            ValueError,
            r"theta has shape \(2,\); .* 1 parameters: \(1,\), 1 of groups\['g'\]",
            lambda: interlace.deviance([1.0, 1.0], interlace.moments(Y, X, {"g": G})),
        ),
        (
            TypeError,
            r'groups is a ndarray; .*\{"subject": codes\}',
            lambda: interlace.moments(Y, X, G),
        ),
        (
            TypeError,
            "interlace_jax.moments makes of the rows, after theta",
            lambda: interlace.deviance(interlace.moments(Y, X, {"g": G}), np.ones(1)),
        ),
        (
            ValueError,
            "y is NaN or infinite in 1 rows, first in row 2: .* weight 0",
            lambda: interlace.moments(np.where(np.arange(6) == 2, np.nan, Y), X, {"g": G}),
        ),
        (
            ValueError,
            "weights must be 0 .* or positive",
            lambda: interlace.moments(Y, X, {"g": G}, weights=Y - Y.max()),
        ),
        (TypeError, "use fit.predict", lambda: interlace.predict(interlace.estimate)),
    ],
)
def test_what_does_not_fit_is_refused_in_words(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_other_names_than_those_of_the_moments_are_refused(by_name):
    m, e = by_name
    with pytest.raises(ValueError, match="groups has 'h', but the moments have 'g'"):
        interlace.predict(e, m, X, {"h": G})


def test_columns_of_x_that_depend_on_others_are_refused_or_missing():
    days = np.arange(6.0)
    wide = np.column_stack([np.ones(6), days, 2.0 - 3.0 * days])
    with pytest.raises(ValueError, match=r"columns \[2\] of X depend on those before them"):
        interlace.estimate(interlace.moments(Y, wide, {"g": G}))
    found = quick_jit(lambda X: interlace.estimate(interlace.moments(Y, X, {"g": G})))(wide)
    assert np.isnan(found.beta).all() and not found.converged
    far = np.column_stack([np.ones(6), 1e6 + days])  # as years are, and worse
    assert np.isfinite(
        quick_jit(interlace.estimate)(interlace.moments(Y, far, {"g": G})).beta
    ).all()
