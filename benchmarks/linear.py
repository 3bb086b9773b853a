"""One grouping factor, or nested ones, where time and memory grow with the rows alone.

    python benchmarks/linear.py                               # all of it
    python benchmarks/linear.py groups nested                 # some of it
    python benchmarks/linear.py slice --peers-python PYTHON   # the Python that has statsmodels

Every fit is a process of its own, by REML, on a data frame in memory; the first call holds
compilation. `slice` also fits parts of the data with statsmodels, whose time grows with the groups,
and says what all of them would take it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from large import peak, run, store

import interlace_jax as interlace

TRUE_SD = 0.5  # of every random effect; the residual's is 1
STATSMODELS = """
import json, sys, time
import numpy as np, pandas as pd, statsmodels, statsmodels.formula.api as smf
frame = pd.DataFrame(dict(np.load(sys.argv[1])))
frame = frame[frame["g"] < int(sys.argv[2])]
start = time.perf_counter()
fit = smf.mixedlm("y ~ x", frame, groups="g").fit(reml=True)
seconds = time.perf_counter() - start
print(json.dumps(dict(groups=int(sys.argv[2]), rows=len(frame), seconds=seconds,
                      version=statsmodels.__version__, sd=float(np.sqrt(fit.cov_re.iloc[0, 0])))))
"""


class Case(NamedTuple):
    """A model and simulated data for it."""

    formula: str
    simulate: Callable[[], dict[str, np.ndarray]]
    slices: tuple[int, ...] = ()  # groups that statsmodels is given


def grouped(rows: int, groups: int, slopes: bool) -> dict[str, np.ndarray]:
    """A response with random intercepts, and slopes on request, of groups of random size."""
    rng = np.random.default_rng(1)
    g, x = rng.integers(0, groups, rows).astype(np.int32), rng.standard_normal(rows)
    b = TRUE_SD * rng.standard_normal((groups, 2))
    y = 1.0 + b[g, 0] + (2.0 + slopes * b[g, 1]) * x + rng.standard_normal(rows)
    return {"y": y, "x": x, "g": g}


def nested(rows: int, levels: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A response with random intercepts of factors a, b, ..., every level of one within a level
    of the one before.
    """
    rng = np.random.default_rng(1)
    code = rng.integers(0, levels[-1], rows)
    x = rng.standard_normal(rows)
    y, found = 1.0 + 2.0 * x + rng.standard_normal(rows), {}
    for name, count in zip("abcd", levels, strict=True):
        found[name] = (code * count // levels[-1]).astype(np.int32)
        y += TRUE_SD * rng.standard_normal(count)[found[name]]
    return {"y": y, "x": x} | found


CASES = {
    "groups": Case("y ~ x + (1 + x | g)", lambda: grouped(10_000_000, 1_000_000, True)),
    "nested": Case(
        "y ~ x + (1 | a/b/c/d)", lambda: nested(10_000_000, (100, 2_000, 40_000, 800_000))
    ),
    "slice": Case(
        "y ~ x + (1 | g)", lambda: grouped(1_000_000, 125_000, False), (3_125, 6_250, 12_500)
    ),
}


def fit(formula: str, file: str) -> None:
    """Fit twice and print what happened."""
    frame = pd.DataFrame(dict(np.load(file)))
    before, seconds = peak(), []
    for _ in range(2):
        start = time.perf_counter()
        found = interlace.fit(formula, frame)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    str(found.summary())
    done = dict(
        rows=len(frame),
        levels=found.ngroups,
        first=seconds[0],
        seconds=seconds[1],
        summary=time.perf_counter() - start,
        sd=found.varcorr.query("var2.isna()").set_index(["grp", "var1"])["sdcor"].tolist(),
        converged=found.converged,
        before_gb=before,
        peak_gb=peak(),
    )
    print(json.dumps(done))


def measured(case: Case, peers_python: str | None) -> dict[str, object]:
    """One case, by us and, where there are slices and a Python for it, by statsmodels."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "rows.npz")
        np.savez(file, **case.simulate())
        found = {
            "formula": case.formula,
            "interlace_jax": run([sys.executable, __file__, "--fit", case.formula, file]),
        }
        if peers_python and case.slices:
            found["statsmodels"] = [
                run([peers_python, "-c", STATSMODELS, file, str(n)]) for n in case.slices
            ]
    return found


def show(name: str, found: dict[str, object]) -> None:
    """Print one case."""
    r = found["interlace_jax"]
    if r:
        levels, sds = (
            " ".join(f"{n:,}" for n in r["levels"].values()),
            " ".join(f"{sd:.4f}" for sd in r["sd"]),
        )
        print(f"{name}: {found['formula']}, {r['rows']:,} rows, levels {levels}")
        print(
            f"  first call {r['first']:.1f} s, then {r['seconds']:.1f} s, summary "
            f"{r['summary']:.1f} s"
        )
        print(
            f"  peak {r['peak_gb']:.2f} GiB, {r['before_gb']:.2f} before; SDs {sds}, simulated "
            f"{TRUE_SD} and 1"
        )
    if slices := list(filter(None, found.get("statsmodels", []))):
        for s in slices:
            print(
                f"  statsmodels: {s['groups']:,} groups, {s['rows']:,} rows: {s['seconds']:.1f} "
                f"s, SD {s['sd']:.4f}"
            )
        last, groups = slices[-1], next(iter(r["levels"].values()))
        whole = last["seconds"] * groups / last["groups"]
        print(
            f"  statsmodels, not measured: {whole:.0f} s for {groups:,} groups, if its time is "
            "proportional to them"
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"which of {', '.join(CASES)}; all if none is given",
    )
    parser.add_argument("--peers-python", default=os.environ.get("INTERLACE_PEERS_PYTHON"))
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.fit:
        return fit(*chosen.fit)
    if unknown := set(chosen.names) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    results = {}
    for name in chosen.names or CASES:
        results[name] = measured(CASES[name], chosen.peers_python)
        show(name, results[name])
    return store("linear", {"cases": results})


if __name__ == "__main__":
    main()
