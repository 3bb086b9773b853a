"""Static values as source: what a stored program is known by."""

import numpy as np
import pandas as pd
import pytest

import interlace_jax as interlace
from interlace_jax.numerics.families.family import Family, Poisson
from interlace_jax.runtime.programs import trees


def test_what_derives_from_a_dataclass_is_not_known_by_its_fields():
    """A family of one's own holds a function besides: its program would be taken for others'."""
    assert "Poisson(link='log')" in trees.Source().of(Poisson())
    with pytest.raises(trees.Unnamed):
        trees.Source().of(Family("own", lambda y, mu: y - mu))


def test_moments_of_any_number_of_coefficients_and_levels_have_one_tree():
    """Of few levels, and of more coefficients than levels, too."""

    def tree(levels, coefficients):
        rng = np.random.default_rng(1)
        rows = pd.DataFrame({"g": np.arange(90) % levels, "f": np.arange(90) % coefficients})
        rows["y"] = rng.normal(size=90)
        model = interlace.compile("y ~ C(f) + (1 | g)", rows)
        return trees.Flat(model.engine.moments).tree

    assert tree(9, 4) == tree(7, 20)
