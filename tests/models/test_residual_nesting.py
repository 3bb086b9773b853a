"""Which residual covariance contains which."""

import pytest
from helpers.repeated import fit
from numpy.testing import assert_allclose
from scipy import stats

import interlace_jax as interlace


def test_likelihood_ratios_know_what_contains_what():
    names = ["cs(visit | id)", "csh(visit | id)", "us(visit | id)"]
    fits = [fit(name, method="ML") for name in names]
    table = interlace.anova(*fits)
    statistic = fits[0].deviance - fits[1].deviance
    assert_allclose(table["Pr(>Chisq)"].iloc[1], stats.chi2.sf(statistic, 3), rtol=1e-6)
    assert_allclose(table["Pr(>Chisq) boundary"].iloc[1], table["Pr(>Chisq)"].iloc[1])
    with pytest.raises(ValueError, match="do not include residual cs"):
        interlace.anova(fits[0], fit("ad(visit | id)", method="ML"))
