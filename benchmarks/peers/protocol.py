"""The Python half of the talk between the harness and a driver: one JSON line each way.

A driver is started with a spec file and a variant. It reads the data, answers with its versions (or
`missing`), and then times as many calls as each line on standard input asks for.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Call = Callable[[], Any]
Describe = Callable[[Any], dict[str, Any]]


def serve(
    prepare: Callable[[Any, dict[str, Any], str], tuple[Call, Describe]], packages: list[str]
) -> None:
    """Answer the harness until it closes our input.

    `prepare(data, spec, variant)` gives the call to time and a function that describes the call's
    result; it imports the package under test itself, so that a package that is not there is
    reported as missing.
    """
    send = _json_lines()
    spec, variant = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    start = time.perf_counter()
    try:
        import pandas

        call, describe = prepare(pandas.read_csv(spec["csv"]), spec, variant)
    except ImportError as error:
        return send({"missing": str(error)})
    send({"load_s": time.perf_counter() - start, "versions": _versions(packages)})
    for line in sys.stdin:
        seconds, result = _timed(call, int(line))
        send({"seconds": seconds, **describe(result)})


def _timed(call: Call, count: int) -> tuple[list[float], Any]:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def _json_lines() -> Callable[[dict[str, Any]], None]:
    # Whatever a package prints must not be read as an answer: it goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda answer: print(json.dumps(answer, default=_plain), file=answers)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _versions(packages: list[str]) -> dict[str, str]:
    found = {"python": platform.python_version(), "blas": _blas()}
    for package in [*packages, "numpy", "scipy", "pandas"]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _blas() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (threadpoolctl is not installed)"
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return (
        "; ".join(f"{p['internal_api']} {p['version']}, {p['num_threads']} threads" for p in pools)
        or "none"
    )
