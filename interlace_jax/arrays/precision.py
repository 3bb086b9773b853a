"""Arrays of any kind in JAX's own precision."""

from __future__ import annotations

import numpy as np

from ..runtime.island import floating
from ..support.later import is_jax_array, jnp


def in_own_precision(values):
    """Numbers of any kind as floats of JAX's own width: float64 in its 64-bit mode, else float32.
    None stays.
    """
    if values is None:
        return None
    own = jnp.result_type(float)
    values = values if is_jax_array(values) else np.asarray(values)
    if values.dtype.kind in "biuf":
        return jnp.asarray(values, own)
    return floating(values).astype(own)


def floats_in_own_precision(values):
    """An array in JAX's own precision; whole numbers, which are places of levels and entries, stay
    such.
    """
    values = values if is_jax_array(values) else np.asarray(values)
    return jnp.asarray(values) if values.dtype.kind in "iu" else in_own_precision(values)
