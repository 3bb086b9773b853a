"""R(psi) against matrices made entry by entry, and the correlations that it is made of."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from interlace_jax.numerics.covariance import correlations
from interlace_jax.numerics.covariance.residual import (
    Patterns,
    ResidualCovariance,
    precisions,
    reported,
)
from interlace_jax.numerics.covariance.structures import AR1, CompoundSymmetry

pytestmark = pytest.mark.usefixtures("x64")
K = 5
STRUCTURES = [
    AR1(),
    CompoundSymmetry(),
    correlations.FreeCorrelations(),
    correlations.Toeplitz(),
    correlations.Antedependence(),
    correlations.ARMA11(),
    correlations.Exponential(),
    correlations.SquaredExponential(),
    correlations.Matern(),
    correlations.Exponential(nugget=True),
]
every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)


def numbers(structure, seed=0, size=1.0):
    return jnp.asarray(
        size * np.random.default_rng(seed).normal(size=len(structure.shape_names(K)))
    )


@every_structure
def test_correlations_are_a_positive_definite_matrix_of_ones(structure):
    C = np.asarray(structure.correlation(numbers(structure), K))
    assert_allclose(np.diag(C), 1.0, rtol=1e-14)
    assert_allclose(C, C.T, rtol=1e-14)
    assert np.linalg.eigvalsh(C)[0] > 1e-8


@pytest.mark.parametrize("structure", STRUCTURES[:6], ids=lambda s: type(s).__name__)
def test_a_start_is_near_the_correlations_that_it_is_made_from(structure):
    """Exactly, where they are of the structure and not too steep (ARMA starts as an AR(1))."""
    x = numbers(structure, size=0.4)
    x = x.at[-1].set(0.0) if isinstance(structure, correlations.ARMA11) else x
    C = structure.correlation(x, K)
    assert_allclose(structure.correlation(structure.near(C, K), K), C, atol=1e-12)


def test_partial_autocorrelations_go_to_correlations_and_back():
    partial = jnp.array([0.5, -0.3, 0.7, 0.1])
    r = correlations.autocorrelations(partial)
    assert_allclose(correlations.partial_autocorrelations(r), partial, rtol=1e-12)
    # At lag 2: p2 is the correlation of x0 and x2 given x1.
    assert_allclose((r[2] - r[1] ** 2) / (1 - r[1] ** 2), partial[1], rtol=1e-12)


@every_structure
def test_as_a_covariance_of_random_effects_it_is_its_own_factor_squared(structure):
    wide = type(structure)(heterogeneous=True)
    x = jnp.asarray(0.3 * np.random.default_rng(1).normal(size=len(wide.names(K))))
    L, sd = wide.factor(x, K), np.append(1.0, np.exp(x[: K - 1]))
    assert_allclose(L @ L.T, wide.correlation(x[K - 1 :], K) * np.outer(sd, sd), rtol=1e-12)
    assert len(wide.natural(x, K)) == len(wide.names(K))


def test_matern_of_one_half_is_exponential_and_of_large_nu_smoother():
    distance, x = jnp.array([0.1, 1.0, 3.0]), jnp.array([0.2])
    half = correlations.Matern(nu=0.5).between(x, distance)
    assert_allclose(half, correlations.Exponential().between(x, distance), rtol=1e-14)
    # Abramowitz & Stegun 10.2.17: Bessel functions of half-integer order, by SciPy.
    special = pytest.importorskip("scipy.special")
    for nu in (1.5, 2.5):
        a = np.sqrt(2 * nu) * distance / np.exp(0.2)
        expected = 2 ** (1 - nu) / special.gamma(nu) * a**nu * special.kv(nu, a)
        assert_allclose(correlations.Matern(nu=nu).between(x, distance), expected, rtol=1e-12)


def patterns():
    """Two groups; a subject seen at visits 0, 2, 4, and one at visit 1 alone."""
    seen = np.array([[True, True], [True, False], [True, False]])
    visit = np.array([[0, 1], [2, 0], [4, 0]])
    slopes = np.arange(6.0).reshape(1, 3, 2) / 10
    return Patterns(seen, np.array([0, 1]), visit, visit, None, slopes, np.array([3.0, 2.0]))


def test_every_number_has_its_place():
    structure = ResidualCovariance(AR1(), positions=5, visits=5, groups=2, slopes=1)
    first = [0.1, 0.2, 0.3, 0.4, np.arctanh(0.5)]  # log ratios of four visits, rho
    # and before them the group's own log SD
    second = [0.7, -0.1, -0.2, -0.3, -0.4, np.arctanh(-0.6)]
    psi = jnp.array([*first, *second, 1.5])
    assert structure.size == len(psi)
    R = np.asarray(structure.matrices(psi, patterns()))
    sd = np.exp([0.0 + 1.5 * 0.0, 0.2 + 1.5 * 0.2, 0.4 + 1.5 * 0.4])
    C = 0.5 ** np.abs(np.subtract.outer([0, 2, 4], [0, 2, 4]))
    assert_allclose(R[..., 0], C * np.outer(sd, sd), rtol=1e-14)
    alone = np.exp(2 * (0.7 - 0.1 + 1.5 * 0.1))
    assert_allclose(R[..., 1], np.diag([alone, 1.0, 1.0]), rtol=1e-14)


def test_precisions_are_inverses():
    structure = ResidualCovariance(
        correlations.FreeCorrelations(), positions=5, visits=5, groups=2, slopes=1
    )
    psi = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=structure.size))
    R, inverse = structure.matrices(psi, patterns()), precisions(structure, psi, patterns())
    for p in range(2):
        assert_allclose(inverse[..., p] @ R[..., p], np.eye(3), atol=1e-12)


def test_what_is_reported_is_on_the_users_scale():
    structure = ResidualCovariance(correlations.Exponential(nugget=True), slopes=1)
    natural, free = reported(structure, jnp.array([0.3, -1.0, 0.5]), 2.0, 7.0)
    assert_allclose(natural, [7 * np.exp(0.3), 1 / (1 + np.e), 0.5], rtol=1e-14)
    assert_allclose(free, [np.log(7) + 0.3, -1.0, 0.5], rtol=1e-14)


def test_derivatives_are_finite_where_correlations_vanish():
    structure = ResidualCovariance(AR1(), positions=5)
    slope = jax.jacfwd(
        lambda psi: structure.matrices(psi, replace(patterns(), slopes=np.zeros((0, 3, 2))))
    )
    assert np.isfinite(slope(jnp.zeros(1))).all()


def test_no_correlation_of_other_orders_is_known():
    with pytest.raises(
        ValueError, match="nu of a Matern correlation must be 0.5, 1.5 or 2.5, not 2"
    ):
        correlations.Matern(nu=2)
