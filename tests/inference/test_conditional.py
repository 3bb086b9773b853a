"""Predictions and intervals where residuals covary: against references and against the joint
normal distribution.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

FOLDER = Path(__file__).parents[1] / "reference" / "residual"
CASES = {"fev_us_arm_REML": "us(visit | id)", "fev_ar1_arm_REML": "ar1(visit | id)"}
every_case = pytest.mark.parametrize("name", CASES)


@cache
def case(name):
    return json.loads((FOLDER / "cases" / f"{name}.json").read_text())


@cache
def fit_and_data(name):
    given = case(name)
    frame = pd.read_csv(FOLDER / given["data"])
    return quiet_fit(given["fixed"], frame, method=given["method"], residual=CASES[name]), frame


@every_case
def test_visits_that_were_not_observed_are_predicted_as_the_references(name):
    fit, frame = fit_and_data(name)
    expected = pd.DataFrame(case(name)["exact"]["predictions_given_own_data"]).set_index("row")
    rows = frame.loc[expected.index]
    found = fit.predict(rows, include_residual=True, interval="prediction")
    assert_allclose(found["fit"], expected["prediction"], rtol=1e-6)
    assert_allclose(found["se"], expected["se"], rtol=1e-6)
    assert_allclose(fit.predict(rows, include_residual=True), expected["prediction"], rtol=1e-6)
    population = fit.predict(rows, interval="confidence")
    assert_allclose(population["fit"], expected["population"], rtol=1e-6)
    assert_allclose(population["se"], expected["population_se"], rtol=1e-6)


def dense(fit, frame, new, group):
    """Mean and variance of new rows given the rows of the fit, from whole matrices: (1 | group)
    and us residuals.
    """
    joined = pd.concat([frame.loc[fit.design.index], new], ignore_index=True)
    R = fit.residual_covariance
    same = joined["id"].to_numpy()[:, None] == joined["id"].to_numpy()
    V = R.loc[joined["visit"], joined["visit"]].to_numpy() * same
    Z = fit.variance_components[group] * (
        joined[group].to_numpy()[:, None] == joined[group].to_numpy()
    )
    n = fit.nobs
    X = np.column_stack([np.ones(len(joined)), joined["arm"] == "TRT"]).astype(float)
    return V, Z, X, n


@cache
def sites():
    """A random intercept of site around the subjects, whose visits covary freely."""
    frame = pd.read_csv(FOLDER / "data" / "fev.csv").query("id <= 'PT150'").reset_index(drop=True)
    frame["site"] = "s" + frame["id"].str[-1]
    frame.loc[frame["id"].isin(["PT1", "PT11"]), "fev"] += 3.0
    fit = quiet_fit("fev ~ arm + (1 | site)", frame, residual="us(visit | id)")
    new = frame[frame["fev"].isna()].iloc[[0, 3, 8]]
    stranger = pd.DataFrame({"id": ["new"], "site": ["s3"], "visit": ["VIS2"], "arm": ["TRT"]})
    return fit, frame, pd.concat([new, stranger], ignore_index=True)


@pytest.mark.parametrize("kind", ["own rows", "prediction", "confidence"])
def test_with_random_effects_it_is_the_joint_normal_distribution(kind):
    fit, frame, new = sites()
    V, Z, X, n = dense(fit, frame, new, "site")
    y = fit.design.y
    whole = V + Z
    Vi = np.linalg.inv(whole[:n, :n])
    Phi = np.linalg.inv(X[:n].T @ Vi @ X[:n])
    beta = Phi @ X[:n].T @ Vi @ y
    C = (whole if kind == "own rows" else Z)[n:, :n]
    a = X[n:] - C @ Vi @ X[:n]
    fitted = X[n:] @ beta + C @ Vi @ (y - X[:n] @ beta)
    own = np.diag(whole if kind == "own rows" else Z)[n:]
    variance = own - np.diag(C @ Vi @ C.T) + np.diag(a @ Phi @ a.T)
    if kind == "prediction":
        variance = variance + np.diag(V)[n:]
    arguments = (
        dict(include_residual=True, interval="prediction")
        if kind == "own rows"
        else dict(interval=kind)
    )
    found = fit.predict(new, **arguments)
    assert_allclose(found["fit"], fitted, rtol=1e-8)
    assert_allclose(found["se"], np.sqrt(variance), rtol=1e-8)
    assert (found["lower"] < found["fit"]).all()


def test_uncertainty_of_the_variances_widens_intervals():
    fit, _, new = sites()
    plain = fit.predict(new, include_residual=True, interval="prediction")
    wider = fit.predict(new, include_residual=True, interval="prediction", theta_uncertainty=True)
    assert (wider["se"] > plain["se"]).all()


def test_rows_of_the_fit_have_intervals_too():
    fit, frame, _ = sites()
    found = fit.predict(interval="prediction")
    again = fit.predict(frame.loc[fit.design.index], interval="prediction")
    assert_allclose(found, again, rtol=1e-10)
    assert_allclose(found["fit"], fit.fittedvalues, rtol=1e-8)


def test_what_is_known_or_unknown_is_refused():
    fit, frame = fit_and_data("fev_us_arm_REML")
    seen = frame.loc[fit.design.index[:1]]
    with pytest.raises(ValueError, match="its value is known, 39.97"):
        fit.predict(seen, include_residual=True)
    with pytest.raises(
        ValueError, match="'visit' has 'VIS9' in the new data, which the fit has not seen"
    ):
        fit.predict(seen.assign(visit="VIS9"), include_residual=True)
    with pytest.raises(ValueError, match="include_residual=True is for newdata"):
        fit.predict(include_residual=True)
    independent = quiet_fit("fev ~ arm + (1 | id)", frame)
    with pytest.raises(ValueError, match="include_residual=True needs residuals that covary"):
        independent.predict(seen, include_residual=True)
