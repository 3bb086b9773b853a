"""The order of the rooms: what each file may import, and where JAX and names of columns stop."""

import ast
import sys
from pathlib import Path

import pytest

import interlace_jax

PACKAGE = Path(interlace_jax.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
ORDER = (
    "datasets",
    "support",
    "runtime",
    "numerics/linalg",
    "numerics/covariance",
    "numerics/families",
    "numerics/crossproducts",
    "numerics/likelihood",
    "numerics/estimation",
    "numerics/uncertainty",
    "design",
    "engines",
    "models",
    "inference",
    "many",
    "maps",
    "resampling",
    "diagnostics",
    "reporting",
    "summary",
    "saving",
    "result",
    "generalized",
    "batch",
    "fitting",
    "doors",
    "arrays",
    "functional",
    "layers",
    "bayes",
    "nnx",
    "eqx",
    "numpyro",
    "plot",
    "sklearn",
    "__init__",
)
# how numerics stays importable without JAX
WITHOUT_JAX = ("support/later.py", "support/containers.py")
PUBLIC_FOLDERS = {"__init__.py", "plot/__init__.py", "sklearn/__init__.py"}

every_file = pytest.mark.parametrize("name", FILES)


def tree(name):
    return ast.parse(FILES[name].read_text())


def room(name):
    """Where in ORDER a file stands; an empty folder file stands with the first of its rooms."""
    if name == "numerics/__init__.py":
        return "numerics/linalg"
    parts = name.removesuffix(".py").split("/")
    return "/".join(parts[:2]) if parts[0] == "numerics" else parts[0]


def imported(name):
    """(module, name) pairs of every import of a file, inside functions too; modules of the
    package as paths.
    """
    folder = name.split("/")[:-1]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - node.level + 1]
            path = "/".join([*base, *(node.module or "").split(".")]).strip("/")
            yield from ((f"./{path}", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def own(name):
    """Files of the package that a file imports."""
    for module, member in imported(name):
        assert not module.startswith("interlace_jax"), (
            "the package imports itself by relative paths"
        )
        if module.startswith("./"):
            path = module[2:]
            inside = f"{path}/{member}.py".strip("/")
            yield (
                inside
                if inside in FILES
                else f"{path}.py"
                if f"{path}.py" in FILES
                else f"{path}/__init__.py"
            )


@every_file
def test_imports_point_down(name):
    if name in PUBLIC_FOLDERS - {"__init__.py"}:
        return
    allowed = ORDER[: ORDER.index(room(name)) + 1]
    assert {other for other in own(name) if room(other) not in allowed} == set()


def test_there_are_no_cycles():
    edges = {name: set(own(name)) - {name} for name in FILES}
    while leaves := {name for name, needs in edges.items() if not needs & set(edges)}:
        edges = {name: needs for name, needs in edges.items() if name not in leaves}
    assert not edges


@every_file
def test_no_type_is_imported_for_checkers_only(name):
    assert "TYPE_CHECKING" not in FILES[name].read_text()


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("numerics/")])
def test_numerics_imports_arrays_and_itself_only(name):
    outside = {module.split(".")[0] for module, _ in imported(name) if not module.startswith("./")}
    assert outside - set(sys.stdlib_module_names) <= {"jax", "numpy"}
    assert all(other.startswith(("numerics/", *WITHOUT_JAX)) for other in own(name))


@every_file
def test_folders_have_no_door_of_their_own(name):
    """Only `plot` and `sklearn` re-export, for users; nothing imports a folder in place of a
    file.
    """
    if name.endswith("__init__.py") and name not in PUBLIC_FOLDERS:
        assert not FILES[name].read_text()
    assert not {other for other in own(name) if other.endswith("__init__.py")}


def test_no_module_or_folder_bears_the_name_of_an_export():
    parts = {part for name in FILES for part in name.removesuffix(".py").split("/")[:1]}
    functions = {name for name in vars(interlace_jax) if callable(getattr(interlace_jax, name))}
    assert not parts & functions


@every_file
def test_nothing_is_imported_inside_a_function(name):
    functions = [
        n
        for n in ast.walk(tree(name))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    inside = [inner for function in functions for inner in ast.walk(function)]
    assert not [
        ast.unparse(node) for node in inside if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def test_the_front_door_only_exports():
    allowed = ast.ImportFrom | ast.Expr | ast.Assign
    assert all(isinstance(node, allowed) for node in tree("__init__.py").body)
    assert not [module for module, _ in imported("__init__.py") if not module.startswith("./")]


@every_file
def test_only_the_runtime_touches_the_configuration_of_jax(name):
    text = FILES[name].read_text()
    if room(name) != "runtime":
        assert "config.update" not in text and "enable_x64" not in text


def test_every_room_has_its_place_in_the_order():
    assert {room(name) for name in FILES} == set(ORDER)
