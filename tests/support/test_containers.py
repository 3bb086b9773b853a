"""Frozen dataclasses of arrays that JAX looks into."""

from dataclasses import FrozenInstanceError, field

import jax
import numpy as np
import pytest

from interlace_jax.support.containers import Size, container


@container
class Pair:
    left: np.ndarray
    right: np.ndarray
    name: str = field(metadata=dict(static=True))


def test_arrays_are_leaves_and_static_fields_are_not():
    made = jax.tree.map(lambda a: 2 * a, Pair(np.ones(2), np.zeros(3), "kept"))
    np.testing.assert_array_equal(made.left, [2.0, 2.0])
    np.testing.assert_array_equal(made.right, np.zeros(3))
    assert made.name == "kept"
    assert len(jax.tree.leaves(made)) == 2


def test_static_fields_tell_structures_apart():
    one, other = (Pair(np.ones(1), np.ones(1), name) for name in "ab")
    assert jax.tree.structure(one) != jax.tree.structure(other)


def test_containers_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Pair(np.ones(1), np.ones(1), "a").left = np.zeros(1)


def test_a_size_is_text_of_a_type_of_its_own():
    assert Size("n+p") == "n+p"
    assert isinstance(Size("n"), str) and not hasattr(Size("n"), "__dict__")
