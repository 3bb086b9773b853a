"""What a layer is made of: its parametrisation, and arguments refused in words."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.grouped_rows import lower_triangle, random_raw
from numpy.testing import assert_allclose

from interlace_jax.layers.factors import Factors


def test_free_numbers_are_a_triangle_with_rows_scaled_by_their_diagonal():
    factors = Factors.of({"a": 3, "b": 2}, {"a": 2})
    raw = random_raw(factors)
    theta = factors.theta(jnp.asarray(raw))
    L = lower_triangle(raw[:6], 3)
    assert_allclose(theta[:6], [L[i, j] for j in range(3) for i in range(j, 3)], rtol=1e-6)
    assert_allclose(theta[6], np.exp(raw[6]), rtol=1e-6)
    assert_allclose(factors.raw(theta), raw, rtol=1e-5, atol=1e-6)


def test_uncorrelated_terms_have_their_own_triangles():
    factors = Factors.of({"a": 3}, {"a": 2}, terms={"a": (1, 2)})
    L = factors.relative_factors(jnp.asarray(random_raw(factors)))[0]
    assert factors.size == 4
    assert L[1, 0] == L[2, 0] == 0.0 != L[2, 1]


def test_it_is_hashed_by_what_it_says():
    one, two = (Factors.of({"a": 3}, {"a": 2}) for _ in range(2))
    assert hash(one) == hash(two) and one == two != Factors.of({"a": 4}, {"a": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(groups=[3]), "groups is how many levels"),
        (dict(groups={"a": 0}), "how many levels there are, must be a whole number, 1 or more"),
        (dict(groups={"a": 3}, slopes={"b": 1}), "slopes has 'b', but groups has 'a'"),
        (dict(groups={"a": 3}, nested={"a": "school"}), "nested has 'school', but groups has 'a'"),
        (dict(groups={"a": 3}, terms={"a": (1, 1)}), r"with its intercept 'a' has 1 columns"),
    ],
)
def test_wrong_arguments_are_refused_in_words(arguments, message):
    with pytest.raises(ValueError, match=message):
        Factors.of(**arguments)


@pytest.mark.parametrize(
    ("groups", "features", "message"),
    [
        ({"a": np.zeros(3)}, None, "groups has 'a'; this layer takes codes of 'a', 'b'"),
        (
            {"a": np.zeros(3), "b": np.zeros(3)},
            None,
            r"features has ; this layer takes \{'a': \(n, 2\)\}",
        ),
        (
            {"a": np.zeros(3), "b": np.zeros(2)},
            {"a": np.zeros((3, 2))},
            r"groups\['b'\] has shape \(2,\)",
        ),
        (
            {"a": np.zeros(3), "b": np.zeros(3)},
            {"a": np.zeros(3)},
            r"for 3 rows it must be \(3, 2\)",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_words(groups, features, message):
    with pytest.raises(ValueError, match=message):
        Factors.of({"a": 3, "b": 2}, {"a": 2}).read(groups, features)
