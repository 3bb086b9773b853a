"""Responses that are ordered categories: which there are, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..design.alignment import in_order_of
from ..design.counts import text_of, unordered_message
from ..design.frames import as_frame, get_column
from ..numerics.families.family import Ordinal
from ..support.arguments import listed
from .columns import Labelled, matrix_of_numbers
from .dimensions import has_dimensions, stacked
from .responses import columns_of


def numbered(responses: Any, data: Any, family: Ordinal) -> tuple[Any, Ordinal]:
    """Responses as numbers of their categories, from 0, and the family with these categories.

    responses: as `fit_many` takes them. The categories are those of all columns together: sorted
    where they are numbers, in the order of the columns where these are categorical. Where a family
    has its categories already, responses are their numbers.

    Raises ValueError where columns are text, whose order is not known, where some are categorical
    and others are not, and where orders do not go together.
    """
    if family.categories:
        return responses, family
    labels, columns = _columns(responses, data)
    if not columns:
        return responses, family
    categories = _categories(labels, columns)
    Y = np.column_stack([_numbers(column, categories) for column in columns])
    return Labelled(Y, labels), replace(family, categories=tuple(map(text_of, categories)))


def _columns(responses: Any, data: Any) -> tuple[pd.Index, list[pd.Series]]:
    """Labels and columns, in the order of the rows of the data."""
    responses = in_order_of(data, responses, "responses")
    if has_dimensions(responses):
        responses = stacked(data, responses, "responses")
    if isinstance(responses, list | tuple) and all(isinstance(name, str) for name in responses):
        responses = columns_of(data, responses)
    if isinstance(responses, pd.DataFrame):
        found = [responses.iloc[:, j] for j in range(responses.shape[1])]
        return responses.columns, [column.infer_objects() for column in found]
    if hasattr(responses, "columns") and not isinstance(responses, Labelled):
        frame = as_frame(responses)
        names = list(frame.columns)
        return pd.Index(names), [get_column(frame, name, "responses") for name in names]
    values = responses.values if isinstance(responses, Labelled) else responses
    is_text = getattr(values, "ndim", 0) == 2 and values.dtype.kind in "bOU"
    values = np.asarray(values if is_text else matrix_of_numbers(values, "responses"))
    labels = getattr(responses, "columns", pd.RangeIndex(values.shape[1]))
    return labels, [pd.Series(column).infer_objects() for column in values.T]


def _categories(labels: pd.Index, columns: Sequence[pd.Series]) -> list:
    """All categories in their order."""
    are_categorical = [isinstance(column.dtype, pd.CategoricalDtype) for column in columns]
    if not any(are_categorical):
        for label, column in zip(labels, columns, strict=True):
            if not pd.api.types.is_numeric_dtype(column.dtype):  # bools count
                there = sorted(column.dropna().unique(), key=str)
                raise ValueError(unordered_message(label, there))
        found = pd.concat([pd.Series(column.unique()) for column in columns]).dropna().unique()
        return sorted(value for value in found if abs(value) < np.inf)
    if not all(are_categorical):
        of, other = are_categorical.index(True), are_categorical.index(False)
        raise ValueError(
            f"the response {labels[of]!r} is categorical, and {labels[other]!r} is "
            f"{columns[other].dtype}: give all responses the same categories"
        )
    orders = [list(column.cat.categories) for column in columns]
    longest = max(orders, key=len)
    for label, order in zip(labels, orders, strict=True):
        if [value for value in longest if value in order] != order:
            raise ValueError(
                f"the response {label!r} has the categories {listed(order)}, and another one "
                f"{listed(longest)}: give all responses the same categories in the same order"
            )
    return longest


def _numbers(column: pd.Series, categories: Sequence[Any]) -> np.ndarray:
    """The place (n,) of every value among the categories; missing values as NaN, infinite ones as
    they are.
    """
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(float)
        categories = [float(value) for value in categories]
    codes = pd.Index(categories).get_indexer(pd.Index(column.array))
    found = np.where(codes < 0, np.nan, codes)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return found
    return np.where(np.isinf(column), np.inf, found)
