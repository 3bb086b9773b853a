"""Scores by subject against dense matrices."""

import numpy as np
import pytest
from helpers import many_maps
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.maps.scores import Contrast, null_fits, projections, scores


def _dense(many, null, tested, place, used, w):
    """Gamma, u by subject and x~'V0^-1 x~ from V0^-1 (relative to sigma^2) of a null fit."""
    design = many.work.design
    theta = null.theta.iloc[place].to_numpy()
    f = design.factors[0]
    k = f.Z.shape[1]
    Lam = np.zeros((k, k))
    Lam[np.array(f.block.parameters)[:, 0], np.array(f.block.parameters)[:, 1]] = theta
    Z = np.zeros((len(design.X), len(f.levels), k))
    Z[np.arange(len(design.X)), f.codes] = f.Z
    Z = Z.reshape(len(design.X), -1)[used]
    V = np.diag(1 / w[used]) + Z @ np.kron(np.eye(len(f.levels)), Lam @ Lam.T) @ Z.T
    inverse = np.linalg.inv(V)
    X0, x = tested.design.X[used], tested.x[used]
    y = many.work.Y.read(place, place + 1)[used, 0]
    A = X0.T @ inverse
    gamma = np.linalg.solve(A @ X0, A @ x)
    whitened = inverse @ (y - X0 @ np.linalg.solve(A @ X0, A @ y))  # V^-1 (y - X0 beta0) = W r0
    each = (x - X0 @ gamma) * whitened
    left = (x - X0 @ gamma) @ inverse @ (x - X0 @ gamma)
    return gamma, np.bincount(f.codes[used], each, len(f.levels)), left


@pytest.mark.parametrize("contrast", [[0, 0, 0, 1, 0, 0], [0, 1, -1, 0, 0.5, 0]])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_those_of_dense_matrices(contrast, weighted):
    many = many_maps.many()
    W = np.random.default_rng(0).uniform(0.3, 2.0, (120, 6)) if weighted else np.ones((120, 6))
    if weighted:
        right = "~ " + many_maps.FORMULA
        many = interlace.fit_many(
            right, many_maps.frame(), responses=many_maps.responses(), weights=W
        )
    tested = Contrast.of(many.work.design, np.array(contrast, float))
    null = null_fits(many, tested)
    gamma, information = projections(many, null, tested)
    u = scores(many, null, tested, many.work.design.factors[0].codes)
    for place, lane in enumerate(many_maps.LANES[:5]):
        used = many_maps.responses()[lane].notna().to_numpy()
        expected, by_subject, left = _dense(many, null, tested, place, used, W[:, place])
        assert_allclose(gamma[place], expected, atol=1e-8)
        assert_allclose(information[place], left, rtol=1e-8)
        assert_allclose(u[:, place], by_subject, atol=1e-8 * np.abs(by_subject).max())
    assert np.isnan(u[:, 5]).all()


def test_the_null_model_has_all_columns_but_the_contrast():
    many = many_maps.many()
    tested = Contrast.of(many.work.design, np.eye(6)[3])
    assert_allclose(
        tested.design.X @ tested.rest.T,
        many.work.design.X @ (np.eye(6) - np.diag(np.eye(6)[3])),
        atol=1e-12,
    )
