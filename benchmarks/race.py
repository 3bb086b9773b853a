"""Run one benchmark: all its runners take turns, so that a busy moment of the machine falls on
all of them alike.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import machine
from cases import Benchmark, Runner
from processes import Failed, Missing, Session, Worker

AGREEMENT = 1e-3  # in -2 log L, between any runner and the best
NEVER_WORSE = 1e-6  # in -2 log L, ours against the best peer


@dataclass
class Lane:
    """One runner's process and what it has reported so far."""

    runner: Runner
    process: Worker | Session
    report: dict[str, Any] = field(default_factory=dict)
    visits: list[list[float]] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.report["status"] == "ok"

    def guarded(self, action: str, *arguments: int) -> dict[str, Any]:
        """Call a method of the process; a failure ends this lane only."""
        try:
            return getattr(self.process, action)(*arguments)
        except (Missing, Failed) as error:
            status = "missing" if isinstance(error, Missing) else "failed"
            self.report |= {"status": status, "reason": str(error)}
            return {}

    def start(self) -> None:
        self.report["status"] = "ok"
        self.report |= self.guarded("start")

    def first_call(self) -> None:
        answer = self.guarded("call", 1)
        if answer:
            [self.report["first_s"]] = answer.pop("seconds")
            self.report |= answer

    def visit(self, calls: int) -> None:
        answer = self.guarded("call", calls)
        if answer:
            self.visits.append(answer.pop("seconds"))
            self.report |= answer


def run(benchmark: Benchmark, interpreters: dict[str, str]) -> dict[str, Any]:
    """`interpreters` maps a driver's file name to the program that runs it.

    Returns what the JSON file holds.
    """
    measured_on, load_before = machine.describe(), os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        csv = benchmark.csv if isinstance(benchmark.csv, Path) else benchmark.csv(Path(folder))
        lanes = [
            _lane(benchmark, runner, interpreters, csv, Path(folder))
            for runner in benchmark.runners
        ]
        loads = _take_turns(benchmark, lanes)
    _set_excess(lanes)
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "formula": benchmark.formula,
        "rounds": benchmark.rounds,
        "calls_per_round": benchmark.calls,
        "machine": measured_on,
        "load_average": {"before": load_before, "rounds": loads, "after": os.getloadavg()},
        "runners": {lane.runner.name: lane.report | _times(lane) for lane in lanes},
        "ratios": {
            ours.runner.name: _ratios(ours, lanes)
            for ours in lanes
            if ours.runner.ours and ours.visits
        },
        "failures": _failures(lanes),
    }


def _lane(
    benchmark: Benchmark, runner: Runner, interpreters: dict[str, str], csv: Path, folder: Path
) -> Lane:
    spec = {
        "csv": str(csv),
        "formula": benchmark.formula,
        "fixed": benchmark.fixed,
        "random": benchmark.random,
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    kind = Session if benchmark.fresh else Worker
    return Lane(runner, kind(interpreters[runner.driver], runner.driver, runner.variant, path))


def _take_turns(benchmark: Benchmark, lanes: list[Lane]) -> list[float]:
    for lane in lanes:
        lane.start()
    started = [lane for lane in lanes if lane.running]
    if not benchmark.fresh:
        for lane in started:
            lane.first_call()
    loads = []
    for turn in range(benchmark.rounds):
        loads.append(os.getloadavg()[0])
        shift = turn % max(len(started), 1)  # nobody always follows the same neighbour
        for lane in started[shift:] + started[:shift]:
            if lane.running:
                lane.visit(benchmark.calls)
    for lane in started:
        lane.process.close()
    return loads


def _times(lane: Lane) -> dict[str, Any]:
    seconds = [second for visit in lane.visits for second in visit]
    if not seconds:
        return {}
    return {
        "calls": len(seconds),
        "median_s": median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
    }


def _ratios(ours: Lane, lanes: list[Lane]) -> dict[str, dict[str, float]]:
    """How many times longer each other runner took: the ratio of medians of each round, over the
    rounds.

    On a busy machine threads wait for each other; there the ratio of the fastest calls is the
    fairer one.
    """
    others = [lane for lane in lanes if not lane.runner.ours and lane.visits]
    return {lane.runner.name: _ratio(lane, ours) for lane in others}


def _ratio(other: Lane, ours: Lane) -> dict[str, float]:
    rounds = [
        median(theirs) / median(own) for theirs, own in zip(other.visits, ours.visits, strict=False)
    ]
    of_fastest = min(map(min, other.visits)) / min(map(min, ours.visits))
    return {
        "median": median(rounds),
        "min": min(rounds),
        "max": max(rounds),
        "of_fastest": of_fastest,
    }


def _failures(lanes: list[Lane]) -> list[str]:
    """Who failed, who did not reach the optimum, and whether we did worse than a peer."""
    found = [
        f"{lane.runner.name}: {lane.report['reason']}"
        for lane in lanes
        if lane.report["status"] == "failed"
    ]
    reached = [lane for lane in lanes if "deviance" in lane.report]
    best_peer = min(
        (lane.report["excess"] for lane in reached if not lane.runner.ours), default=inf
    )
    for lane in reached:
        excess, name = lane.report["excess"], lane.runner.name
        if excess > AGREEMENT:
            found.append(f"{name}: -2 log L is {excess:.3g} above the best")
        if lane.runner.ours and excess > best_peer + NEVER_WORSE:
            found.append(f"{name}: -2 log L is {excess - best_peer:.3g} worse than the best peer's")
    return found


def _set_excess(lanes: list[Lane]) -> None:
    """How far each runner's -2 log L lies above the lowest one reached."""
    reached = [lane.report for lane in lanes if "deviance" in lane.report]
    best = min((report["deviance"] for report in reached), default=inf)
    for report in reached:
        report["excess"] = report["deviance"] - best
