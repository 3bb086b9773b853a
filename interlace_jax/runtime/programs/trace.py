"""A kernel and a description of its arguments to NumPy source, with the sizes of the data left
open. Imports JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import eval_context

from ...support.containers import Size
from ..calls import own_rules
from . import numpy_code, store
from .trees import (
    FEWEST_ROWS,
    Flat,
    Leaf,
    Node,
    Source,
    Static,
    is_size,
    leaves_of,
    rebuilt,
    substituted,
)


def written(kernel, tree, sizes, objects: dict[str, Any] | None = None) -> numpy_code.Program:
    """The program whose `program(*leaves, **sizes)` returns what kernel(*arguments) does.

    tree: of the arguments, as `Flat` made it; sizes: the names of the sizes in it. objects: takes
    what has no name, which the source finds by the names it gets there; None where that is an error
    (`trees.Unnamed`). Where the kernel must know a size JAX raises an error;
    `numpy_code.NotWritten` where an operation is unknown.
    """
    rules = [f"n >= {FEWEST_ROWS}"] * ("n" in sizes) + ["n >= p"] * ({"n", "p"} <= set(sizes))
    scope, symbols = jax.export.SymbolicScope(rules), {}

    def size(text):
        if text not in symbols:
            (symbols[text],) = jax.export.symbolic_shape(str(text), scope=scope)
        return symbols[text]

    def struct(leaf: Leaf):
        shape = tuple(size(d) if is_size(d) else d for d in leaf.shape)
        return jax.ShapeDtypeStruct(shape, np.dtype(leaf.dtype))

    made: list[Flat] = []

    def flat_kernel(*leaves):
        made[:] = [Flat(kernel(*rebuilt(tree, iter(leaves), size)), general=False)]
        return made[0].leaves

    closed = jax.jit(flat_kernel).trace(*map(struct, leaves_of(tree))).jaxpr
    source, result = Source(objects), _with_names(made[0].tree)
    shapes = [leaf.shape for leaf in leaves_of(result)]

    def returned(names):
        arrays = [
            f"np.asarray({name})" if not shape else name
            for name, shape in zip(names, shapes, strict=True)
        ]
        return source.tree(result, iter(arrays))

    return numpy_code.write(closed, sizes, returned, source.imports)


def _with_names(tree):
    """A tree of results with a `Size` for every symbolic size in what is static."""
    if isinstance(tree, Static):
        return Static(substituted(tree.value, lambda size: Size(str(size).replace("^", "**"))))
    if isinstance(tree, Node):
        return Node(tree.kind, tree.names, tuple(map(_with_names, tree.parts)))
    return tree


def program(kernel, flat: Flat, description: str | None) -> Callable | None:
    """The NumPy function of a kernel for such arguments, which is kept in the store; None where
    there is none.
    """
    objects: dict[str, Any] = {}
    try:
        with eval_context(), jax.enable_x64(True), own_rules():
            made = written(kernel, flat.tree, tuple(flat.sizes), objects)
    except Exception:  # noqa: BLE001 - XLA runs what is not written, and says what is wrong with the arguments
        return None
    if description is not None and not objects:
        store.keep(description, made.source)
    return made.load(**objects)
