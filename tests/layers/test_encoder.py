"""Labels to codes, columns to features."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from interlace_jax.layers.encoder import Encoder
from interlace_jax.layers.factors import Factors


@pytest.fixture
def frame():
    n = np.arange(24)
    return pd.DataFrame(
        {
            "x": n / 10,
            "school": [f"s{i % 2}" for i in n],
            "room": [f"r{i % 6}" for i in n],
            "day": n % 4,
        }
    )


def test_sizes_are_the_arguments_of_a_layer(frame):
    encode = Encoder("(1 + x | room) + (1 | school) + (1 | day)", frame)
    factors = Factors.of(**encode.sizes)
    assert factors == Factors.of(
        {"room": 6, "day": 4, "school": 2}, {"room": 1}, {"room": "school", "day": "school"}
    )
    assert Encoder("(1 + x || room)", frame).sizes["terms"] == {"room": (1, 1)}


def test_labels_have_codes_and_unseen_ones_are_less_than_none(frame):
    encode = Encoder("(1 + x | room) + (1 | school)", frame)
    new = pd.DataFrame({"x": [0.5, 1.5], "room": ["r5", "nowhere"], "school": ["s0", "s1"]})
    groups, features = encode(new)
    assert_array_equal(groups["room"], [5, -1])
    assert_array_equal(groups["school"], [0, 1])
    assert_array_equal(features["room"], [[0.5], [1.5]])
    assert list(features) == ["room"]


def test_what_a_layer_cannot_hold_is_refused_in_words(frame):
    with pytest.raises(
        ValueError, match="'room' have the columns .'x'.: a layer has one intercept"
    ):
        Encoder("(0 + x | room)", frame)
    with pytest.raises(ValueError, match="1 rows have missing values"):
        Encoder("(1 + x | room)", frame)(frame.assign(x=frame["x"].where(frame["x"] > 0)))
