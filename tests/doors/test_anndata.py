"""Layers of an AnnData are responses and weights by gene, and results go back beside its genes.

What has the attributes of an AnnData stands for one: anndata holds pandas back.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy
from helpers.fits import assert_same_effects
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace
from interlace_jax.doors.anndata import layer, put

GENES = ["Actb", "Gapdh", "Myc", "Trp53", "Cd4"]


def _adata():
    rng = np.random.default_rng(5)
    obs = pd.DataFrame(
        {"donor": np.arange(40) // 5, "drug": np.arange(40) % 2}, index=[f"c{i}" for i in range(40)]
    )
    X = rng.normal(size=(40, 5)) + rng.normal(size=(8, 5))[np.arange(40) // 5]
    X = np.where(rng.uniform(size=X.shape) < 0.2, 0.0, X)
    layers = {"weights": rng.uniform(0.5, 2.0, X.shape), "sparse": scipy.sparse.csr_matrix(X)}
    return SimpleNamespace(obs=obs, X=X, layers=layers, var_names=pd.Index(GENES), varm={})


def _fit(adata, responses, **more):
    return interlace.fit_many(
        "~ drug + (1 | donor)", adata.obs, responses=responses, progress=False, **more
    )


def test_layers_are_responses_and_weights_by_gene():
    adata = _adata()
    many = _fit(adata, layer(adata), weights=layer(adata, "weights"))
    frames = [pd.DataFrame(a, adata.obs.index, GENES) for a in (adata.X, adata.layers["weights"])]
    expected = _fit(adata, frames[0], weights=frames[1])
    assert many.labels.tolist() == GENES and many.labels.name == "gene"
    assert_same_effects(many, expected)


def test_a_sparse_layer_is_the_same_as_a_dense_one():
    adata = _adata()
    sparse, dense = _fit(adata, layer(adata, "sparse")), _fit(adata, layer(adata))
    assert_same_effects(sparse, dense)
    assert_allclose(sparse["Myc"].fe_params, sparse.fe_params.loc["Myc"], rtol=1e-6)


def test_results_go_back_beside_the_genes():
    adata = _adata()
    many = _fit(adata, layer(adata))
    table = many.moderate("drug")
    put(adata, "drug", table.iloc[::-1].iloc[:4])
    kept = adata.varm["drug"]
    assert kept.index.tolist() == GENES
    assert_array_equal(kept["t"][1:], table["t"][1:])
    assert np.isnan(kept["t"].iloc[0])


def test_what_has_no_place_is_refused():
    adata = _adata()
    with pytest.raises(ValueError, match="there is no layer 'counts'; there are"):
        layer(adata, "counts")
    many = _fit(adata, layer(adata))
    with pytest.raises(ValueError, match="several rows for 'Actb'"):
        put(adata, "all", many.to_frame())
    with pytest.raises(ValueError, match="has no gene of adata.var_names"):
        put(adata, "other", pd.DataFrame({"gene": ["x"], "t": [1.0]}))
