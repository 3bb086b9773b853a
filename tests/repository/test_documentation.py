"""Pages are true: their code runs and prints what they show, their formulas fit designs, their
messages exist.
"""

import ast
import contextlib
import doctest
import functools
import importlib
import inspect
import io
import re
import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import interlace_jax as interlace
from interlace_jax import plot

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def own_precision():
    """A page may switch JAX to 64 bits; what comes after it has the setting of the process."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.usefixtures("own_precision")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_prints_what_it_shows(page):
    names, printed = {}, ""
    for kind, block in BLOCK.findall(page.read_text()):
        if kind == "text":
            assert printed == block
        else:
            with contextlib.redirect_stdout(io.StringIO()) as caught:
                exec(block, names)
            printed = caught.getvalue()


# Classes whose members, functions in their body, are verbs for users; the methods of others are
# shown by the example of their class.
FACES = (
    interlace.Fit,
    interlace.GeneralizedFit,
    interlace.Many,
    interlace.GeneralizedMany,
    interlace.Model,
    interlace.Table,
)
INNER = {"Fit.coefficients"}  # an argument of other verbs
NOT_RUN = {
    # of packages that the tests do not install
    "doors.anndata.layer",
    "doors.anndata.put",
    "doors.mne.adjacency",
    "doors.mne.responses",
    "doors.mne.to_evoked",
    # seconds of compilation for what a page or the tests of the function run too
    "Antedependence",
    "BoundaryAvoiding",
    "CompoundSymmetry",
    "Fit.cross_val",
    "GeneralizedMany",
    "GeneralizedMany.anova",
    "Many.permutation_test",
    "Matern",
    "SquaredExponential",
    "bayes.log_density.log_density",
    "cross_val",
    "deviance",
    "eqx.GeneralizedRandomEffects",
    "eqx.RandomEffects",
    "estimate",
    "log_likelihood",
    "moments",
    "numpyro.MixedModel",
    "predict",
    "random_effects",
    "sklearn.MixedEffects",
}


def public():
    """By name everything that the reference lists, but for warnings, and the verbs of results."""
    page = (ROOT / "docs/reference.rst").read_text()
    found = {}
    for name in re.findall(r"auto\w+:: interlace_jax\.([\w.]+)", page):
        module, _, member = f"interlace_jax.{name}".rpartition(".")
        found[name] = getattr(importlib.import_module(module), member)
    for face in FACES:
        found |= {f"{face.__name__}.{name}": v for name, v in vars(face).items() if _is_verb(v)}
    return {
        name: value
        for name, value in found.items()
        if not (inspect.isclass(value) and issubclass(value, Warning)) and name not in INNER
    }


def _is_verb(value):
    is_function = inspect.isfunction(value) and not value.__name__.startswith("_")
    return is_function and not (value.__doc__ or "").startswith("Refused")


PUBLIC = public()


def test_everything_public_has_an_example():
    assert [name for name, value in PUBLIC.items() if ">>> " not in (value.__doc__ or "")] == []


def test_the_list_of_examples_that_are_not_run_is_not_stale():
    assert set(PUBLIC) >= NOT_RUN


@pytest.mark.usefixtures("own_precision")
@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - NOT_RUN))
def test_example_of_a_docstring_prints_what_it_shows(name):
    names = {"__name__": "__main__", "interlace_jax": interlace, "plot": plot}
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    tests = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs=names)
    found = [doctest.DocTestRunner(optionflags=flags).run(test) for test in tests]
    assert found and all(result.attempted and not result.failed for result in found)


def study(rows=480):
    """A frame with every column that the page of designs names; classes lie in schools, pieces
    in plots.
    """
    rng = np.random.default_rng(0)
    number = {name: rng.standard_normal(rows) for name in ("y", "x", "pre", "x_within", "x_mean")}
    text = {
        name: rng.choice([f"{name}{i}" for i in range(m)], rows)
        for name, m in dict(
            condition=2,
            treatment=2,
            prime=2,
            freq=2,
            period=2,
            variety=3,
            nitrogen=4,
            sex=2,
            subject=40,
            item=20,
        ).items()
    }
    groups = {
        name: rng.choice([f"{name}{i:02}" for i in range(m)], rows)
        for name, m in dict(
            school=12,
            classroom=4,
            site=10,
            block=6,
            part=10,
            operator=3,
            person=30,
            rater=8,
            user=50,
            product=30,
        ).items()
    }
    visits = dict(id=np.arange(rows) // 4, visit=np.arange(rows) % 4, time=np.arange(rows) % 4.0)
    arms = np.where(visits["id"] % 2, "active", "placebo")
    return pd.DataFrame(number | text | groups | visits | dict(arm=arms, animal=text["subject"]))


def formulas():
    table = (ROOT / "docs/designs.md").read_text().replace(r"\|", "|")
    pattern = r"^\| .*? \| `([^`]*~[^`]*)`(?: with `(residual|dispersion)=\"(.*?)\"`)?"
    return re.findall(pattern, table, re.MULTILINE)


@pytest.fixture(scope="module")
def frame():
    return study()


def test_there_are_twenty_designs():
    assert len(formulas()) >= 20


@pytest.mark.parametrize(("formula", "argument", "value"), formulas())
def test_formula_of_a_design_has_a_likelihood(formula, argument, value, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = interlace.compile(formula, frame, **({argument: value} if argument else {}))
    assert len(model.design.y) == len(frame)
    assert model.design.factors or argument


@functools.cache
def sentences():
    """The texts of the package, joined where a name is put in, with a gap there."""
    return frozenset(_texts())


def _texts():
    for path in (ROOT / "interlace_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "\0".join(v.value for v in node.values if isinstance(v, ast.Constant))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def messages():
    return re.findall(r'^### "(.*)"$', (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_message_of_troubleshooting_is_one_of_the_package(message):
    parts = [part.strip(" '") for part in message.split("...") if part.strip(" ':;,")]
    assert any(all(part.strip() in text for part in parts) for text in sentences()), parts


def test_the_reference_has_everything_public():
    page = (ROOT / "docs/reference.rst").read_text()
    documented = set(re.findall(r"auto\w+:: interlace_jax\.([\w.]+)", page))
    public = {
        n for n, v in vars(interlace).items() if not n.startswith("_") and not inspect.ismodule(v)
    }
    plots = {f"plot.{n}" for n, v in vars(plot).items() if inspect.isfunction(v)}
    doors = {
        "sklearn.MixedModelRegressor",
        "nnx.RandomEffects",
        "eqx.RandomEffects",
        "numpyro.MixedModel",
        "sklearn.MixedEffects",
        "sklearn.RandomEffectsEncoder",
    }
    everything = public | plots | doors
    assert everything <= documented, "docs/reference.rst lists what is exported"
    for name in documented - everything:
        module, _, member = f"interlace_jax.{name}".rpartition(".")
        assert hasattr(importlib.import_module(module), member), (
            f"{name} is in the reference, but not there"
        )


def test_the_gallery_shows_every_plot():
    page = (ROOT / "docs/gallery.md").read_text()
    shown = set(re.findall(r"picture = plot\.(\w+)\(", page))
    assert shown == {n for n, v in vars(plot).items() if inspect.isfunction(v)}
    numbers = [int(n) for n in re.findall(r"gallery/(\d+)\.png", page)]
    assert numbers == list(range(1, page.count("picture =") + 1))


def test_every_page_is_in_the_contents():
    index = (ROOT / "docs/index.md").read_text()
    assert {page.stem for page in PAGES if page.stem != "index"} <= set(
        re.findall(r"^(\w+)$", index, re.MULTILINE)
    )
