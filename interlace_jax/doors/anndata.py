"""Genes of an AnnData as responses, with precision weights, and results among its variables.

Nothing of anndata is imported: its objects are known by their attributes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..many.columns import Labelled


class _Dense:
    """A sparse matrix whose slices of columns are dense."""

    ndim = 2

    def __init__(self, matrix: Any):
        self.matrix = scipy.sparse.csc_array(matrix)
        self.shape, self.dtype = self.matrix.shape, self.matrix.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.matrix[key].toarray()


def layer(adata: Any, name: str | None = None) -> Labelled:
    """A layer (observations, genes) for `fit_many(responses=)` or `fit_many(weights=)`, labelled
    `gene`.

    name: of the layer; None is `adata.X`. A sparse layer is made dense some genes at a time. The
    data of the fit are `adata.obs`. Without `family=` the layer should have log expression, as
    log-CPM with precision weights (voom); counts go with `family="nbinom2"`.

    Raises ValueError for a name that no layer has.

    >>> many = interlace.fit_many(
    ...     "~ treatment + (1 | donor)",
    ...     adata.obs,
    ...     responses=layer(adata, "logcpm"),
    ...     weights=layer(adata, "weights"),
    ... )
    """
    if name is not None and name not in adata.layers:
        raise ValueError(f"there is no layer {name!r}; there are {list(adata.layers)}")
    matrix = adata.X if name is None else adata.layers[name]
    if scipy.sparse.issparse(matrix):
        matrix = _Dense(matrix)
    return Labelled(matrix, pd.Index(adata.var_names, name="gene"))


def put(adata: Any, key: str, table: pd.DataFrame) -> None:
    """Keep a table of results in `adata.varm[key]`, a row for each gene of `adata`.

    table: with the genes in its first column, one row each, as `many.moderate(...)` makes it. Genes
    that it does not have get missing values.

    Raises ValueError for several rows of a gene, or where no gene is one of `adata`.

    >>> put(adata, "treatment", many.moderate("treatment[T.drug]"))
    """
    by_gene = table.set_index(table.columns[0])
    twice = by_gene.index[by_gene.index.duplicated()]
    if len(twice):
        raise ValueError(
            f"the table has several rows for {twice[0]!r}: select those of one hypothesis first"
        )
    if not by_gene.index.isin(adata.var_names).any():
        raise ValueError(
            f"the first column of the table, {table.columns[0]!r}, has no gene of adata.var_names"
        )
    adata.varm[key] = by_gene.reindex(adata.var_names)
