"""Arguments and results of programs as flat lists of arrays, and what else they say.

Imports no JAX.

Containers are tuples, lists, dictionaries, named tuples, and dataclasses that say `__container__ =
True`, whose fields with `metadata=dict(static=True)` hold no arrays. Arrays and numbers are leaves,
but whole numbers of Python, which are static as everything else.

A container may say which of its sizes a program need not know: `generalised`, itself with a `Size`
in place of such sizes and names of dimensions ("_ m0", `_` for a size that counts) in place of
arrays; and `sizes`, their values.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...support.containers import Size

# that an open number of rows "n" stands for; also at least the number of coefficients "p"
FEWEST_ROWS = 16
PACKAGE = __name__.partition(".")[0]


def is_size(value) -> bool:
    """Whether this is a `Size`, or a symbolic size of JAX."""
    return isinstance(value, Size) or hasattr(value, "dimension_as_value")


@dataclass(frozen=True)
class Static:
    """What a program is made for, as it is."""

    value: Any


@dataclass(frozen=True)
class Leaf:
    """An array: its type and shape, in which a `Size` may stand."""

    dtype: str
    shape: tuple[int | Size, ...]


@dataclass(frozen=True)
class Node:
    """A container: its kind, and its parts (by name for dictionaries and dataclasses)."""

    kind: type
    names: tuple[Any, ...] | None
    parts: tuple[Any, ...]

    def __hash__(self):
        """Computed once: trees are keys."""
        known = vars(self).get("_hash")
        if known is None:
            known = vars(self)["_hash"] = hash((self.kind, self.names, self.parts))
        return known


class Unnamed(ValueError):
    """An object that no other process knows by a name."""


class Conflict(ValueError):
    """Sizes that a program cannot leave open together: two of one name, or fewer rows than there
    may be columns.
    """


def is_container(value) -> bool:
    """Whether a dataclass counts as a container."""
    return getattr(type(value), "__container__", False)


def is_leaf(value) -> bool:
    """Whether this is an array or a number."""
    return isinstance(value, bool | float | np.ndarray | np.generic) or (
        hasattr(value, "dtype") and hasattr(value, "shape")
    )


class Flat:
    """A value taken apart: `leaves`, the `tree` they came from, and the `sizes` that stand in
    it.
    """

    def __init__(self, value, dims=None, general: bool = True):
        self.leaves: list = []
        self.sizes: dict[str, int] = {}
        self._general = general
        self.tree = self._taken(value, dims if general else None)
        rows = self.sizes.get("n", np.inf)
        if rows < max(FEWEST_ROWS, self.sizes.get("p", 0)):
            raise Conflict("too few rows")

    def _taken(self, value, general):
        if value is None:
            return None
        if is_leaf(value):
            return self._leaf(value, general)
        if isinstance(value, dict):
            names = tuple(sorted(value))
            parts = [(value[name], general and general[name]) for name in names]
            return Node(dict, names, tuple(self._taken(*part) for part in parts))
        if isinstance(value, list | tuple):
            if isinstance(general, dict):
                general = [general.get(name) for name in value._fields]
            inner = general if isinstance(general, list | tuple) else [general] * len(value)
            return Node(type(value), None, tuple(map(self._taken, value, inner)))
        if is_container(value):
            return self._container(value, general)
        return Static(value if general is None else general)

    def _container(self, value, general):
        if self._general and general is None and hasattr(value, "generalised"):
            general = value.generalised
            return self._closed(value) if general is None else self._kept(value, general)
        return self._parts(value, general)

    def _kept(self, value, general):
        """A container taken apart once: its leaves, tree and sizes are kept with it."""
        if "_flat" not in vars(value):
            flat = Flat.__new__(Flat)
            flat.leaves, flat.sizes, flat._general = [], {}, True
            flat.tree = _interned(flat._parts(value, general))
            vars(value)["_flat"] = flat
        flat = vars(value)["_flat"]
        self.leaves += flat.leaves
        self._add(flat.sizes)
        return flat.tree

    def _parts(self, value, general):
        if general is not None:
            self._add(getattr(value, "sizes", {}))
        names, parts = [], []
        for name, is_static in _fields(type(value)):
            part = getattr(value, name)
            inner = None if general is None else getattr(general, name)
            names.append(name)
            if is_static:
                parts.append(Static(part if inner is None else inner))
            else:
                parts.append(self._taken(part, inner))
        return Node(type(value), tuple(names), tuple(parts))

    def _closed(self, value):
        """A container whose sizes all count, those of its parts included."""
        self._general = False
        taken = self._container(value, None)
        self._general = True
        return taken

    def _add(self, sizes):
        for name, size in sizes.items():
            if self.sizes.setdefault(name, size) != size:
                raise Conflict(f"{name} is {self.sizes[name]} and {size}")

    def _leaf(self, value, dims):
        self.leaves.append(value)
        if isinstance(value, bool):
            return Leaf("bool", ())
        if isinstance(value, float):
            return Leaf("float64", ())
        shape = tuple(value.shape)
        if dims is None:
            return Leaf(_dtype_name(value.dtype), shape)
        found = list(shape)
        for i, (size, is_name) in enumerate(_dimensions(dims)[: len(shape)]):
            if size is None or shape[i] == 0:
                continue
            if size[0] == "+":
                found[i] = self._more(shape[i], size[1:])
                continue
            found[i] = size
            if is_name:
                self._add({size: shape[i]})
        return Leaf(_dtype_name(value.dtype), tuple(found))

    def _more(self, size: int, name: str) -> int | Size:
        """A size that is another and a number that counts; as it is where the other is not open."""
        return Size(f"{size - self.sizes[name]}+{name}") if name in self.sizes else size


@functools.cache
def _fields(kind: type) -> list[tuple[str, bool]]:
    """The fields of a container, and which of them are static."""
    return [(f.name, bool(f.metadata.get("static"))) for f in dataclasses.fields(kind)]


@functools.lru_cache(1024)
def _dimensions(dims: str) -> list[tuple[Size | None, bool]]:
    """Sizes named in a description of an array, None where one counts; whether each is a name."""
    return [(None if d == "_" else Size(d), d.isidentifier()) for d in dims.split(" ")]


@functools.cache
def _dtype_name(dtype) -> str:
    """NumPy makes these names anew every time."""
    return dtype.name


@functools.lru_cache(1024)
def _interned(tree: Node) -> Node:
    """One tree for all that are equal, which a dictionary tells without looking inside."""
    return tree


def rebuilt(tree, leaves, size=None):
    """The value of a tree with other leaves (an iterator); size: what becomes of every `Size` in
    what is static.
    """
    if tree is None:
        return None
    if isinstance(tree, Leaf):
        return next(leaves)
    if isinstance(tree, Static):
        return tree.value if size is None else substituted(tree.value, size)
    parts = [rebuilt(part, leaves, size) for part in tree.parts]
    if tree.kind is dict:
        return dict(zip(tree.names, parts, strict=True))
    if tree.names is not None:
        return tree.kind(**dict(zip(tree.names, parts, strict=True)))
    return tree.kind(*parts) if hasattr(tree.kind, "_fields") else tree.kind(parts)


def substituted(value, size):
    """A static value with `size` of every `Size` in it."""
    if is_size(value):
        return size(value)
    if type(value) in (tuple, list):
        return type(value)(substituted(v, size) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        old = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        new = {name: substituted(v, size) for name, v in old.items()}
        return (
            value
            if all(new[name] is old[name] for name in old)
            else dataclasses.replace(value, **new)
        )
    return value


def leaves_of(tree) -> list[Leaf]:
    """The leaves of a tree in order."""
    if isinstance(tree, Leaf):
        return [tree]
    return (
        [leaf for part in tree.parts for leaf in leaves_of(part)] if isinstance(tree, Node) else []
    )


class Source:
    """Values as Python source, with the imports that it needs.

    An object without a name (of another package, or made by hand) raises `Unnamed`, or is put into
    `objects`.
    """

    def __init__(self, objects: dict[str, Any] | None = None):
        self.imports: set[str] = set()
        self.objects = objects

    def of(self, value) -> str:
        """A static value."""
        if is_size(value):
            return str(value)
        if value is None or isinstance(value, bool | int | str | np.bool_):
            return repr(value)
        if isinstance(value, float):
            return f"float({str(value)!r})"
        if type(value) in (tuple, list):
            inner = "".join(f"{self.of(v)}, " for v in value)
            return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
        if isinstance(value, type | types.FunctionType):
            return self._known(value, value)
        if "__dataclass_fields__" in vars(type(value)):  # of its own: others hold more than these
            fields = [f for f in dataclasses.fields(value) if f.init]
            inner = ", ".join(f"{f.name}={self.of(getattr(value, f.name))}" for f in fields)
            return f"{self._known(type(value), type(value))}({inner})"
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            inner = "".join(self.of(v) + ", " for v in value)
            return f"{self._known(type(value), type(value))}({inner})"
        return self._object(value)

    def tree(self, tree, leaves) -> str:
        """The value of a tree; leaves: an iterator of expressions."""
        if tree is None:
            return "None"
        if isinstance(tree, Leaf):
            return next(leaves)
        if isinstance(tree, Static):
            return self.of(tree.value)
        parts = [self.tree(part, leaves) for part in tree.parts]
        if tree.kind is dict:
            return (
                "{" + "".join(f"{n!r}: {p}, " for n, p in zip(tree.names, parts, strict=True)) + "}"
            )
        if tree.names is not None:
            inner = ", ".join(f"{n}={p}" for n, p in zip(tree.names, parts, strict=True))
            return f"{self._known(tree.kind, tree.kind)}({inner})"
        inner = "".join(f"{p}, " for p in parts)
        if tree.kind is list:
            return f"[{inner}]"
        return (
            f"({inner})" if tree.kind is tuple else f"{self._known(tree.kind, tree.kind)}({inner})"
        )

    def _known(self, kind, value):
        """The name of a class or function of this package, which is imported."""
        # code that was executed as text has no module
        module, name = kind.__module__ or "", kind.__qualname__
        if module.partition(".")[0] != PACKAGE or not name.isidentifier():
            return self._object(value)
        self.imports.add(f"from {module} import {name}")
        return name

    def _object(self, value):
        if self.objects is None:
            raise Unnamed(repr(value))
        for name, other in self.objects.items():
            if other is value:
                return name
        name = f"o{len(self.objects)}"
        self.objects[name] = value
        return name


def described(tree) -> str:
    """A tree as text that is the same in every process.

    Raises `Unnamed` where it holds what has no name.
    """
    source = Source()
    text = source.tree(
        tree, (f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for leaf in leaves_of(tree))
    )
    return "\n".join([*sorted(source.imports), text])
