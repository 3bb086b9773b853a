"""Numbers as papers print them."""

import numpy as np
import pytest

from interlace_jax.reporting.numbers import decimals, degrees, interval, p_value, shown


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0004, "<.001"), (0.0006, ".001"), (0.0466, ".047"), (0.9996, "1.000"), (np.nan, "")],
)
def test_p_values_have_three_decimals(p, text):
    assert p_value(p) == text


def test_numbers_have_the_decimals_of_their_standard_errors():
    assert [decimals(se) for se in (300.0, 6.8, 0.15, 0.012, 0.0, np.nan)] == [2, 2, 2, 3, 2, 2]
    assert shown(-0.001, 2) == "0.00" and shown(np.nan, 2) == "" and shown(1.5e8, 2) == "1.50e+08"
    assert shown(3.2e-9, 10) == "3.20e-09"
    assert interval(-1.0, 2.0, 2) == "[-1.00, 2.00]" and interval(np.nan, 2.0, 2) == ""
    assert degrees(np.inf) == "Inf" and degrees(17.04) == "17.0"
