"""A frame of many columns prints all of them, and is a frame otherwise."""

import pickle

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from interlace_jax.support.wide import WideFrame

PLAIN = pd.DataFrame(np.arange(33).reshape(3, 11) / 7.0, columns=[f"column_{j}" for j in range(11)])


@pytest.mark.parametrize("change", [lambda frame: frame, lambda frame: frame.head(2)])
def test_every_column_is_printed_within_the_width(change):
    with pd.option_context("display.max_columns", 0, "display.width", 80):
        assert "..." in repr(change(PLAIN))
        text = repr(change(WideFrame(PLAIN)))
    assert all(name in text for name in PLAIN)
    assert "..." not in text and max(map(len, text.splitlines())) <= 80


def test_what_fits_is_printed_as_pandas_prints_it():
    assert repr(WideFrame(PLAIN).iloc[:, :3]) == repr(PLAIN.iloc[:, :3])


def test_counts_beside_missing_ones_are_whole_in_print_and_floats_as_values():
    frame = WideFrame({"Chisq": [np.nan, 3.25], "Df": [np.nan, 2.0]})
    assert repr(frame).splitlines()[2].split() == ["1", "3.25", "2"]
    assert frame.to_numpy().dtype == float and frame["Df"].iloc[1] == 2.0


def test_it_is_pickled_with_its_values():
    assert_frame_equal(pickle.loads(pickle.dumps(WideFrame(PLAIN))), WideFrame(PLAIN))
