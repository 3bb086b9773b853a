"""Functions of all parameters and their covariances, against derivatives by hand."""

import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.numerics.covariance.block import Block
from interlace_jax.numerics.uncertainty import delta
from interlace_jax.runtime import calls

SLOPE = Block(5, (2,))


def parameters(theta=(0.9, 0.2, 0.4)):
    return delta.Parameters(
        beta=np.array([250.0, 10.0]),
        theta=np.asarray(theta),
        sigma=np.array(2.0),
        columns=("Intercept", "Days"),
        groups=("Subject",),
        blocks=(SLOPE,),
    )


def test_parts_are_found_by_name():
    at = parameters()
    assert at["Days"] == 10.0
    Lam = np.array([[0.9, 0.0], [0.2, 0.4]])
    found = calls.run(arrays.quick_jit(lambda at: at.covariance("Subject")), at)
    assert_allclose(found, 4.0 * Lam @ Lam.T, rtol=1e-12)


@pytest.mark.parametrize("ask", [lambda at: at["days"], lambda at: at.covariance("subject")])
def test_unknown_names_are_answered_with_those_there_are(ask):
    with pytest.raises(ValueError, match="there is no .*; there are '(Intercept|Subject)'"):
        calls.run(arrays.quick_jit(ask), parameters())


def test_numbers_of_a_family_are_on_their_natural_scales():
    at = delta.FamilyParameters(
        beta=np.zeros(1),
        theta=np.zeros(3),
        sigma=np.array(1.0),
        columns=("Intercept",),
        groups=("g",),
        blocks=(SLOPE,),
        gamma=np.array([0.5, np.log(2.0), np.log(3.0), 0.0]),
        numbers=(("a", "threshold"), ("b", "threshold"), ("size", "positive"), ("zero", "logit")),
    )
    found = [float(at.number(name)) for name in ("a", "b", "size", "zero")]
    assert_allclose(found, [0.5, 2.5, 3.0, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="there is no number of the family 'shape'"):
        at.number("shape")


def test_a_product_of_parameters_has_the_textbook_variance():
    problem = oracle.random_design(0, "slope")
    m = arrays.condition(problem)
    t = np.array([0.8, 0.1, 0.5])
    vcov = np.array([[4.0, 0.5, 0.1], [0.5, 1.0, 0.0], [0.1, 0.0, 2.0]])
    W = np.diag([0.0, 0.0, 0.0, 0.04])
    beta, sigma = np.array([3.0, 2.0, -1.0]), np.array(1.5)
    value, variance = calls.run(_scaled_effect, beta, sigma, t, vcov, W, m)
    # beta_b sigma: Var = sigma^2 Var(beta_b) + (beta_b sigma)^2 Var(log sigma)
    assert_allclose(value, [3.0])
    assert_allclose(variance, [[1.5**2 * 1.0 + 3.0**2 * 0.04]])


@arrays.quick_jit
def _scaled_effect(beta, sigma, t, vcov, W, m):
    names, given = (("a", "b", "c"), ("g",)), (beta, sigma, t, vcov, W, m.layout, m.A)
    return delta.propagate(lambda p: p["b"] * p.sigma, names, *given)
