"""Scans over predictors: the textbook's projections, exact fits of the best, and columns that
tell nothing.
"""

from functools import cache

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow.dataset
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
    frame["sloped"] = frame["y"] + rng.normal(size=20)[g] * frame["age"]
    return frame, G


@cache
def _scan(formula=FORMULA, method="REML", weights=None) -> Scan:
    frame, G = _data()
    return interlace.fit_many(formula, frame, predictors=G, method=method, weights=weights)


def _textbook(V, theta, X, x, y, reml=True):
    """Estimate, SE and df of a candidate x beside X by dense matrices, with the variances V(theta)
    of the model without it: df by differences of log SE^2 and of the profiled deviance.
    """
    n, p = X.shape

    def solved(theta, X):
        inverse = np.linalg.inv(V(theta))
        A = X.T @ inverse @ X
        beta = np.linalg.solve(A, X.T @ inverse @ y)
        return beta, (y - X @ beta) @ inverse @ (y - X @ beta), A

    def deviance(theta):
        _, squares, A = solved(theta, X)
        adjusted = np.linalg.slogdet(A)[1] if reml else 0.0
        return np.linalg.slogdet(V(theta))[1] + adjusted + (n - p * reml) * np.log(squares)

    degrees = n - p - 1 if reml else n

    def log_variance(theta):
        _, squares, A = solved(theta, np.column_stack([X, x]))
        return np.log(squares / degrees * np.linalg.inv(A)[p, p])

    steps = 1e-3 * np.eye(len(theta))

    def slopes(function):
        return lambda at: np.array([(function(at + s) - function(at - s)) / 2e-3 for s in steps])

    g, H = slopes(log_variance)(theta), slopes(slopes(deviance))(theta)
    df = 2.0 / (g @ np.linalg.solve(H / 2.0, g) + 2.0 / degrees)
    beta = solved(theta, np.column_stack([X, x]))[0]
    return beta[p], np.exp(log_variance(theta) / 2.0), df


def _assert_textbook(row, estimate, se, df):
    assert_allclose([row["estimate"], row["se"]], [estimate, se], rtol=1e-8)
    assert_allclose(row["df"], df, rtol=2e-4)  # second differences
    assert_allclose(row["t"], estimate / se, rtol=1e-8)
    assert_allclose(row["p"], 2 * stats.t.sf(abs(row["t"]), row["df"]))


@pytest.mark.parametrize(
    ("formula", "method", "weights"),
    [
        (FORMULA, "REML", None),
        (FORMULA, "ML", "w"),
        ("sloped ~ age + (1 + age | g)", "REML", "w"),
    ],
)
def test_every_candidate_is_generalised_least_squares_at_the_null_variances(
    formula, method, weights
):
    found, (frame, G) = _scan(formula, method, weights), _data()
    w = np.ones(120) if weights is None else frame["w"].to_numpy()
    same = np.equal.outer(frame["g"].to_numpy(), frame["g"].to_numpy())
    X = np.column_stack([np.ones(120), frame["age"]])

    def V(theta):
        k = 1 if len(theta) == 1 else 2
        Lam = np.zeros((k, k))
        Lam.T[np.triu_indices(k)] = theta
        return np.diag(1 / w) + same * (X[:, :k] @ Lam @ Lam.T @ X[:, :k].T)

    y = frame[found.null.design.response].to_numpy()
    for j in (0, 3, 36):
        expected = _textbook(V, found.null.theta, X, G[:, j], y, method == "REML")
        _assert_textbook(found.table.loc[j], *expected)


def test_candidates_are_tested_beside_residuals_that_covary():
    frame, G = _data()
    frame = frame.assign(t=np.tile(np.arange(6), 20)).sample(frac=0.9, random_state=0)
    G = G[frame.index]
    given = dict(residual="ar1h(t | g)", weights="w")
    found = interlace.fit_many("y ~ age", frame, predictors=G, exact=1, **given)
    t, g, w, y = (frame[name].to_numpy() for name in ("t", "g", "w", "y"))
    apart = np.where(np.equal.outer(g, g), np.abs(np.subtract.outer(t, t)), np.inf)
    sds = found.null.residual_sd.to_numpy() * np.sqrt(w)
    first = sds[t == 0][0]
    theta = [sds[t == visit][0] / first for visit in range(1, 6)]
    theta = np.array([found.null.residual_correlation.loc[0, 1], *theta])

    def V(theta):
        sd = np.append(1.0, theta[1:])[t] / np.sqrt(w)
        return theta[0] ** apart * np.outer(sd, sd)

    X = np.column_stack([np.ones(len(frame)), frame["age"]])
    for j in found.table.index[found.table["status"] == "null variances"][[3, -1]]:
        _assert_textbook(found.table.loc[j], *_textbook(V, theta, X, G[:, j], y))
    (best,) = found.table.index[found.table["status"] == "exact"]
    fit = quiet_fit("y ~ age + x", frame.assign(x=G[:, best]), **given)
    expected = [fit.fe_params["x"], fit.fe_bse["x"], fit.fe_df["x"]]
    assert_allclose(found.table.loc[best, ["estimate", "se", "df"]].astype(float), expected, 1e-5)


def test_degrees_of_freedom_are_those_of_exact_fits_where_a_candidate_explains_little():
    frame, G = _data()
    for j in (3, 38):  # within and between groups
        fit = quiet_fit("y ~ age + x + (1 | g)", frame.assign(x=G[:, j]))
        assert_allclose(_scan().table.loc[j, "df"], fit.fe_df["x"], rtol=0.06)


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


@pytest.mark.parametrize("opened", [str, pyarrow.dataset.dataset])
def test_columns_of_a_parquet_file_are_candidates_by_name(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(interlace.maps.scan, "BLOCK", 16)  # three chunks
    frame, G = _data()
    columns = pd.DataFrame(G, columns=[f"rs{j}" for j in range(40)])
    columns["rs2"] = columns["rs2"].astype("Int8").mask(np.arange(120) == 5)
    path = tmp_path / "G.parquet"
    columns.to_parquet(path, row_group_size=50)
    found = interlace.fit_many(FORMULA, frame, predictors=opened(path), exact=1).table
    holes = columns.astype(float)
    expected = interlace.fit_many(FORMULA, frame, predictors=holes, exact=1).table
    pd.testing.assert_frame_equal(found, expected)
    assert found["imputed"]["rs2"] == 1 and found.index.name == "predictor"


def test_files_without_numbers_or_that_are_not_there_are_refused(tmp_path):
    frame, _ = _data()
    frame.assign(who="a").to_parquet(tmp_path / "G.parquet")
    with pytest.raises(TypeError, match="leave 'who' out of the file"):
        interlace.fit_many(FORMULA, frame, predictors=tmp_path / "G.parquet")
    with pytest.raises(ValueError, match="no file"):
        interlace.fit_many(FORMULA, frame, predictors="nowhere.parquet")


def test_rows_left_out_of_the_fit_are_left_out_of_the_candidates():
    frame, G = _data()
    holes = frame.assign(age=frame["age"].where(np.arange(120) % 9 != 4))
    table = interlace.fit_many(FORMULA, holes, predictors=G[:, :3]).table
    kept = np.arange(120) % 9 != 4
    expected = interlace.fit_many(FORMULA, frame[kept], predictors=G[kept, :3]).table
    assert_allclose(table["t"], expected["t"], rtol=1e-5)


def _near(distance, log_length):
    return jnp.exp(-distance / jnp.exp(log_length))


@pytest.mark.parametrize("free", [False, True])
def test_levels_that_covary_and_files_in_single_precision(tmp_path, free):
    frame, G = _data()
    np.save(tmp_path / "G.npy", G.astype(np.float32))
    places = np.arange(20.0)
    distance, Z = abs(places[:, None] - places), np.equal.outer(frame["g"].to_numpy(), places)
    known = interlace.Known(np.asarray(_near(distance, 1.0)))
    kernel = interlace.Kernel(lambda D, length: _near(D, jnp.log(length)), distance, {"length": 3})
    smooth = np.linalg.cholesky(known.K) @ np.random.default_rng(3).normal(size=20)
    frame = frame.assign(y=frame["y"] + 1.5 * Z @ smooth)
    mapped = np.load(tmp_path / "G.npy", mmap_mode="r")
    cov = {"g": kernel if free else known}
    found = interlace.fit_many(FORMULA, frame, predictors=mapped, cov=cov)

    def V(theta):
        K = np.exp(-distance / np.exp(theta[1])) if free else known.K
        return np.eye(120) + theta[0] ** 2 * Z @ (K + 1e-8 * free * np.eye(20)) @ Z.T

    X = np.column_stack([np.ones(120), frame["age"]])
    x, y = G[:, 36].astype(np.float32), frame["y"].to_numpy()
    _assert_textbook(found.table.loc[36], *_textbook(V, found.null.theta, X, x, y))


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
