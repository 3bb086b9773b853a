"""Models with as many random effects as rows: when their residual variance means something."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import linalg, optimize

import interlace_jax as interlace
from interlace_jax.models.identifiability import is_confounded

FORMULA = "y ~ x + (0 + C(time) | s)"
MANY = FORMULA[2:]


def serial(seed, k=5, m=12, nugget=0.0, rho=0.7):
    """m subjects once at each of k times: AR(1) of SD 2, and a nugget."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(rho ** abs(np.subtract.outer(np.arange(k), np.arange(k))))
    s, time = (a.ravel() for a in np.indices((m, k)))
    b, x, e = (
        (rng.standard_normal((m, k)) @ root.T).ravel(),
        rng.standard_normal(m * k),
        rng.standard_normal(m * k),
    )
    return pd.DataFrame(
        {
            "y": 3 + x + 2 * b + nugget * e,
            "x": x,
            "time": time,
            "s": s,
            "w": np.linspace(1, 2, m * k),
        }
    )


def without_residual(frame, k):
    """REML deviance of V = s^2 R(rho), s^2 profiled, at its minimum, with rho, s and the
    coefficients.
    """
    X, y, m = (
        np.column_stack([np.ones(len(frame)), frame["x"]]),
        frame["y"].to_numpy(),
        len(frame) // k,
    )

    def parts(rho):
        R = np.kron(np.eye(m), rho ** abs(np.subtract.outer(np.arange(k), np.arange(k))))
        inverse = linalg.inv(R)
        XVX = X.T @ inverse @ X
        beta = linalg.solve(XVX, X.T @ inverse @ y)
        nu, r2 = len(y) - 2, (y - X @ beta) @ inverse @ (y - X @ beta)
        logdets = np.linalg.slogdet(R)[1] + np.linalg.slogdet(XVX)[1]
        return logdets + nu * (1 + np.log(2 * np.pi * r2 / nu)), np.sqrt(r2 / nu), beta

    rho = optimize.minimize_scalar(lambda rho: parts(rho)[0], bounds=(0, 0.99), method="bounded").x
    return rho, *parts(rho)


def test_a_residual_variance_of_zero_is_told_and_the_rest_is_the_model_without_residual():
    frame = serial(2)
    with pytest.warns(
        interlace.SingularFitWarning, match="residual standard deviation is estimated as 0.*theta"
    ):
        fit = interlace.fit(FORMULA, frame, cov={"s": interlace.AR1()})
    rho, deviance, sd, beta = without_residual(frame, 5)
    assert fit.is_singular and not fit.singular_terms
    # What is left of the residual is 3e-4 of the SD, and rounding in the deviance as large as 1e-4.
    assert_allclose(fit.deviance, deviance, rtol=0, atol=1e-3)
    assert_allclose(fit.structure.loc["rho|s", "estimate"], rho, atol=1e-3)
    assert_allclose(np.sqrt(fit.varcov.iloc[0, 0]), sd, rtol=1e-3)
    assert_allclose(fit.fe_params, beta, atol=1e-3)
    assert "residual standard deviation is estimated as 0" in str(fit.summary())


@pytest.mark.parametrize(("seed", "hole"), ((0, 20), (7, 3), (7, 20), (8, 3)))
def test_a_search_that_runs_off_ends_in_good_numbers_and_not_in_a_perfect_fit(seed, hole):
    frame = serial(seed)
    frame.loc[hole, "y"] = np.nan
    with pytest.warns(interlace.SingularFitWarning):
        fit = interlace.fit(FORMULA, frame, cov={"s": interlace.AR1()})
    assert fit.converged and fit.theta[0] < 1e5


def test_a_residual_that_the_data_determine_is_left_alone_however_small():
    i = np.arange(40)
    K = np.exp(-(np.subtract.outer(i, i) ** 2) / 50)  # so smooth that the noise stands out
    rng = np.random.default_rng(0)
    y = np.linalg.cholesky(K + 1e-9 * np.eye(40)) @ rng.standard_normal(
        40
    ) + 0.003 * rng.standard_normal(40)
    fit = interlace.fit(
        "y ~ 1 + (1 | i)", pd.DataFrame({"y": y, "i": i}), cov={"i": interlace.Known(K)}
    )
    assert 0.002 < fit.sigma < 0.004 and not fit.is_singular
    assert not interlace.fit(FORMULA, serial(6, nugget=0.5), cov={"s": interlace.AR1()}).is_singular


def test_a_residual_that_is_a_part_of_the_effects_is_told():
    with pytest.warns(
        interlace.SingularFitWarning, match="cannot be told from those of the random effects of 's'"
    ):
        fit = interlace.fit(FORMULA, serial(1), cov={"s": interlace.HomogeneousDiagonal()})
    assert_allclose(fit.model.deviance([0.3]), fit.model.deviance([3.0]), rtol=1e-12)
    twice = pd.concat([serial(1), serial(2)], ignore_index=True)
    assert not interlace.fit(FORMULA, twice, cov={"s": interlace.HomogeneousDiagonal()}).is_singular


KNOWN = np.exp(-abs(np.subtract.outer(np.arange(20), np.arange(20))) / 3)
CONFOUNDED = [
    (5, interlace.HomogeneousDiagonal(), True),
    (5, interlace.CompoundSymmetry(), True),
    (5, interlace.AR1(), False),
    (2, interlace.AR1(), True),  # one correlation and one variance: as many as two numbers can tell
    (2, interlace.CompoundSymmetry(heterogeneous=True), True),
    (5, interlace.CompoundSymmetry(heterogeneous=True), False),
    (1, interlace.Known(KNOWN), False),
    (1, interlace.Known(np.eye(20)), True),
    (2, (interlace.Unstructured(), interlace.Known(KNOWN)), False),
    (2, (interlace.Unstructured(), interlace.Known(np.eye(20))), True),
]


@pytest.mark.parametrize(("k", "structure", "expected"), CONFOUNDED)
def test_what_two_rows_or_levels_do_not_share_is_found_from_the_derivatives_of_v(
    k, structure, expected
):
    formula = FORMULA if k > 1 else "y ~ x + (1 | s)"
    design = interlace.compile(formula, serial(0, k=k, m=20), cov={"s": structure}).design
    assert is_confounded(design).tolist() == [expected]


def test_weights_that_differ_tell_the_residual_apart():
    arguments = dict(cov={"s": interlace.CompoundSymmetry()}, weights="w")
    assert is_confounded(interlace.compile(FORMULA, serial(0), **arguments).design).tolist() == [
        False
    ]


def test_all_of_many_models_that_share_a_confounded_design_are_told():
    frame, cov = serial(1), {"s": interlace.HomogeneousDiagonal()}
    with pytest.warns(
        interlace.SingularFitWarning, match="in all models the residual variance cannot be told"
    ) as caught:
        many = interlace.fit_many(MANY, frame, responses=["y", "w"], cov=cov)
    assert len(caught) == 1 and many.is_singular.all()


def test_of_many_models_those_without_a_residual_are_singular_as_each_is_alone():
    """Models with all rows, and with some missing: a hole may leave a design in which nothing
    tells the residual.
    """
    frame = serial(6, nugget=0.5).assign(
        none=serial(2)["y"], hole=serial(6, nugget=0.5)["y"], gap=serial(2)["y"]
    )
    frame.loc[3, ["hole", "gap"]] = np.nan
    many = interlace.fit_many(
        MANY, frame, responses=["y", "none", "hole", "gap"], cov={"s": interlace.AR1()}
    )
    assert many.is_singular.to_dict() == {"y": False, "none": True, "hole": False, "gap": True}
    for name in many:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert many[name].is_singular == many.is_singular[name]


def test_rows_that_are_left_may_be_confounded_though_all_are_not():
    pair = np.kron(np.eye(10), [[1.0, 0.5], [0.5, 1.0]])  # ten pairs of relatives
    frame = pd.DataFrame({"y": np.arange(20.0) ** 2 % 7, "id": np.arange(20)})
    design = interlace.compile("y ~ 1 + (1 | id)", frame, cov={"id": interlace.Known(pair)}).design
    used = np.array([np.ones(20), np.arange(20) % 2 == 0, np.arange(20) > 3], bool)
    assert is_confounded(design, used).tolist() == [False, True, False]


def test_groups_with_designs_of_their_own_are_told_each_for_itself():
    once, twice = serial(1), pd.concat([serial(1), serial(2)], ignore_index=True)
    frame = pd.concat([once.assign(site="a"), twice.assign(site="b")], ignore_index=True)
    many = interlace.fit_many(FORMULA, frame, by="site", cov={"s": interlace.HomogeneousDiagonal()})
    assert many.is_singular.to_dict() == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("terms", "per", "expected"),
    [
        ("(0 + f || s)", 1, True),
        ("(0 + a | s) + (0 + b | s)", 1, True),
        ("(0 + a | s) + (0 + b | copy)", 1, True),
        ("(1 | s) + (0 + f || s)", 1, True),
        ("(0 + f || s)", 2, False),
        ("(1 + x || s)", 1, False),
        # three variances, of rows of a, of b, and between them
        ("(1 | s) + (0 + a | copy)", 1, False),
        ("(1 | s) + (1 | crossed) + (1 | third)", 1, False),
    ],
)
def test_terms_without_correlations_may_hold_the_residual_too(terms, per, expected):
    """Rows of two kinds, one of each (or `per`) a subject: variances by kind add to that of the
    residual.
    """
    s, f = (np.tile(v.ravel(), per) for v in np.indices((12, 2)))
    rng = np.random.default_rng(3)
    rows = np.arange(len(s))
    frame = pd.DataFrame(
        {"s": s, "copy": s, "f": np.array(["a", "b"])[f], "a": 1.0 * (f == 0), "b": 1.0 * (f == 1)}
    )
    frame = frame.assign(
        x=rng.normal(size=len(s)), y=rng.normal(size=len(s)), crossed=rows % 7, third=rows % 5
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = interlace.compile(f"y ~ 1 + {terms}", frame)
    assert is_confounded(model.design)[0] == expected
