"""Tables of many fits and their labels."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.many.fits import with_labels


@cache
def _data() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": np.repeat(np.arange(12), 6), "x": np.tile(np.arange(6.0), 12)})
    return frame, rng.normal(size=(72, 4)) + rng.normal(size=12)[frame["g"]][:, None]


def _many(columns) -> interlace.Many:
    frame, Y = _data()
    return interlace.fit_many("~ x + (1 | g)", frame, responses=pd.DataFrame(Y, columns=columns))


def test_labels_of_several_levels_name_a_model_whole():
    columns = pd.MultiIndex.from_product([["Fz", "Cz"], [1, 2]], names=["channel", "time"])
    many = _many(columns)
    assert_allclose(many["Cz", 1].fe_params, many.fe_params.loc[("Cz", 1)], rtol=1e-5)
    for part in ("Cz", ("Cz",), ("Cz", 3), slice(None), None, [("Cz", 1)]):
        with pytest.raises(
            ValueError, match="there is no model .*; the labels are \\('Fz', 1\\), "
        ):
            many[part]
    assert list(many.to_frame())[:3] == ["channel", "time", "coefficient"]
    unnamed = _many(columns.set_names([None, None])).to_frame()
    assert list(unnamed)[:3] == ["model_1", "model_2", "coefficient"]
    assert_allclose(unnamed["estimate"], many.fe_params.to_numpy().ravel())


def test_a_day_is_no_label_of_its_hours():
    many = _many(pd.date_range("2024-01-01", periods=4, freq="12h"))
    with pytest.raises(ValueError, match="there is no model '2024-01-01'"):
        many["2024-01-01"]
    assert many[pd.Timestamp("2024-01-01 12:00")].nobs == 72


def test_labels_must_tell_models_apart():
    with pytest.raises(
        ValueError, match="responses has 'a' more than once: a label stands for one model"
    ):
        _many(["a", "b", "a", "c"])
    with pytest.raises(ValueError, match="responses has no columns"):
        frame, Y = _data()
        interlace.fit_many("~ x + (1 | g)", frame, responses=pd.DataFrame(Y[:, :0]))


def test_labels_stand_in_front_under_a_name_of_their_own():
    table = pd.DataFrame({"t": [1.0, 2.0]})
    assert list(with_labels(table, pd.Index(["a", "b"], name="t"))) == ["model", "t"]
    assert list(with_labels(table, pd.Index(["a", "b"], name="gene"))) == ["gene", "t"]
    assert list(with_labels(table, pd.Index(["a", "b"]))) == ["model", "t"]
