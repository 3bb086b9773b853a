"""Where the chunks of a run, or the cells of a large model, are does not matter: several
devices, or processes.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

ROOT = Path(__file__).parents[2]
FLAGS = os.environ.get("XLA_FLAGS", "")
FOUR = f"{FLAGS} --xla_force_host_platform_device_count=4"


def _start(result, checkpoint="", port=0, count=1, index=0, **environment):
    return _run("layouts.py", result, checkpoint, port, count, index, **environment)


def _run(script, *arguments, **environment):
    command = [sys.executable, ROOT / "tests" / "helpers" / script, *map(str, arguments)]
    environment = (
        os.environ
        | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
        | environment
    )
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of one process on one device."""
    result = tmp_path_factory.mktemp("one") / "result.parquet"
    _start(result).communicate(timeout=300)
    return pd.read_parquet(result)


def _same(result, whole):
    found = pd.read_parquet(result)
    assert_array_equal(found["status"], whole["status"])
    numbers = whole.columns.drop("status")
    assert_allclose(found[numbers], whole[numbers], rtol=1e-8)
    assert np.isfinite(found.loc[whole["status"] == "converged", numbers]).all(axis=None)


def test_four_devices_find_what_one_does(tmp_path, whole):
    job = _start(tmp_path / "result.parquet", XLA_FLAGS=FOUR)
    told, _ = job.communicate(timeout=300)
    assert told.split()[-3:] == ["4", "1", "10"]
    _same(tmp_path / "result.parquet", whole)


def test_two_processes_share_the_chunks_and_both_have_the_whole_table(tmp_path, whole):
    port = _free_port()
    checkpoint, results = tmp_path / "checkpoint", [tmp_path / f"{i}.parquet" for i in range(2)]
    jobs = [_start(result, checkpoint, port, 2, i) for i, result in enumerate(results)]
    told = [job.communicate(timeout=300)[0].split()[-3:] for job in jobs]
    assert told == [["1", "2", "10"]] * 2
    for result in results:
        _same(result, whole)
    written = [pd.read_parquet(checkpoint / f"chunk-{i:06d}.parquet") for i in range(10)]
    assert_allclose(-0.5 * pd.concat(written)["deviance"], whole["llf"], rtol=1e-8)


def _sharded(folder, count=1, flags=FLAGS):
    """What every process of a job found."""
    port = _free_port() if count > 1 else 0
    results = [folder / f"{i}.json" for i in range(count)]
    jobs = [
        _run("sharded.py", result, port, count, i, XLA_FLAGS=flags)
        for i, result in enumerate(results)
    ]
    for job in jobs:
        job.communicate(timeout=600)
    return [json.loads(result.read_text()) for result in results]


@pytest.fixture(scope="module")
def undivided(tmp_path_factory):
    return _sharded(tmp_path_factory.mktemp("undivided"))[0]


def _same_fits(found, undivided, parts, devices):
    assert_allclose(found["slope"], undivided["slope"], rtol=1e-8)
    for divided, whole in zip(found["fits"], undivided["fits"], strict=True):
        for name in ("deviance", "theta", "beta", "df"):
            # Sums over levels are in another order. A step of conjugate gradients more moves a
            # solution by 1e-9.
            assert_allclose(divided[name], whole[name], rtol=1e-8, atol=1e-8)
        assert [own for _, *own in divided["bytes"]] == [
            [total // parts] * devices for total, *_ in divided["bytes"]
        ]


def test_four_devices_share_the_cells_of_a_model_and_find_what_one_does(tmp_path, undivided):
    (found,) = _sharded(tmp_path, flags=FOUR)
    _same_fits(found, undivided, parts=4, devices=4)


def test_two_processes_share_the_cells_of_a_model_and_both_find_what_one_does(tmp_path, undivided):
    first, second = _sharded(tmp_path, count=2)
    assert first == second
    assert "the processes of this job have different data" in first["refusal"]
    _same_fits(first, undivided, parts=2, devices=1)
