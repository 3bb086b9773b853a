"""Every notebook runs from top to bottom without a warning, and is stored as it ran."""

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 1_500_000  # bytes

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook):
    """Outputs of all code cells."""
    return [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]


def complaints(notebook):
    """Errors, and what is written to stderr, where warnings go."""
    found = [output for output in outputs(notebook) if output.output_type == "error"]
    streams = [o for o in outputs(notebook) if o.output_type == "stream" and o.name == "stderr"]
    return [o.get("text") or "\n".join(o.get("traceback", [])) for o in found + streams]


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_notebook_runs_without_warnings(path, monkeypatch, tmp_path):
    quiet = dict(MPLBACKEND="Agg", TQDM_DISABLE="1")  # bars appear on slow machines, on stderr
    for name, value in dict(INTERLACE_EXAMPLE_SIZE="small", PYTHONPATH=str(ROOT), **quiet).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", allow_errors=True
    )
    client.execute(cwd=str(tmp_path))
    assert complaints(notebook) == []


@every_notebook
def test_notebook_is_stored_as_it_ran(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs(notebook) and complaints(notebook) == []
    assert path.stat().st_size < LARGEST


@every_notebook
def test_notebook_tells_nothing_of_the_machine_that_it_ran_on(path):
    text = path.read_text()
    for trace in (str(ROOT), "site-packages", "/home/", "/Users/", "/root/", "/tmp/", "C:\\\\"):
        assert trace not in text
