"""Principal components of random effects, and the certificate of a fit."""

import numpy as np
from helpers.fits import fitted
from numpy.testing import assert_allclose

from interlace_jax.models.optimum import principal_components


def test_components_are_eigenvalues_of_the_relative_covariance():
    Lam = np.array([[0.9, 0.0], [0.3, 0.4]])
    table = principal_components(Lam)
    assert_allclose(table["sd"] ** 2, np.linalg.eigvalsh(Lam @ Lam.T)[::-1])
    assert_allclose(table["proportion"].sum(), 1.0)


def test_without_variance_no_component_has_a_share():
    assert not principal_components(np.zeros((2, 2))).to_numpy().any()


def test_eigenvalues_of_the_hessian_increase_and_are_computed_once():
    optimum = fitted("sleepstudy_slope_REML").optimum
    values = optimum.hessian_eigenvalues
    assert (np.diff(values) >= 0).all() and values[0] > 0
    assert optimum.smallest_eigenvalue == values[0]
    assert optimum.hessian_eigenvalues is values
