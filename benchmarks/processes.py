"""Processes under test.

Every runner has its own; both kinds offer `start`, `call(count)` and `close`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TIME_LIMIT_S = 1200  # for one answer; a process that takes longer is killed and counted as failed


class Missing(Exception):
    """The peer is not installed here."""


class Failed(Exception):
    """The process ended, or ran over the time limit, before it answered."""


def command(interpreter: str, driver: str, *arguments: str) -> list[str]:
    return [interpreter, str(HERE / "peers" / driver), *arguments]


def environment(driver: str, cache: str) -> dict[str, str]:
    """Ours; this package's own drivers also find the checkout, and keep compiled programs in the
    folder `cache`.
    """
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    ours = {"PYTHONPATH": path, "XDG_CACHE_HOME": cache} if "interlace_jax" in driver else {}
    return os.environ | ours


class Worker:
    """A driver that stays alive and times its own calls (see `peers/protocol.py`)."""

    def __init__(self, interpreter: str, driver: str, variant: str, spec: Path):
        self.command = command(interpreter, driver, str(spec), variant)
        self.driver = driver

    def start(self) -> dict[str, Any]:
        self.errors = tempfile.TemporaryFile("w+")
        self.cache = tempfile.TemporaryDirectory()
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": self.errors,
            "text": True,
        }
        try:
            variables = environment(self.driver, self.cache.name)
            self.process = subprocess.Popen(self.command, env=variables, **pipes)
        except OSError as error:
            raise Missing(str(error)) from error
        answer = self._answer()
        if "missing" in answer:
            self.close()
            raise Missing(answer["missing"])
        return answer | {"rss_loaded_mb": self.peak_mb()}

    def call(self, count: int) -> dict[str, Any]:
        try:
            print(count, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        return self._answer() | {"rss_peak_mb": self.peak_mb()}

    def peak_mb(self) -> float | None:
        """Peak resident memory so far.

        Linux only: elsewhere a child's peak includes its parent's.
        """
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
        return peaks[0] / 1024 if peaks else None

    def close(self) -> None:
        with suppress(BrokenPipeError):  # closing flushes, and the process may be gone
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.errors.close()
        self.cache.cleanup()

    def _answer(self) -> dict[str, Any]:
        timer = threading.Timer(TIME_LIMIT_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            raise Failed(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        self.process.wait()
        self.errors.seek(0)
        return (
            self.errors.read().strip().splitlines() or [f"exit status {self.process.returncode}"]
        )[-1]


class Session:
    """A script started anew for every call; the whole process is timed, and its last line is the
    deviance.
    """

    def __init__(self, interpreter: str, driver: str, variant: str, spec: Path):
        given = json.loads(spec.read_text())
        self.command = command(interpreter, driver, given["csv"], given["formula"])
        self.driver, self.empty_cache = driver, variant == "empty"
        self.resident = Worker(interpreter, driver.replace("cold_", "drive_"), "summary", spec)

    def start(self) -> dict[str, Any]:
        """Ask the driver of the same program for its versions, and make one call that is not
        counted.

        That call brings files into memory and fills the compilation cache.
        """
        versions = self.resident.start()["versions"]
        self.resident.close()
        self.cache = tempfile.TemporaryDirectory()
        self.call(1)
        return {"versions": versions}

    def call(self, count: int) -> dict[str, Any]:
        answers = [self._one() for _ in range(count)]
        return {"seconds": [seconds for seconds, _ in answers], "deviance": answers[-1][1]}

    def close(self) -> None:
        self.cache.cleanup()

    def _one(self) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as empty:
            cache = empty if self.empty_cache else self.cache.name
            start = time.perf_counter()
            done = self._run(environment(self.driver, cache))
            seconds = time.perf_counter() - start
        if done.returncode:
            raise Failed(
                (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            )
        return seconds, float(done.stdout.strip().splitlines()[-1])

    def _run(self, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                self.command, env=variables, capture_output=True, text=True, timeout=TIME_LIMIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(str(error)) from None
