"""Every script of examples/ runs and agrees with its reference; the README prints what it says
it prints.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"(-?\d\S*) +\| +(-?\d\S*)$", re.MULTILINE)  # ours | reference


@pytest.mark.parametrize(
    "script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem
)
def test_example_runs_and_agrees_with_its_reference(script):
    settings = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "INTERLACE_EXAMPLE_SIZE": "small"}
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env=os.environ | settings,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    rows = ROW.findall(done.stdout)
    assert rows, "the script compares nothing"
    np.testing.assert_allclose(*np.array(rows, float).T, rtol=1e-5)


def test_readme_prints_what_it_shows():
    blocks = re.findall(
        r"^```(python|text)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    names = {}
    assert [kind for kind, _ in blocks] == ["python", "text"] * (len(blocks) // 2)
    for (_, code), (_, output) in zip(blocks[::2], blocks[1::2], strict=True):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == output
