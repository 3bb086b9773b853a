"""Responses are those that were fitted, whatever becomes of the user's buffer or file."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from interlace_jax.many import columns
from interlace_jax.many.columns import Columns, matrix_of_numbers


def _values():
    return np.random.default_rng(0).normal(size=(7, 5))


def test_a_small_array_is_copied():
    Y = _values()
    kept = Columns.snapshot(Y)
    before = kept.read(0, 5).copy()
    Y[:] = 0
    assert_array_equal(kept.read(0, 5), before)


@pytest.mark.parametrize("new", [[1.0, 2.0, 9.0], [2.0, 1.0, 3.0]])
def test_a_column_of_a_large_array_that_changed_is_refused(monkeypatch, new):
    monkeypatch.setattr(columns, "COPIED", 0)
    Y = _values()
    Y[:3, 2] = 1.0, 2.0, 3.0
    kept = Columns.snapshot(Y)
    kept.read(1, 4)
    Y[:3, 2] = new
    assert_array_equal(kept.read(3, 5), Y[:, 3:])
    with pytest.raises(ValueError, match="columns 2 have changed since they were fitted"):
        kept.read(2, 3)


def test_a_file_is_read_not_copied_and_watched(tmp_path):
    np.save(tmp_path / "Y.npy", _values())
    Y = np.load(tmp_path / "Y.npy", mmap_mode="r+")
    kept = Columns.snapshot(Y[:, 1:])
    kept.read(0, 2)
    Y[0, 1] += 1
    with pytest.raises(ValueError, match="columns 0 have changed"):
        kept.read(0, 1)


def test_values_that_are_not_finite_are_compared_too():
    Y = _values()
    Y[0, 0] = np.nan
    kept = Columns(Y)
    kept.read(0, 5)
    kept.read(0, 5)
    Y[0, 0] = np.inf
    with pytest.raises(ValueError, match="changed"):
        kept.read(0, 1)


def test_complex_numbers_are_no_responses():
    with pytest.raises(
        ValueError, match="responses must be numbers: these are complex; take their real part"
    ):
        matrix_of_numbers(_values() + 1j, "responses")


def test_integers_are_read_as_floats():
    assert Columns(np.arange(6).reshape(3, 2)).read(0, 1).dtype == np.float64
