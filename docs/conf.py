"""How the documentation is built: `make docs`."""

import re
from pathlib import Path

import interlace_jax

project = "interlace_jax"
author = "interlace_jax contributors"
copyright = author
release = interlace_jax.__version__
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["README.md"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "interlace_jax"
html_extra_path = ["llms.txt"]
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "inherited-members": True}
extensions.append("sphinx.ext.napoleon")
default_role = "code"

SECTIONS = {"Parameters", "Returns", "Raises", "Notes", "Attributes", "Examples"}
ARGUMENT = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*|\w+=): (.*)$")


def paragraphs(app, what, name, obj, options, lines):
    """Docstrings are prose: arguments become a list, code in backticks stays, all other marks
    are literal.
    """
    if SECTIONS & set(map(str.strip, lines)):  # as NumPy's docstrings
        lines[:] = _sections(lines)
        return
    parts, kind = [], None
    for given in lines:
        line = given.strip()
        if line.startswith(">>>") or kind == "example" and line:
            parts.append(["", given, ""])
            kind = "example"
        elif match := ARGUMENT.match(line):
            parts.append(["- ", f"**{match[1]}**: ", match[2]])
            kind = "text"
        elif line.startswith("- "):
            parts.append(["- ", "", line[2:]])
            kind = "text"
        elif line and kind == "text":
            parts[-1][2] += f" {line}"
        elif line:
            parts.append(["", "", line])
            kind = "text"
        else:
            parts.append(["", "", ""])
            kind = None
    lines[:] = [mark + given + literal(text) for mark, given, text in _spaced(parts)] + [""]


def _sections(lines):
    """Bars outside of code and examples mean themselves."""
    is_example = False
    for line in lines:
        is_example = bool(line.strip()) and (is_example or line.strip().startswith(">>>"))
        yield line if is_example or "`" in line else line.replace("|", r"\|")


def _spaced(parts):
    """Paragraphs apart from each other, lines of an example together."""
    previous = None
    for mark, given, text in parts:
        is_example = not mark and bool(given)
        if previous is not None and not (is_example and previous):
            yield "", "", ""
        yield mark, given, text
        previous = is_example


def literal(text):
    """Text whose marks mean themselves, but for code in backticks."""
    parts = re.split(r"(``[^`]+``|`[^`]*`)", text)
    escaped = [p if p.startswith("`") else re.sub(r"([*|\\_:])", r"\\\1", p) for p in parts]
    return "".join(escaped)


def pictures(app):
    """Run the code of the gallery, and save each `picture` where the page shows it."""
    folder = Path(__file__).parent
    (folder / "gallery").mkdir(exist_ok=True)
    names, count = {}, 0
    for block in re.findall(
        r"^```python\n(.*?)^```$", (folder / "gallery.md").read_text(), re.M | re.S
    ):
        exec(block, names)
        if "picture =" in block:
            count += 1
            names["picture"].save(folder / "gallery" / f"{count}.png", dpi=110, verbose=False)


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", pictures)
    app.connect("autodoc-process-docstring", paragraphs, priority=100)  # before napoleon
