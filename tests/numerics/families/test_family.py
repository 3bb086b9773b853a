"""Families as objects: names, what is refused, and that they can be static arguments of compiled
programs.
"""

import numpy as np
import pytest

from interlace_jax.numerics.families import family as F


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("binomial", F.Binomial()),
        ("Gamma", F.Gamma()),
        ("inverse.gaussian", F.InverseGaussian()),
        ("beta_family", F.Beta()),
        ("nbinom1", F.NegativeBinomial(variance="linear")),
        ("truncated_nbinom2", F.Truncated(F.NegativeBinomial())),
        ("gaussian", F.Gaussian()),
    ],
)
def test_names_of_r_and_glmmtmb_are_known(text, expected):
    assert F.family_of(text) == expected


def test_a_family_may_be_given_as_its_class():
    assert F.family_of(F.Poisson) == F.Poisson()


def test_unknown_names_and_links_list_the_known_ones():
    with pytest.raises(
        ValueError, match="family must be one of 'gaussian', 'binomial'.*not 'poison'"
    ):
        F.family_of("poison")
    with pytest.raises(
        ValueError, match="link must be one of 'logit', 'probit'.*'binomial', not 'logt'"
    ):
        F.Binomial("logt")
    with pytest.raises(TypeError, match="family must be a name or an object"):
        F.family_of(3)


def test_families_are_hashable_and_equal_by_what_they_say():
    assert F.Binomial("probit") == F.Binomial("probit") != F.Binomial()
    assert (
        len({F.Poisson(), F.Poisson(), F.ZeroInflated(F.Poisson()), F.Truncated(F.Poisson())}) == 3
    )
    assert F.Bernoulli() != F.Binomial()

    def log_density(y, mu):
        return -((y - mu) ** 2)

    one, same = F.Family("own", log_density), F.Family("own", log_density)
    assert one == same and hash(one) == hash(same) and one != F.Family("own", lambda y, mu: y)


def test_zeros_are_added_to_counts_only():
    with pytest.raises(
        ValueError, match="zero_inflation= adds zeros to counts, and 'gamma' has numbers above 0"
    ):
        F.ZeroInflated(F.Gamma())
    with pytest.raises(ValueError, match="only counts can be truncated"):
        F.Truncated(F.Gamma())


def test_values_outside_the_support_are_found():
    y, m = np.array([-1.0, 0.0, 0.5, 1.0, 2.0]), np.ones(5)
    assert F.Poisson().outside(y, m).tolist() == [True, False, False, False, False]
    assert F.Binomial().outside(y, m).tolist() == [True, False, False, False, True]
    assert F.Beta().outside(y, m).tolist() == [True, True, False, True, True]
    assert F.Gamma().outside(y, m).tolist() == [True, True, False, False, False]
    assert F.Truncated(F.Poisson()).outside(y, m).tolist() == [True, True, True, False, False]
    assert F.ZeroInflated(F.Truncated(F.Poisson())).outside(y, m).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_a_family_of_ones_own_says_what_it_lacks():
    family = F.Family("own", lambda y, mu, nu: y, parameters={"nu": "positive"})
    assert [p.name for p in family.parameters] == ["nu"]
    with pytest.raises(ValueError, match="the family 'own' has no simulate="):
        family.simulate(None, np.zeros(2), (1.0,), np.ones(2), np.ones(2))
    with pytest.raises(
        ValueError, match="the domain of 'nu' must be one of 'real', 'positive', 'unit'"
    ):
        F.Family("own", lambda y, mu, nu: y, parameters={"nu": "big"})


def test_an_ordinal_family_names_its_thresholds():
    family = F.Ordinal("logit", ("low", "mid", "high"))
    assert [p.name for p in family.parameters] == ["low|mid", "mid|high"]
