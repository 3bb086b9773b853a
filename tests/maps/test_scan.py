"""Scans over predictors: the textbook's projections, exact fits of the best, and columns that
tell nothing.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace
from interlace_jax.maps.scan import Scan

FORMULA = "y ~ age + (1 | g)"


@cache
def _data() -> tuple[pd.DataFrame, np.ndarray]:
    """Twenty groups of six; forty candidates, the last five properties of groups; effects of 0,
    7 and 36.
    """
    rng, g = np.random.default_rng(2), np.repeat(np.arange(20), 6)
    G = rng.binomial(2, 0.4, (120, 40)).astype(float)
    G[:, 35:] = rng.normal(size=(20, 5))[g]
    frame = pd.DataFrame({"g": g, "age": rng.normal(size=120), "w": rng.uniform(0.5, 2, 120)})
    frame["y"] = (
        0.5 * G[:, 0]
        + 0.7 * G[:, 7]
        + 0.4 * G[:, 36]
        + rng.normal(size=20)[g]
        + rng.normal(size=120)
    )
    return frame, G


@cache
def _scan(method="REML", weights=None) -> Scan:
    frame, G = _data()
    return interlace.fit_many(FORMULA, frame, predictors=G, method=method, weights=weights)


@pytest.mark.parametrize(("method", "weights"), [("REML", None), ("REML", "w"), ("ML", None)])
def test_every_candidate_is_generalised_least_squares_at_the_null_variances(method, weights):
    found, (frame, G) = _scan(method, weights), _data()
    w = np.ones(120) if weights is None else frame["w"].to_numpy()
    same = np.equal.outer(frame["g"].to_numpy(), frame["g"].to_numpy())
    inverse = np.linalg.inv(np.diag(1 / w) + float(found.null.theta[0]) ** 2 * same)
    for j in (0, 3, 36):
        X = np.column_stack([np.ones(120), frame["age"], G[:, j]])
        A = X.T @ inverse @ X
        beta = np.linalg.solve(A, X.T @ inverse @ frame["y"])
        r = frame["y"] - X @ beta
        sigma2 = r @ inverse @ r / (117 if method == "REML" else 120)
        se = np.sqrt(sigma2 * np.linalg.inv(A)[2, 2])
        row = found.table.loc[j]
        assert_allclose(
            [row["estimate"], row["se"], row["t"]], [beta[2], se, beta[2] / se], rtol=1e-8
        )
        assert_allclose(row["p"], 2 * stats.t.sf(abs(row["t"]), row["df"]))


def test_candidates_are_tested_beside_residuals_that_covary():
    frame, G = _data()
    frame = frame.assign(t=np.tile(np.arange(6), 20)).sample(frac=0.9, random_state=0)
    G = G[frame.index]
    given = dict(residual="ar1h(t | g)", weights="w")
    found = interlace.fit_many("y ~ age", frame, predictors=G, exact=1, **given)
    t, g, w = (frame[name].to_numpy() for name in ("t", "g", "w"))
    rho = found.null.residual_correlation.loc[0, 1]
    sd = found.null.residual_sd.to_numpy()
    V = np.where(np.equal.outer(g, g), rho ** np.abs(np.subtract.outer(t, t)), 0.0)
    inverse = np.linalg.inv(V * np.outer(sd, sd))
    n = len(frame)
    for j in found.table.index[found.table["status"] == "null variances"][[3, 20, -1]]:
        X = np.column_stack([np.ones(n), frame["age"], G[:, j]])
        A = X.T @ inverse @ X
        beta = np.linalg.solve(A, X.T @ inverse @ frame["y"])
        r = frame["y"] - X @ beta
        se = np.sqrt(r @ inverse @ r / (n - 3) * np.linalg.inv(A)[2, 2])
        row = found.table.loc[j]
        assert_allclose([row["estimate"], row["se"]], [beta[2], se], rtol=1e-8)
        # 20 subjects less the intercept and the candidate
        assert row["df"] == (18 if j >= 35 else n - 3)
    (best,) = found.table.index[found.table["status"] == "exact"]
    fit = quiet_fit("y ~ age + x", frame.assign(x=G[:, best]), **given)
    expected = [fit.fe_params["x"], fit.fe_bse["x"], fit.fe_df["x"]]
    assert_allclose(found.table.loc[best, ["estimate", "se", "df"]].astype(float), expected, 1e-5)


def test_degrees_of_freedom_are_those_of_the_level_at_which_a_candidate_varies():
    df = _scan().table["df"]
    # 20 groups less the intercept and the candidate
    assert (df[:35] == 117).all() and (df[35:] == 18).all()


def test_the_best_are_fitted_exactly_on_request():
    frame, G = _data()
    found = interlace.fit_many(FORMULA, frame, predictors=G, exact=3)
    exact = found.table[found.table["status"] == "exact"]
    assert set(exact.index) == set(_scan().table["p"].nsmallest(3).index)
    for j, row in exact.iterrows():
        fit = quiet_fit("y ~ age + x + (1 | g)", frame.assign(x=G[:, j]))
        expected = [fit.fe_params["x"], fit.fe_bse["x"], fit.fe_df["x"], fit.fe_pvalues["x"]]
        assert_allclose(row[["estimate", "se", "df", "p"]].astype(float), expected, rtol=2e-3)
    others = found.table["status"] != "exact"
    assert_allclose(found.table.loc[others, "t"], _scan().table.loc[others, "t"])
    assert "3 fitted exactly" in repr(found) and len(found.top(4)) == 4


def test_candidates_that_say_nothing_new_have_no_test():
    frame, G = _data()
    G = np.column_stack([np.ones(120), 2 * frame["age"] + 1, G[:, 0]])
    table = interlace.fit_many(FORMULA, frame, predictors=G).table
    assert table["t"].isna().tolist() == [True, True, False]
    assert table["status"][0] == "depends linearly on the fixed effects"


def test_missing_values_get_the_mean_and_are_counted():
    frame, G = _data()
    holes = G[:, :2].copy()
    holes[[3, 50], 0] = np.nan
    table = interlace.fit_many(
        FORMULA, frame, predictors=pd.DataFrame(holes, columns=["rs1", "rs2"])
    ).table
    filled = np.where(np.isnan(holes), np.nanmean(holes, 0), holes)
    expected = interlace.fit_many(FORMULA, frame, predictors=filled).table
    assert table["imputed"].tolist() == [2, 0] and list(table.index) == ["rs1", "rs2"]
    assert_allclose(table["t"], expected["t"])


def test_rows_left_out_of_the_fit_are_left_out_of_the_candidates():
    frame, G = _data()
    holes = frame.assign(age=frame["age"].where(np.arange(120) % 9 != 4))
    table = interlace.fit_many(FORMULA, holes, predictors=G[:, :3]).table
    kept = np.arange(120) % 9 != 4
    expected = interlace.fit_many(FORMULA, frame[kept], predictors=G[kept, :3]).table
    assert_allclose(table["t"], expected["t"], rtol=1e-5)


def test_levels_that_covary_and_files_in_single_precision(tmp_path):
    frame, G = _data()
    L = np.tril(np.random.default_rng(0).normal(scale=0.2, size=(20, 20))) + np.eye(20)
    np.save(tmp_path / "G.npy", G.astype(np.float32))
    cov = {"g": interlace.Known(L @ L.T)}
    found = interlace.fit_many(
        FORMULA, frame, predictors=np.load(tmp_path / "G.npy", mmap_mode="r"), cov=cov
    )
    Z = np.equal.outer(frame["g"].to_numpy(), np.arange(20)).astype(float)
    inverse = np.linalg.inv(np.eye(120) + found.null.theta[0] ** 2 * Z @ L @ L.T @ Z.T)
    X = np.column_stack([np.ones(120), frame["age"], G[:, 7]])
    beta = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ frame["y"])
    assert_allclose(found.table["estimate"][7], beta[2], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(predictors=np.ones((119, 2))), "119 rows, but the data have 120"),
        (dict(predictors=np.ones((120, 2)), by="g"), "one of responses=, by= and predictors="),
        (dict(predictors=np.ones((120, 2)), exact=-1), "exact must be a whole number"),
        (dict(responses=np.ones((120, 2)), exact=3), "exact= belongs to predictors="),
    ],
)
def test_what_is_no_scan_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        interlace.fit_many(FORMULA, _data()[0], **arguments)
