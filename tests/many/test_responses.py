"""Responses: rows go by their labels, and a result never reads what the user has changed since."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace


@cache
def _data() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng, samples = np.random.default_rng(2), [f"sample{i:02d}" for i in range(90)]
    subject = np.repeat(np.arange(15), 6)
    info = {
        "subject": subject,
        "age": rng.normal(size=90),
        "w": rng.uniform(0.2, 3, 90),
        "o": rng.normal(size=90),
    }
    frame = pd.DataFrame(info, index=samples)
    genes = {
        g: 0.8 * frame["age"] + rng.normal(size=15)[subject] + rng.normal(size=90)
        for g in ("g1", "g2")
    }
    return frame, pd.DataFrame(genes)


def _params(data, responses, **more):
    return interlace.fit_many("~ age + (1 | subject)", data, responses=responses, **more).fe_params


def test_responses_weights_and_offsets_are_aligned_with_the_data():
    data, genes = _data()
    order = np.random.default_rng(0).permutation(90)
    expected = _params(data, genes, weights="w", offset="o")
    shuffled = dict(weights=data["w"].iloc[order], offset=data["o"].iloc[order[::-1]])
    assert_allclose(_params(data, genes.iloc[order], **shuffled), expected, rtol=1e-9)
    with pytest.raises(
        ValueError,
        match="responses and the data have different indices .*'gone' is not in that of the data",
    ):
        _params(data, genes.rename(index={"sample03": "gone"}))


@pytest.mark.parametrize("kind", ["array", "frame"])
def test_a_buffer_that_is_filled_anew_changes_no_result(kind):
    data, genes = _data()
    Y = genes.to_numpy().copy()
    buffer = Y if kind == "array" else pd.DataFrame(Y)
    weights = data["w"].to_numpy().copy()
    many = interlace.fit_many("~ age + (1 | subject)", data, responses=buffer, weights=weights)
    expected = interlace.fit_many(
        "~ age + (1 | subject)", data, responses=Y.copy(), weights=weights.copy()
    ).fe_df
    buffer[:] = np.random.default_rng(1).normal(size=(90, 2))
    weights[:] = 1.0
    assert_allclose(many.fe_df, expected, rtol=1e-9)
    assert_allclose(many[1].fe_params, many.fe_params.loc[1], rtol=1e-5)


def test_the_frame_may_change_after_the_fits():
    data, genes = _data()
    mine = data.copy()
    many = interlace.fit_many("~ age + (1 | subject)", mine, responses=genes)
    mine["age"] = 0.0
    del mine["subject"]
    assert_allclose(many["g2"].fe_params, many.fe_params.loc["g2"], rtol=1e-5)


def test_complex_responses_are_refused():
    data, genes = _data()
    for responses in (genes.to_numpy() + 1j, genes + 1j):
        with pytest.raises(ValueError, match="complex|not numeric"):
            _params(data, responses)


# A weight for each value --------------------------------------------------------------------------


@cache
def _weights() -> pd.DataFrame:
    W = np.random.default_rng(4).uniform(0.1, 5.0, (90, 2))
    W[[3, 40], 0] = 0.0, np.nan
    return pd.DataFrame(W, _data()[0].index, ["g1", "g2"])


@cache
def _weighted() -> interlace.Many:
    data, genes = _data()
    return interlace.fit_many("~ age + (1 | subject)", data, responses=genes, weights=_weights())


@pytest.mark.parametrize("gene", ["g1", "g2"])
def test_every_response_has_weights_of_its_own(gene):
    many, (data, genes) = _weighted(), _data()
    w = np.nan_to_num(_weights()[gene].to_numpy())
    fit = interlace.fit("y ~ age + (1 | subject)", data.assign(y=genes[gene]), weights=w)
    assert many.nobs[gene] == fit.nobs == (88 if gene == "g1" else 90)
    assert_allclose(many.fe_params.loc[gene], fit.fe_params, rtol=1e-4)
    assert_allclose(many.fe_bse.loc[gene], fit.fe_bse, rtol=1e-4)
    assert_allclose(many.fe_df.loc[gene], fit.fe_df, rtol=1e-3)
    assert_allclose(many.sigma[gene], fit.sigma, rtol=1e-4)
    assert_allclose(many[gene].llf, fit.llf, rtol=1e-9)


def test_t_and_df_do_not_depend_on_the_unit_of_the_weights():
    data, genes = _data()
    scaled = _weights() * [100.0, 1e-3]
    again = interlace.fit_many("~ age + (1 | subject)", data, responses=genes, weights=scaled)
    assert_allclose(again.fe_tvalues, _weighted().fe_tvalues, rtol=1e-5)
    assert_allclose(again.fe_df, _weighted().fe_df, rtol=1e-3)
    assert_allclose(again.sigma, _weighted().sigma * np.sqrt([100.0, 1e-3]), rtol=1e-4)


def test_a_row_of_weight_zero_is_not_there_and_a_missing_weight_is_missing():
    data, genes = _data()
    Y = genes.to_numpy().copy()
    Y[3, 0] = np.inf  # where its weight is 0
    many = interlace.fit_many(
        "~ age + (1 | subject)", data, responses=Y, weights=_weights().to_numpy()
    )
    assert_allclose(many.fe_params.loc[0], _weighted().fe_params.loc["g1"], rtol=1e-6)
    refused = interlace.fit_many(
        "~ age + (1 | subject)", data, responses=Y, weights=_weights().to_numpy(), na_action="raise"
    )
    assert refused.status[0] == "na_action='raise': 1 missing values" and refused.converged[1]


def test_weights_that_are_none_are_refused():
    data, genes = _data()
    bad = _weights().copy()
    bad.iloc[5, 0] = -1.0
    many = interlace.fit_many("~ age + (1 | subject)", data, responses=genes, weights=bad)
    assert many.status["g1"] == "weights that are negative or infinite" and many.converged["g2"]
    for weights, message in [
        (bad.to_numpy()[:, :1], "shape \\(90, 1\\), but responses \\(90, 2\\)"),
        (bad[["g2", "g1"]], "columns of weights, 'g2', 'g1', are not those of responses"),
    ]:
        with pytest.raises(ValueError, match=message):
            interlace.fit_many("~ age + (1 | subject)", data, responses=genes, weights=weights)
