"""Distribution functions of responses against sums, integrals and SciPy's own."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from interlace_jax.models.distribution_functions import probability_limits
from interlace_jax.numerics.families import family as F

MU = np.array([0.3, 0.3, 0.45, 0.8, 0.8])
M = np.array([1.0, 5.0, 5.0, 9.0, 9.0])
ONES = np.ones(5)
COUNTS = np.array([0.0, 1.0, 2.0, 4.0, 9.0])
SHARES = np.array([0.02, 0.3, 0.5, 0.7, 0.97])


def own(distribution):
    """P(Y < y) and P(Y <= y) of a distribution of SciPy."""
    return distribution.cdf(COUNTS - 1), distribution.cdf(COUNTS)


@pytest.mark.parametrize(
    ("family", "phi", "expected"),
    [
        (F.Poisson(), [], stats.poisson(3 * MU)),
        (F.NegativeBinomial(), [1.7 * ONES], stats.nbinom(1.7, 1.7 / (1.7 + 3 * MU))),
        (F.NegativeBinomial(variance="linear"), [0.6 * ONES], stats.nbinom(3 * MU / 0.6, 1 / 1.6)),
    ],
)
def test_counts_have_scipys_probabilities(family, phi, expected):
    assert_allclose(
        probability_limits(family, COUNTS, 3 * MU, phi, ONES, ONES), own(expected), rtol=1e-12
    )
    zeros = F.ZeroInflated(family)
    found = probability_limits(zeros, COUNTS, 3 * MU, [*phi, 0.2 * ONES], ONES, ONES)
    below, upto = own(expected)
    assert_allclose(
        found, [np.where(COUNTS > 0, 0.2 + 0.8 * below, 0.0), 0.2 + 0.8 * upto], rtol=1e-12
    )
    some = probability_limits(
        F.Truncated(family), COUNTS[1:], 3 * MU[1:], [p[1:] for p in phi], ONES[1:], ONES[1:]
    )
    zero = expected.cdf(0)[1:]
    assert_allclose(
        some,
        [(below[1:] - zero) / (1 - zero), (upto[1:] - zero) / (1 - zero)],
        rtol=1e-12,
        atol=1e-15,
    )


def test_successes_have_scipys_probabilities():
    y = np.minimum(COUNTS, M)
    found = probability_limits(F.Binomial(), y, MU, [], ONES, M)
    assert_allclose(found, [stats.binom.cdf(y - 1, M, MU), stats.binom.cdf(y, M, MU)], rtol=1e-12)
    found = probability_limits(F.BetaBinomial(), y, MU, [4 * ONES], ONES, M)
    assert_allclose(found[1], stats.betabinom.cdf(y, M, 4 * MU, 4 * (1 - MU)), rtol=1e-12)


@pytest.mark.parametrize(
    ("family", "phi", "expected"),
    [
        (F.Gaussian("log"), [0.4], lambda w: stats.norm(MU, 0.4 / np.sqrt(w))),
        (F.Student(), [0.4, 3.0], lambda w: stats.t(3.0, MU, 0.4)),
        (F.Gamma(), [0.4], lambda w: stats.gamma(w / 0.4, scale=MU * 0.4 / w)),
        (F.InverseGaussian(), [0.4], lambda w: stats.invgauss(MU * 0.4 / w, scale=w / 0.4)),
        (F.Beta(), [4.0], lambda w: stats.beta(4 * MU, 4 * (1 - MU))),
    ],
)
def test_continuous_responses_have_scipys_probabilities(family, phi, expected):
    w = np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    below, upto = probability_limits(family, SHARES, MU, [p * ONES for p in phi], w, ONES)
    assert_allclose(upto, expected(w).cdf(SHARES), rtol=1e-10)
    assert below is upto


def test_categories_have_sums_of_probabilities():
    p = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    found = probability_limits(F.Ordinal(), np.array([1.0, 2.0]), p, [], ONES[:2], ONES[:2])
    assert_allclose(found, [[0.2, 0.2], [0.7, 1.0]])


def test_a_family_of_ones_own_says_what_to_do():
    family = F.Family("flat", lambda y, mu: 0.0 * y)
    with pytest.raises(ValueError, match=r"use scaled_residuals\(\), which simulates"):
        probability_limits(family, SHARES, MU, [], ONES, ONES)
