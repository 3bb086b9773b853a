"""The packed second-order facts of lanes give the degrees of freedom of the whole ones."""

import numpy as np
from numpy.testing import assert_allclose

from interlace_jax.many.curvature import LaneCurvatures, joined
from interlace_jax.numerics.uncertainty.curvature import Curvature, degrees_of_freedom


def _lanes(r=3, p=4, d=2, seed=0):
    """Curvatures of r lanes whole, and packed as U'dV with W = U U'."""
    rng = np.random.default_rng(seed)
    V, W = (a @ a.mT for a in (rng.normal(size=(r, p, p)), rng.normal(size=(r, d, d))))
    dV = rng.normal(size=(r, d, p, p))
    dV = dV + dV.mT
    along = np.einsum("rik,ripq->rkpq", np.linalg.cholesky(W), dV)
    return V, dV, W, LaneCurvatures(np.arange(r) + 10 * seed, V, along, np.ones((r, p), bool))


def test_variances_and_degrees_of_freedom_of_contrasts():
    V, dV, W, lanes = _lanes()
    L = np.random.default_rng(1).normal(size=(5, 4))
    for i in range(3):
        assert_allclose(lanes.variances(L)[i], np.einsum("qp,ps,qs->q", L, V[i], L))
        assert_allclose(
            lanes.degrees_of_freedom(L)[i],
            degrees_of_freedom(L, Curvature(V[i], dV[i], W[i])),
            rtol=1e-10,
        )


def test_units_of_the_response_do_not_matter():
    _, _, _, lanes = _lanes()
    tiny = lanes._replace(vcov=1e-200 * lanes.vcov, along=1e-200 * lanes.along)
    assert_allclose(
        tiny.degrees_of_freedom(np.eye(4)), lanes.degrees_of_freedom(np.eye(4)), rtol=1e-9
    )


def test_contrasts_of_coefficients_that_a_lane_lacks_are_missing():
    _, _, _, lanes = _lanes()
    present = lanes.present.copy()
    present[1, 2] = False
    lacking = lanes._replace(present=present)
    L = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0]])
    assert np.isnan(lacking.variances(L)).tolist() == [
        [False, False],
        [True, False],
        [False, False],
    ]
    assert np.isnan(lacking.degrees_of_freedom(L)[1]).tolist() == [True, False]


def test_lanes_with_fewer_variances_are_joined_in_the_order_of_their_places():
    _, _, _, first = _lanes(d=2, seed=1)
    _, _, _, second = _lanes(d=3, seed=0)
    whole = joined([first, second])
    assert whole.places.tolist() == [0, 1, 2, 10, 11, 12] and whole.along.shape[1] == 3
    L = np.eye(4)
    assert_allclose(
        whole.degrees_of_freedom(L),
        np.vstack([second.degrees_of_freedom(L), first.degrees_of_freedom(L)]),
    )
