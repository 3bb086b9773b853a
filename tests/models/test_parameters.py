"""Tables of variance components."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import summaries

from interlace_jax.models import parameters


@pytest.fixture
def slope():
    return summaries.slope()


@pytest.fixture
def crossed():
    return summaries.crossed()


def test_varcorr_has_lme4s_rows(crossed):
    S = crossed.covariances["subject"].to_numpy()
    table = crossed.varcorr
    assert table[["grp", "var1", "var2"]].fillna("").to_numpy().tolist() == [
        ["subject", "(Intercept)", ""],
        ["subject", "condition[T.incongruent]", ""],
        ["subject", "(Intercept)", "condition[T.incongruent]"],
        ["item", "(Intercept)", ""],
        ["Residual", "", ""],
    ]
    vcov = [S[0, 0], S[1, 1], S[0, 1], crossed.variance_components["item"], crossed.scale]
    np.testing.assert_allclose(table["vcov"], vcov)
    sdcor = np.sqrt(vcov)
    sdcor[2] = S[0, 1] / np.sqrt(S[0, 0] * S[1, 1])
    np.testing.assert_allclose(table["sdcor"], sdcor)


def test_varcorr_pairs_columns_of_one_term_only_and_knows_no_correlation_with_a_constant():
    S = pd.DataFrame(np.diag([4.0, 9.0, 0.0]), ["a", "b", "c"], ["a", "b", "c"])
    factor = SimpleNamespace(name="g", columns=("a", "b", "c"), sizes=(1, 2))
    table = parameters.varcorr_table([factor], {"g": S}, 1.0)
    assert table["var2"].dropna().tolist() == ["c"]
    np.testing.assert_array_equal(table["sdcor"], [2.0, 3.0, 0.0, np.nan, 1.0])


def test_varcov_is_block_diagonal_over_factors(crossed):
    whole = crossed.varcov
    names = [
        ("subject", "(Intercept)"),
        ("subject", "condition[T.incongruent]"),
        ("item", "(Intercept)"),
    ]
    assert whole.index.tolist() == names
    assert whole.columns.equals(whole.index)
    np.testing.assert_array_equal(whole.loc["subject", "subject"], crossed.covariances["subject"])
    assert (
        whole.loc[("item", "(Intercept)"), ("item", "(Intercept)")]
        == crossed.variance_components["item"]
    )
    assert (whole.loc["subject", "item"].to_numpy() == 0).all()


def test_varcov_of_one_factor_is_its_covariance_matrix(slope):
    assert slope.varcov.columns.tolist() == ["(Intercept)", "Days"]
    np.testing.assert_array_equal(slope.varcov, slope.covariances["Subject"])
