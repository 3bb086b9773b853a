"""Labels beat positions."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from interlace_jax.design.alignment import in_order_of

DATA = pd.DataFrame({"x": range(4)}, index=list("dacb"))


def test_the_same_labels_in_another_order_are_aligned():
    series = pd.Series([1, 2, 3, 4], list("abcd"))
    assert in_order_of(DATA, series, "weights").tolist() == [4, 1, 3, 2]
    frame = pd.DataFrame({"y": series, "z": series * 10})
    assert in_order_of(DATA, frame, "responses")["z"].tolist() == [40, 10, 30, 20]


def test_a_default_index_says_nothing():
    assert in_order_of(DATA, pd.Series([1, 2, 3, 4]), "weights").tolist() == [1, 2, 3, 4]
    labelled = pd.Series([1, 2, 3, 4], list("wxyz"))
    assert in_order_of(DATA.reset_index(), labelled, "weights").tolist() == [1, 2, 3, 4]


def test_rows_that_were_shuffled_are_found_by_their_numbers():
    data = DATA.reset_index().iloc[[2, 0, 3, 1]]
    assert in_order_of(data, pd.Series([10, 11, 12, 13]), "weights").tolist() == [12, 10, 13, 11]


def test_what_has_no_labels_goes_by_position():
    values = np.arange(4)
    assert_array_equal(in_order_of(DATA, values, "weights"), values)
    assert in_order_of(DATA, [1, 2, 3, 4], "weights") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("abce", "'e' is not in that of the data"),
        ("aabd", "more than once|another order, and 'a' more than once"),
    ],
)
def test_other_labels_are_refused(labels, message):
    data = DATA if labels == "abce" else DATA.set_axis(list("abda"))
    with pytest.raises(
        ValueError, match=f"weights and the data have different indices \\(.*({message})"
    ):
        in_order_of(data, pd.Series(range(4), list(labels)), "weights")
