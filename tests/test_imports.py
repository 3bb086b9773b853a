"""The wall between arrays and names: what each file may import."""

import ast
import sys
from pathlib import Path

import pytest

import interlace_jax

PACKAGE = Path(interlace_jax.__file__).parent
FILES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
PURE = {
    "structure",
    "pairs",
    "crossproducts",
    "covariance",
    "families",
    "linalg",
    "likelihood",
    "optimize",
    "estimation",
    "modes",
    "inference",
    "kenward_roger",
    "profile",
    "sensitivity",
    "sparse_products",
    "krylov",
    "iterative",
}

every_file = pytest.mark.parametrize("name", FILES)


def tree(name):
    return ast.parse(FILES[name].read_text())


def imported(nodes):
    """(module, name) pairs; modules of the package without its name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ("." * node.level + (node.module or "")).replace("interlace_jax", ".", 1).replace("...", ".")
            yield from ((module, alias.name) for alias in node.names)


def own(nodes):
    """Files of the package that are imported."""
    for module, name in imported(nodes):
        if module in (".", ".."):
            yield name if name in FILES else "__init__"
        elif module.startswith("."):
            yield module.lstrip(".").split(".")[0]


def at_run_time(name):
    """Statements outside `if TYPE_CHECKING`."""
    body = [n for n in tree(name).body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))]
    return [inner for node in body for inner in ast.walk(node)]


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_files_import_arrays_and_each_other_only(name):
    nodes = list(ast.walk(tree(name)))
    outside = {module.split(".")[0] for module, _ in imported(nodes) if not module.startswith(".")}
    assert outside - set(sys.stdlib_module_names) <= {"jax", "numpy"}
    assert set(own(nodes)) <= PURE


def test_every_pure_file_exists():
    assert set(FILES) >= PURE


@every_file
def test_nothing_is_imported_inside_a_function(name):
    functions = [n for n in ast.walk(tree(name)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    inside = [inner for function in functions for inner in ast.walk(function)]
    assert not [ast.unparse(node) for node in inside if isinstance(node, ast.Import | ast.ImportFrom)]


def test_there_are_no_cycles():
    edges = {name: set(own(at_run_time(name))) - {name} for name in FILES}
    while leaves := {name for name, needs in edges.items() if not needs & set(edges)}:
        edges = {name: needs for name, needs in edges.items() if name not in leaves}
    assert not edges


@every_file
def test_no_file_uses_the_front_door(name):
    assert "__init__" not in set(own(at_run_time(name)))


def test_the_front_door_only_exports():
    allowed = ast.ImportFrom | ast.Expr | ast.Assign
    assert all(isinstance(node, allowed) for node in tree("__init__").body)
    assert not [m for m, _ in imported(tree("__init__").body) if not m.startswith(".")]


@every_file
def test_only_compute_touches_the_configuration_of_jax(name):
    text = FILES[name].read_text()
    if name != "compute":
        assert "config.update" not in text and "enable_x64" not in text
