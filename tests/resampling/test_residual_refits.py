"""Refits where residuals covary: deletions, folds and groups drawn anew are the fits of the rows
that they have.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax as interlace

FORMULA, RESIDUAL = "y ~ x", "csh(visit | id)"


@cache
def data():
    """20 subjects of 3 visits, some missing, rows in no order."""
    rng = np.random.default_rng(3)
    d = pd.DataFrame(
        {"id": np.repeat([f"s{i:02}" for i in range(20)], 3), "visit": np.tile(list("abc"), 20)}
    )
    d["x"] = rng.normal(size=60)
    d["y"] = (
        d["x"] + np.repeat(rng.normal(size=20), 3) + rng.normal(size=60) * np.tile([1, 1.5, 2], 20)
    )
    return d[rng.random(60) < 0.9].sample(frac=1.0, random_state=0).reset_index(drop=True)


@cache
def fit():
    return quiet_fit(FORMULA, data(), residual=RESIDUAL)


def test_deletions_are_the_fits_of_the_other_rows():
    f, d = fit(), data()
    by_subject, by_row = f.influence("id"), f.influence()
    assert by_row.attrs["failed"] == by_subject.attrs["failed"] == 0
    for found, less in [
        (by_subject.loc["s04"], d[d["id"] != "s04"]),
        (by_row.loc[7], d.drop(index=7)),
    ]:
        alone = quiet_fit(FORMULA, less, residual=RESIDUAL)
        change = (f.fe_params - alone.fe_params).to_numpy()
        cooksd = change @ np.linalg.solve(f.fe_cov, change) / 2
        assert_allclose(found["cooksd"], cooksd, rtol=1e-4, atol=1e-8)
        assert_allclose(found["dfbetas.x"], change[1] / alone.fe_bse["x"], rtol=1e-4, atol=1e-6)
        wanted = alone.structure["estimate"] / f.structure["estimate"] - 1
        assert_allclose(
            found[[f"rvc.{name}" for name in wanted.index]].astype(float),
            wanted,
            rtol=1e-3,
            atol=1e-5,
        )


def test_one_step_of_subjects_is_near_their_deletion():
    exact, step = (fit().influence("id", method) for method in ("exact", "onestep"))
    for name in ("dfbetas.Intercept", "dfbetas.x", "rvc.sigma2"):
        # First order leaves out what is of the order of the square of a deletion, one in twenty.
        assert (step[name] - exact[name]).abs().max() < 0.25 * exact[name].abs().max()


def test_a_fold_is_fit_and_predict():
    f, d = fit(), data()
    found = f.cross_val(cv="kfold-rows", k=4, seed=1)
    held = found.predictions.query("fold == 2")
    alone = quiet_fit(FORMULA, d.drop(index=held.index), residual=RESIDUAL)
    wanted = alone.predict(d.loc[held.index], interval="prediction")
    assert_allclose(held["predicted"], wanted["fit"], rtol=1e-5, atol=1e-7)
    assert_allclose(held["sd"], wanted["se"], rtol=1e-5)
    same = interlace.cross_val(FORMULA, d, residual=RESIDUAL, cv="kfold-rows", k=4, seed=1)
    assert_allclose(same.pooled, found.pooled, rtol=1e-8)


def test_folds_leave_out_subjects_unless_told_otherwise():
    assert list(fit().cross_val().folds.index) == sorted(data()["id"].unique())


def test_groups_drawn_anew_are_subjects_of_their_own():
    made = fit().bootstrap(2, seed=2, kind="cases")
    picks = np.random.default_rng(2).integers(0, 20, (2, 20))[1]
    ids = sorted(data()["id"].unique())
    drawn = pd.concat(
        [data()[data()["id"] == ids[i]].assign(id=f"d{k:02}") for k, i in enumerate(picks)]
    )
    alone = quiet_fit(FORMULA, drawn, residual=RESIDUAL)
    assert_allclose(
        made.estimates.loc[1, alone.parameters.index], alone.parameters, rtol=1e-4, atol=1e-6
    )


def test_power_is_of_designs_with_more_subjects():
    table = interlace.power(fit(), "x", [0.0, 2 * fit().fe_bse["x"]], {"id": 40}, nsim=40, seed=1)
    assert set(table["nobs"]) == {2 * len(data())}
    # Twice the subjects: 2 sqrt(2) standard errors, a power of 0.8; of 40 known to 0.2 at 3 SEs.
    assert abs(table["power"].iloc[1] - 0.8) < 0.2
    assert table["power"].iloc[0] < 0.2


def test_what_lies_across_subjects_is_no_group():
    crossed = quiet_fit(
        "y ~ x + (1 | item)", data().assign(item=lambda d: d.index % 5), residual="ar1(visit | id)"
    )
    with pytest.raises(ValueError, match="independent of each other"):
        crossed.jackknife()
    with pytest.raises(ValueError, match="residuals covary within 'id', which lie in several"):
        interlace.power(crossed, "x", 1.0, {"item": 8}, nsim=2)
