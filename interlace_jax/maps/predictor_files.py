"""Candidate predictors in a Parquet file or a pyarrow dataset, read some columns at a time."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..support.arguments import listed


def is_file(predictors: Any) -> bool:
    """Whether candidates are the path of a file or a pyarrow dataset."""
    is_dataset = type(predictors).__module__.startswith("pyarrow._dataset")
    return is_dataset or isinstance(predictors, str | os.PathLike)


class ParquetColumns:
    """Columns of a Parquet file, of a folder of them or of a pyarrow dataset, as an array (rows,
    candidates) of which slices of columns are read.

    Raises ValueError where there is no file, TypeError for columns that are no numbers.
    """

    def __init__(self, source: Any):
        if isinstance(source, str | os.PathLike):
            if not Path(source).exists():
                raise ValueError(f"predictors: there is no file {str(source)!r}")
            arrow = importlib.import_module("pyarrow.dataset")  # optional, and slow to import
            source = arrow.dataset(source, format="parquet")
        self._dataset = source
        self.names = np.array(source.schema.names, object)
        self.shape = (source.count_rows(), len(self.names))
        words = [field.name for field in source.schema if not _is_number(field.type)]
        if words:
            raise TypeError(
                f"predictors must be columns of numbers: leave {listed(words, 5)} out of the file"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: tuple[slice, slice | int]) -> np.ndarray:
        """All rows of some columns, or of one, with NaN for missing values."""
        _, places = key
        names = np.atleast_1d(self.names[places]).tolist()
        table = self._dataset.to_table(columns=names)
        found = np.empty((table.num_rows, len(names)))
        for place, column in enumerate(table.columns):
            found[:, place] = column.cast("float64").to_numpy()
        return found if isinstance(places, slice) else found[:, 0]


def _is_number(of: Any) -> bool:
    types = importlib.import_module("pyarrow.types")
    return types.is_integer(of) or types.is_floating(of) or types.is_boolean(of)
