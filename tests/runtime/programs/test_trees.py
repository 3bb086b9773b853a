"""Static values as source: what a stored program is known by."""

import pytest

from interlace_jax.numerics.families.family import Family, Poisson
from interlace_jax.runtime.programs import trees


def test_what_derives_from_a_dataclass_is_not_known_by_its_fields():
    """A family of one's own holds a function besides: its program would be taken for others'."""
    assert "Poisson(link='log')" in trees.Source().of(Poisson())
    with pytest.raises(trees.Unnamed):
        trees.Source().of(Family("own", lambda y, mu: y - mu))
