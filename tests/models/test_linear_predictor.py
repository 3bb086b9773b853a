"""X beta + Z b + offset, in rows of the fit and new ones."""

import numpy as np
from helpers.fits import fitted
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.models.linear_predictor import Rows, expected, fitted_values

B = [np.array([[1.0, 10.0], [2.0, 20.0]])]


def rows(**changes):
    given = dict(X=np.array([[1.0, 2.0]] * 3), Z=[np.ones((3, 2))], codes=[np.array([0, 1, -1])])
    return Rows(**(given | changes))


def test_levels_add_their_effects_and_unseen_ones_nothing():
    assert_array_equal(expected(rows(), np.array([3.0, 4.0]), B), [22.0, 33.0, 11.0])


def test_an_offset_is_added():
    offset = np.array([0.5, -0.5, 1.0])
    assert_array_equal(expected(rows(offset=offset), np.zeros(2), B), [11.5, 21.5, 1.0])


def test_many_coefficients_are_done_at_once():
    beta = np.array([[3.0, 0.0], [4.0, 1.0]])
    modes = [np.stack([B[0], 2.0 * B[0]], -1)]
    both = expected(rows(), beta, modes)
    for i in range(2):
        assert_allclose(both[:, i], expected(rows(), beta[:, i], [modes[0][..., i]]))


def test_what_is_missing_in_x_or_the_offset_cannot_be_predicted():
    X = np.array([[1.0, np.nan], [1.0, 2.0], [1.0, 2.0]])
    given = rows(X=X, offset=np.array([0.0, np.nan, 0.0]))
    assert_array_equal(given.missing, [True, True, False])


def test_rows_of_the_fit_have_its_fitted_values():
    fit = fitted("sleepstudy_slope_REML")
    found = fitted_values(fit.design, fit.estimate.beta, fit.mode_arrays)
    assert_allclose(found, fit.fittedvalues, rtol=1e-12)
    assert_allclose(fit.design.y - found, fit.resid, atol=1e-10)
