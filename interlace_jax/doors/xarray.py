"""Results of many fits as an xarray Dataset on the coordinates of the responses.

The other way needs nothing: `fit_many(responses=)` takes a DataArray.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..many.fits import ManyFits, with_labels

try:
    import xarray
except ImportError as err:
    raise ImportError(
        "interlace_jax.doors.xarray needs xarray: python -m pip install xarray"
    ) from err

KEYS = ("coefficient", "hypothesis", "term", "contrast", "level")
FACTS = ("sigma", "llf", "nobs", "converged", "is_singular", "status")


def to_xarray(
    many: ManyFits, table: pd.DataFrame | None = None, keys: Sequence[str] | None = None
) -> xarray.Dataset:
    """A table of many fits as arrays (the dimensions of the models, keys).

    Parameters
    ----------
    many
        Fits as `fit_many` gives them.
    table
        A table of theirs with the labels of the models in front, as `many.test(...)`,
        `many.anova()`, `many.moderate(...)` or the `nodes` of `many.clusters(...)`. By default
        estimates and tests of all coefficients, with `sigma`, `llf`, `nobs`, `converged`,
        `is_singular` and `status` of each model.
    keys
        Columns that tell the rows of one model apart, and become dimensions: by default those of
        the names that tables use (`coefficient`, `hypothesis`, `term`, `contrast`, `level`); say
        which for marginal means (`keys=["dose"]`).

    Returns
    -------
    A Dataset whose variables are the other columns; what the table does not have is missing there.
    Its attributes are `formula`, `method` and `df_method`.

    Raises
    ------
    ValueError
        For a table without the labels in front, or whose keys do not tell its rows apart.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> from interlace_jax.doors.xarray import to_xarray
    >>> to_xarray(many)["t"].sel(coefficient="Days").round(1).values
    array([7.1, 7. , 7.6, 9.2])
    """
    attributes = dict(formula=str(many.work.formula), method=many.method, df_method=many.df_method)
    if table is not None:
        return _dataset(many, table, keys).assign_attrs(attributes)
    facts = pd.DataFrame({name: getattr(many, name) for name in FACTS})
    whole = _dataset(many, with_labels(facts, many.labels), ())
    return whole.assign(_dataset(many, many.to_frame(), keys)).assign_attrs(attributes)


def _dataset(many: ManyFits, table: pd.DataFrame, keys: Sequence[str] | None) -> xarray.Dataset:
    """The columns of a table as arrays over labels and keys, in the order in which these occur."""
    labels = list(table.columns[: many.labels.nlevels])
    if keys is None:
        keys = [name for name in KEYS if name in table]
    dims = [*labels, *keys]
    _check(many, table, dims, len(labels))
    codes, levels = zip(*(pd.factorize(table[name]) for name in dims), strict=True)
    coordinates = dict(zip(dims, map(np.asarray, levels), strict=True))
    shape = tuple(map(len, levels))
    columns = {
        name: (dims, _scattered(table[name], codes, shape)) for name in table if name not in dims
    }
    return xarray.Dataset(columns, coordinates)


def _check(many: ManyFits, table: pd.DataFrame, dims: list[str], count: int) -> None:
    first = pd.MultiIndex.from_frame(table[dims[:count]]) if count > 1 else table[dims[0]]
    if not first.isin(many.labels).all():
        raise ValueError(
            f"the table has {', '.join(map(repr, dims[:count]))} in front, which is not what the "
            "models are called: give a long table, as many.test(...) makes it"
        )
    if table.duplicated(dims).any():
        raise ValueError(
            f"the table has several rows for the same {', '.join(dims)}: say by keys= which "
            "columns tell them apart"
        )


def _scattered(column: pd.Series, codes: Sequence[np.ndarray], shape: tuple[int, ...]) -> Any:
    """Values at their places; missing where there is none."""
    values = column.to_numpy()
    if values.dtype.kind not in "biuf":
        values = column.to_numpy(object)
    elif len(values) < np.prod(shape):
        values = values.astype(float)
    empty = {"O": None, "f": np.nan}.get(values.dtype.kind, 0)
    found = np.full(shape, empty, values.dtype)
    found[tuple(codes)] = values
    return found
