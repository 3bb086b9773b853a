"""Correlations of repeated measurements against their definitions."""

import numpy as np
import pytest
from helpers.arrays import quick_jit
from numpy.testing import assert_allclose
from scipy.linalg import toeplitz

from interlace_jax.numerics.covariance import correlations
from interlace_jax.runtime import calls

PARTIAL = np.array([0.6, -0.3, 0.2])

_autocorrelations = quick_jit(correlations.autocorrelations)
_partial = quick_jit(correlations.partial_autocorrelations)


def test_partial_correlations_are_those_given_the_visits_between():
    r = calls.run(_autocorrelations, PARTIAL)
    assert r[0] == 1.0
    for lag in range(1, 4):
        precision = np.linalg.inv(toeplitz(r[: lag + 1]))
        given_others = -precision[0, lag] / np.sqrt(precision[0, 0] * precision[lag, lag])
        assert_allclose(given_others, PARTIAL[lag - 1], rtol=1e-10)


def test_correlations_lead_back_to_the_partial_ones():
    assert_allclose(calls.run(_partial, calls.run(_autocorrelations, PARTIAL)), PARTIAL, rtol=1e-10)


def _correlation(structure, x, k):
    return calls.run(quick_jit(lambda x: structure.correlation(x, k)), x)


@pytest.mark.parametrize(
    "structure",
    [correlations.FreeCorrelations(), correlations.Toeplitz(), correlations.Antedependence()],
)
def test_numbers_of_a_correlation_matrix_give_it_back(structure):
    k = 4
    x = np.linspace(-0.7, 0.8, len(structure.shape_names(k)))
    C = _correlation(structure, x, k)
    assert_allclose(np.diagonal(C), 1.0)
    assert np.linalg.eigvalsh(C)[0] > 0
    assert_allclose(calls.run(quick_jit(lambda C: structure.near(C, k)), C), x, rtol=1e-8)


def test_antedependence_is_the_product_of_neighbours():
    rho = np.array([0.5, -0.4, 0.8])
    C = _correlation(correlations.Antedependence(), np.arctanh(rho), 4)
    for i in range(4):
        for j in range(i + 1, 4):
            assert_allclose(C[i, j], np.prod(rho[i:j]), rtol=1e-10)


def test_a_mean_by_lag_is_over_pairs_of_visits():
    C = np.array([[1.0, 0.2, 0.5], [0.2, 1.0, 0.4], [0.5, 0.4, 1.0]])
    found = calls.run(quick_jit(lambda C: correlations.mean_by_lag(C, 3)), C)
    assert_allclose(found, [1.0, 0.3, 0.5])
