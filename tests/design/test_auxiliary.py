"""Predictors of the family's other parameters, and where their search starts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from interlace_jax.design import auxiliary
from interlace_jax.numerics.families.family import (
    Binomial,
    NegativeBinomial,
    Ordinal,
    Poisson,
    ZeroInflated,
)

X = np.column_stack([np.ones(6), np.arange(6.0)])


def test_without_arguments_every_parameter_is_one_number():
    (used,) = auxiliary.predictors(NegativeBinomial(), {})
    assert used.columns == ("Intercept",) and used.D is None


def test_a_model_matrix_belongs_to_the_parameter_of_its_argument():
    family = auxiliary.with_zero_inflation(NegativeBinomial(), "~ x")
    size, zero = auxiliary.predictors(family, {"zero_inflation": (X, ("Intercept", "x"))})
    assert size.D is None
    assert zero.columns == ("Intercept", "x") and zero.D is X and zero.key == "zero_inflation"


def test_columns_that_depend_on_others_are_named():
    twice = np.column_stack([X, 2.0 * X[:, 1]])
    with pytest.raises(ValueError, match="dispersion= has columns that depend.*leave 'z' out"):
        auxiliary.predictors(NegativeBinomial(), {"dispersion": (twice, ("Intercept", "x", "z"))})


@pytest.mark.parametrize("family", [Binomial(), Poisson(), Ordinal()])
def test_families_without_a_dispersion_say_which_have_one(family):
    auxiliary.check_dispersion(family, None)
    with pytest.raises(ValueError, match="has no dispersion.*nbinom2"):
        auxiliary.check_dispersion(family, "~ x")


def test_zeros_start_at_half_their_share():
    y = np.array([0.0, 0.0, 1.0, 3.0])
    family = ZeroInflated(Poisson())
    start = auxiliary.starts(family, auxiliary.predictors(family, {}), y)
    assert_allclose(start, [special.logit(0.25)])


def test_thresholds_start_at_quantiles_of_the_shares():
    family = Ordinal(categories=("a", "b", "c"))
    first, gap = auxiliary.starts(family, (), np.array([0.0, 1.0, 1.0, 2.0]))
    shares = np.cumsum([1.5, 2.5]) / 5.5
    assert_allclose([first, first + np.exp(gap)], special.logit(shares))
