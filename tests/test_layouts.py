"""Where the chunks of a run are computed does not matter: on several devices, or by several processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

ROOT = Path(__file__).parent.parent


def _start(result, checkpoint="", port=0, count=1, index=0, **environment):
    command = [sys.executable, ROOT / "tests" / "layouts.py", result, checkpoint, str(port), str(count), str(index)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


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
    job = _start(tmp_path / "result.parquet", XLA_FLAGS="--xla_force_host_platform_device_count=4")
    told, _ = job.communicate(timeout=300)
    assert told.split()[-3:] == ["4", "1", "10"]
    _same(tmp_path / "result.parquet", whole)


def test_two_processes_share_the_chunks_and_both_have_the_whole_table(tmp_path, whole):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    checkpoint, results = tmp_path / "checkpoint", [tmp_path / f"{i}.parquet" for i in range(2)]
    jobs = [_start(result, checkpoint, port, 2, i) for i, result in enumerate(results)]
    told = [job.communicate(timeout=300)[0].split()[-3:] for job in jobs]
    assert told == [["1", "2", "10"]] * 2
    for result in results:
        _same(result, whole)
    written = [pd.read_parquet(checkpoint / f"chunk-{i:06d}.parquet") for i in range(10)]
    assert_allclose(-0.5 * pd.concat(written)["deviance"], whole["llf"], rtol=1e-8)
