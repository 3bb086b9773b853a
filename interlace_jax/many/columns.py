"""Responses as columns that are read in slices, from memory or a file, and never other than they
were fitted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..support.arguments import listed, numbers

# bytes of an array in memory up to which it is copied, so that later changes do not matter
COPIED = 2**30


class Labelled(NamedTuple):
    """Columns of numbers that are read in slices, as `fit_many` takes them for `responses` and
    `weights`, with a label each.

    >>> import numpy as np
    >>> import pandas as pd
    >>> from interlace_jax.many.columns import Labelled
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> reaction = sleep["Reaction"].to_numpy()
    >>> labels = pd.Index(["log", "root"], name="scale")
    >>> responses = Labelled(np.column_stack([np.log(reaction), np.sqrt(reaction)]), labels)
    >>> many = interlace_jax.fit_many("~ Days + (1 | Subject)", sleep, responses=responses)
    >>> many.fe_params["Days"].round(3)
    scale
    log     0.034
    root    0.296
    Name: Days, dtype: float64
    """

    values: Any
    """(rows, models): an array, or anything with `ndim`, `shape`, `dtype` and slices of columns
    that NumPy can read.
    """
    columns: pd.Index
    "(models,) what tells the models apart."


class Columns:
    """Columns (rows, models) of numbers, read as float64.

    A column that is read again must be what it was: a sum over its bits tells.
    """

    def __init__(self, values: Any):
        self._values = values
        self._sums = np.zeros(values.shape[1], np.uint64)
        self._is_read = np.zeros(values.shape[1], bool)

    @classmethod
    def snapshot(cls, values: Any) -> Columns:
        """Columns of a user's: a copy of what is in memory, up to a size; files and larger
        arrays are watched.
        """
        is_small = isinstance(values, np.ndarray) and values.nbytes <= COPIED
        return cls(values.copy() if is_small and not _is_mapped(values) else values)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and models."""
        return self._values.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        """Columns from start to stop; ValueError if the user has changed them since they were
        first read.
        """
        stop = min(stop, self.shape[1])
        found = np.asarray(self._values[:, start:stop], float)
        self._check(found, slice(start, stop))
        return found

    def _check(self, found: np.ndarray, places: slice) -> None:
        sums = _bit_sums(found)
        changed = self._is_read[places] & (self._sums[places] != sums)
        if changed.any():
            where = places.start + np.flatnonzero(changed)
            raise ValueError(
                f"the responses in columns {listed(where, 5)} have changed since they were "
                "fitted, and what is asked for needs them: leave the array or file as it was, or "
                "give fit_many a copy"
            )
        self._sums[places], self._is_read[places] = sums, True


def _is_mapped(values: np.ndarray) -> bool:
    """Whether an array, or what it is a view of, lies in a file."""
    while values is not None:
        if isinstance(values, np.memmap):
            return True
        values = getattr(values, "base", None)
    return False


def _bit_sums(values: np.ndarray) -> np.ndarray:
    """Sums (r,) over the bits of every column (n, r), rows weighted so that an exchange of two
    shows.
    """
    bits = np.ascontiguousarray(values).view(np.uint64)
    weights = 2 * np.arange(len(bits), dtype=np.uint64) + 1
    mixed = weights * np.uint64(0x9E3779B97F4A7C15)
    return np.einsum("n,nr->r", mixed, bits)  # modulo 2^64


def matrix_of_numbers(values: Any, what: str) -> Any:
    """A two-dimensional array, or something like it that has slices of columns, checked without
    reading it.
    """
    if getattr(values, "ndim", 0) != 2:
        raise TypeError(
            f"{what} must be a frame, a two-dimensional array (rows, models), or a list of column "
            "names"
        )
    if not values.shape[1]:
        raise ValueError(f"{what} has no columns")
    is_plain = values.dtype.kind in "fiu" and not np.ma.isMaskedArray(values)
    return values if is_plain else numbers(what, values)
