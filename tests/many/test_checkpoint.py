"""A run of fit_many that is killed goes on from its checkpoint, and ends as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.interrupted import LANES, data, run
from pandas.testing import assert_frame_equal

import interlace_jax as interlace
from interlace_jax.many.lanes import Rounds

ROOT = Path(__file__).parents[2]
CHUNKS = LANES // 32


@pytest.fixture(autouse=True)
def chunks_as_they_were(monkeypatch):
    monkeypatch.setattr("interlace_jax.many.chunks.MOST_LANES", 32)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run with a checkpoint of its own: those without one may run as NumPy, to rounding."""
    return run(tmp_path_factory.mktemp("uninterrupted"))


def _start(folder, result):
    command = [sys.executable, ROOT / "tests" / "helpers" / "interrupted.py", folder, result]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    )


def test_a_killed_run_goes_on_and_ends_byte_equal(tmp_path, uninterrupted):
    folder, result = tmp_path / "checkpoint", tmp_path / "result.parquet"
    rng = np.random.default_rng(6)
    kept = [0]
    while not result.exists():
        process = _start(folder, result)
        goal = kept[-1] + int(rng.integers(1, 9))
        while process.poll() is None and len(list(folder.glob("*.parquet"))) < goal:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))  # anywhere between two files, or in one
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.append(len(list(folder.glob("*.parquet"))))
        if kept[-1] == CHUNKS:
            assert _start(folder, result).wait() == 0
    assert len(kept) > 3 and kept == sorted(kept)
    expected = uninterrupted.certificate.join(
        [uninterrupted.fe_params, uninterrupted.fe_bse.add_prefix("se_"), uninterrupted.status]
    )
    assert_frame_equal(pd.read_parquet(result), expected, check_exact=True)


def test_a_finished_run_is_read_back_with_all_its_types(tmp_path, uninterrupted):
    first, again = run(tmp_path), run(tmp_path)
    assert_frame_equal(first._table, again._table, check_exact=True)
    assert_frame_equal(uninterrupted._table, again._table, check_exact=True)


def test_chunks_and_rounds_stay_as_they_began(tmp_path, monkeypatch, uninterrupted):
    run(tmp_path)
    for file in list(tmp_path.glob("*.parquet"))[::2]:
        file.unlink()
    monkeypatch.setattr("interlace_jax.many.chunks.MOST_LANES", 2048)
    monkeypatch.setattr(
        "interlace_jax.many.responses.ROUNDS", Rounds(first=3, later=2, smallest=128)
    )
    frame, Y = data()
    resumed = interlace.fit_many(
        "~ x + (1 | g)", frame, responses=Y, checkpoint=tmp_path, progress=False
    )
    assert_frame_equal(resumed._table, uninterrupted._table, check_exact=True)
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["size"] == 32 and kept["rounds"] == list(Rounds())


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    frame, Y = data()
    Y = Y[:, :32]
    arguments = dict(checkpoint=tmp_path, progress=False)
    interlace.fit_many("~ x + (1 | g)", frame, responses=Y, **arguments)
    others = [
        ("its data is", "~ x + (1 | g)", frame, Y + 1e-6, {}),
        ("its data is", "~ x + (1 | g)", frame, Y + 1e-6 * (np.arange(32) == 7), {}),
        ("its data is", "~ x + (1 | g)", frame.assign(x=frame["x"][::-1].to_numpy()), Y, {}),
        ("its models is", "~ x + (1 | g)", frame, Y[:, :31], {}),
        ("its formula is", "~ (1 | g)", frame, Y, {}),
        ("its method is", "~ x + (1 | g)", frame, Y, dict(method="ML")),
        ("its dtype is", "~ x + (1 | g)", frame, Y, dict(dtype="float32")),
    ]
    for message, formula, data_, responses, more in others:
        with pytest.raises(ValueError, match=message):
            interlace.fit_many(formula, data_, responses=responses, **arguments, **more)


def test_a_file_is_no_checkpoint(tmp_path):
    frame, Y = data()
    (tmp_path / "run").touch()
    with pytest.raises(ValueError, match="is a file"):
        interlace.fit_many("~ x + (1 | g)", frame, responses=Y[:, :2], checkpoint=tmp_path / "run")


def test_groups_go_on_from_a_checkpoint_too(tmp_path):
    frame, Y = data()
    frame = pd.concat(
        [frame.assign(y=Y[:, j], gene=f"gene{j}") for j in (0, 1, 2, 40)], ignore_index=True
    )
    whole = interlace.fit_many("y ~ x + (1 | g)", frame, by="gene", checkpoint=tmp_path)
    again = interlace.fit_many("y ~ x + (1 | g)", frame, by="gene", checkpoint=tmp_path)
    assert_frame_equal(whole._table, again._table, check_exact=True)
    with pytest.raises(ValueError, match="its data is"):
        interlace.fit_many(
            "y ~ x + (1 | g)", frame.assign(y=frame["y"] * 2), by="gene", checkpoint=tmp_path
        )
