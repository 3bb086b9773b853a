"""What strangers meet first: one version, extras that exist, commands that agree, metadata that
is true.
"""

import re
import tomllib
from pathlib import Path

import pytest

import interlace_jax

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OUTDIR = '-m build --outdir "$scratch/dist"'
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md")),
]


def test_the_version_stands_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "interlace_jax/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", interlace_jax.__version__)
    assert f"## {interlace_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_python_that_is_promised_is_tested():
    classified = {
        c.rpartition(" ")[2]
        for c in PROJECT["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", c)
    }
    workflow = (ROOT / ".github/workflows/tests.yml").read_text()
    assert classified == set(re.findall(r'"(3\.\d+)"', workflow))
    assert PROJECT["project"]["requires-python"] == f">={min(classified)}"


def test_steps_of_the_makefile_are_those_of_the_whole_check():
    recipes = re.findall(r"^\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    whole = " ".join((ROOT / ".ci/run").read_text().replace("\\\n", " ").split())
    own = {
        "build/site": '"$scratch/site"',
        "dist/*": '"$scratch"/dist/*',
        "-m build": '-m build --outdir "$scratch/dist"',
    }
    for recipe in recipes:
        for here, there in own.items():
            recipe = recipe.replace(here, there)
        assert recipe == ".ci/run" or " ".join(recipe.split()) in whole


@pytest.mark.parametrize("page", PAGES)
def test_extras_that_pages_name_exist(page):
    text = (ROOT / page).read_text()
    named = {name for extras in re.findall(r'"\.\[([\w,]+)\]"', text) for name in extras.split(",")}
    assert named <= set(PROJECT["project"]["optional-dependencies"])
    assert "interlace_jax[" not in text, (
        "an extra is installed from the clone until there is a release"
    )


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_link_to_exist(page):
    folder = (ROOT / page).parent
    for target in re.findall(
        r"\]\((?!gallery/)([^)#:]+)(?:#[\w-]+)?\)", (ROOT / page).read_text()
    ):  # made by the build
        assert (folder / target).exists(), target
