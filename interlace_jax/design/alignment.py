"""Rows that carry labels in another order than the data: labels beat positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..support.arguments import listed


def in_order_of(data: Any, values: Any, what: str) -> Any:
    """Values with one row for each row of the data, put into the order of the data's index.

    data: the frame of a model. values: anything; only a Series or frame of pandas beside a frame of
    pandas has labels.
    what: what a message calls the values.

    The same labels in another order are aligned, as pandas does it. Labels that say nothing, those
    that pandas gives by default, go by position. Raises ValueError where the labels are others than
    those of the data.
    """
    if not (isinstance(data, pd.DataFrame) and isinstance(values, pd.Series | pd.DataFrame)):
        return values
    mine, theirs = values.index, data.index
    if len(mine) != len(theirs) or mine.equals(theirs):
        return values
    if mine.is_unique and theirs.is_unique:
        order = mine.get_indexer(theirs)
        if (order >= 0).all():
            return values.iloc[order]
    if _is_default(mine) or _is_default(theirs):
        return values
    raise ValueError(
        f"{what} and the data have different indices ({_difference(mine, theirs)}): give both the "
        "same index, or an array, as by to_numpy(), whose rows stand in the order of the data"
    )


def _is_default(index: pd.Index) -> bool:
    """Whether it is what pandas gives to rows that have no labels."""
    return index.equals(pd.RangeIndex(len(index)))


def _difference(mine: pd.Index, theirs: pd.Index) -> str:
    unknown = mine[~mine.isin(theirs)]
    if len(unknown):
        return f"{listed(unknown.tolist(), 3)} is not in that of the data"
    twice = [index[index.duplicated()] for index in (mine, theirs)]
    repeated = next(labels for labels in twice if len(labels))
    return f"another order, and {listed(np.unique(repeated.astype(str)), 3)} more than once"
