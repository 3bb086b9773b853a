"""Arrays with named dimensions go in by their names and come out on the same coordinates."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray
from helpers.fits import assert_same_effects
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace
from interlace_jax.doors.xarray import to_xarray
from interlace_jax.maps import neighbours

FORMULA = "~ x + (1 | s)"
CHANNELS, TIMES = ["Pz", "Cz", "Fz"], np.array([0.0, 0.1, 0.2, 0.3])


def _data() -> pd.DataFrame:
    s = np.repeat(np.arange(12), 5)
    return pd.DataFrame(
        {"s": s, "x": np.tile(np.arange(5.0), 12)},
    )


def _array(n=60) -> xarray.DataArray:
    rng = np.random.default_rng(3)
    Y = rng.normal(size=(n, 3, 4)) + rng.normal(size=(12, 3, 4))[np.arange(n) // 5 % 12]
    Y[:, 1, 2] += np.tile(np.arange(5.0), 12)[:n]
    Y[7, 0, 1] = np.nan
    return xarray.DataArray(
        Y, dims=("trial", "channel", "time"), coords=dict(channel=CHANNELS, time=TIMES)
    )


@cache
def _many() -> interlace.Many:
    return interlace.fit_many(FORMULA, _data(), responses=_array(), progress=False)


def test_models_are_labelled_by_the_coordinates_and_are_those_of_the_columns():
    by_columns = interlace.fit_many(
        FORMULA, _data(), responses=_array().to_numpy().reshape(60, 12), progress=False
    )
    assert _many().labels.names == ["channel", "time"]
    assert _many().labels.tolist() == [(c, t) for c in CHANNELS for t in TIMES]
    assert_same_effects(_many(), by_columns)
    assert_allclose(_many()["Cz", 0.2].fe_params, _many().fe_params.loc[("Cz", 0.2)], rtol=1e-6)


def test_the_order_of_dimensions_does_not_matter_nor_do_chunks():
    for array in (_array().transpose("channel", "trial", "time"), _array().chunk(time=2)):
        many = interlace.fit_many(FORMULA, _data(), responses=array, progress=False)
        assert_same_effects(many, _many())


def test_rows_with_labels_are_aligned_with_the_data():
    data = _data().set_axis(np.arange(100, 160))
    order = np.random.default_rng(0).permutation(60)
    array = _array().assign_coords(trial=np.arange(100, 160)).isel(trial=order)
    many = interlace.fit_many(FORMULA, data, responses=array, progress=False)
    assert_same_effects(many, _many())


def test_weights_have_the_same_dimensions():
    weights = xarray.ones_like(_array()).transpose("time", "channel", "trial")
    many = interlace.fit_many(
        FORMULA, _data(), responses=_array(), weights=3.0 * weights, progress=False
    )
    assert_allclose(many.fe_params, _many().fe_params, rtol=1e-5)


def test_a_dimension_of_rows_that_is_not_there_or_not_alone_is_refused():
    with pytest.raises(ValueError, match="'channel': 3, 'time': 4.* the data have 60 rows"):
        interlace.fit_many(FORMULA, _data(), responses=_array(20))
    twice = xarray.DataArray(np.zeros((60, 60)), dims=("trial", "voxel"))
    with pytest.raises(ValueError, match="2 dimensions of 60.* rename that of the rows to 'row'"):
        interlace.fit_many(FORMULA, _data(), responses=twice)


def test_results_come_back_on_the_coordinates_in_their_order():
    found = to_xarray(_many())
    assert dict(found.sizes) == dict(channel=3, time=4, coefficient=2)
    assert found["channel"].values.tolist() == CHANNELS
    assert found.attrs == dict(formula=FORMULA, method="REML", df_method="satterthwaite")
    for name, frame in dict(estimate="fe_params", se="fe_bse", p="fe_pvalues").items():
        expected = getattr(_many(), frame)["x"].loc[("Cz", 0.2)]
        assert found[name].sel(channel="Cz", time=0.2, coefficient="x") == expected
    assert found["nobs"].dtype == int and found["nobs"].values.min() == 59
    assert found["converged"].dtype == bool and found["converged"].all()
    assert_array_equal(found["sigma"].values.ravel(), _many().sigma)
    assert (found["status"] == "converged").all()


def test_every_table_becomes_a_dataset():
    many = _many()
    test = to_xarray(many, many.test("x, Intercept", joint=False))
    assert test["t"].dims == ("channel", "time", "hypothesis")
    anova = to_xarray(many, many.anova())
    assert anova["F value"].dims == ("channel", "time", "term")
    clusters = many.clusters("x", neighbours.product(np.ones((3, 3)), 4), n=99, seed=1)
    nodes = to_xarray(many, clusters.nodes)
    assert_array_equal(nodes["p"].values.ravel(), clusters.nodes["p"])
    means = to_xarray(many, many.emmeans("x", at={"x": [1.0, 3.0]}).frame, keys=["x"])
    assert means["emmean"].sel(channel="Cz", time=0.2, x=3.0) > means["emmean"].sel(
        channel="Cz", time=0.2, x=1.0
    )


def test_what_a_table_lacks_is_missing():
    table = _many().test("x").iloc[1:]
    found = to_xarray(_many(), table)
    assert dict(found.sizes) == dict(channel=3, time=4, hypothesis=1)
    assert np.isnan(found["t"]).sum() == 1


def test_tables_that_are_not_told_apart_are_refused():
    with pytest.raises(ValueError, match="several rows for the same channel, time: say by keys="):
        to_xarray(_many(), _many().emmeans("x", at={"x": [1.0, 3.0]}).frame)
    with pytest.raises(ValueError, match="which is not what the models are called"):
        to_xarray(_many(), _many().fe_params)


def test_plain_columns_have_one_dimension():
    many = interlace.fit_many(FORMULA, _data(), responses=_array().to_numpy()[:, 0])
    assert to_xarray(many)["t"].dims == ("model", "coefficient")
