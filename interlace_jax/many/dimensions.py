"""Arrays with named dimensions, as xarray has them: rows are one of these, models all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..design.alignment import in_order_of
from ..support.arguments import listed
from .columns import Labelled

ROW = "row"  # the name of the dimension of rows, where lengths do not tell which it is


def has_dimensions(values: Any) -> bool:
    """Whether values have names for two dimensions or more."""
    return hasattr(values, "dims") and hasattr(values, "coords") and len(values.dims) > 1


def stacked(data: Any, array: Any, what: str, order: Sequence[Any] = ()) -> Labelled:
    """An array as columns (rows of the data, models), the last dimension running fastest.

    array: a DataArray; one of its dimensions has the rows of the data: "row", or the only one of
    their number. Labels of its rows are aligned with those of the data. The labels of the models
    are the coordinates of the other dimensions, in their order or, if it names all of them, in this
    order. What lies in a file is not read.

    Raises ValueError where no dimension, or more than one, may be that of the rows.
    """
    row = _dimension_of_rows(len(data), array, what)
    places = [dim for dim in array.dims if dim != row]
    places = list(order) if set(order) == set(places) else places
    array = array.transpose(row, *places)
    if row in array.coords:
        numbers = pd.Series(np.arange(array.shape[0]), pd.Index(np.asarray(array.coords[row])))
        rows = in_order_of(data, numbers, what).to_numpy()
        if not np.array_equal(rows, numbers):
            array = array.isel({row: rows})
    levels = [_labels(array, dim) for dim in places]
    labels = pd.MultiIndex.from_product(levels, names=places) if len(levels) > 1 else levels[0]
    return Labelled(array.data.reshape((array.shape[0], len(labels))), labels)


def _dimension_of_rows(n: int, array: Any, what: str) -> str:
    sizes = dict(zip(array.dims, array.shape, strict=True))
    if ROW in sizes:
        found = [ROW] if sizes[ROW] == n else []
    else:
        found = [dim for dim, size in sizes.items() if size == n]
    if not found:
        raise ValueError(
            f"{what} has the dimensions {sizes}, but the data have {n} rows: one of them must be "
            "as long"
        )
    if len(found) > 1:
        raise ValueError(
            f"{what} has {len(found)} dimensions of {n}, the number of rows of the data, "
            f"{listed(found)}: rename that of the rows to {ROW!r}"
        )
    return found[0]


def _labels(array: Any, dim: str) -> pd.Index:
    if dim in array.coords:
        return pd.Index(np.asarray(array.coords[dim]), name=dim)
    return pd.RangeIndex(array.shape[array.dims.index(dim)], name=dim)
