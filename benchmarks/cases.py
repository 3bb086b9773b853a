"""The benchmarks: what is fitted, to which data, by whom, how often. All sizes are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).resolve().parents[1] / "tests" / "reference" / "data"

SMALL_ROUNDS, SMALL_CALLS = 30, 5
CROSSED_ROUNDS, CROSSED_CALLS = 10, 3
COLD_ROUNDS = 7
INSTEVAL_ROUNDS = 5
GROUPS_ROUNDS = 2
GROUPS_ROWS, GROUPS_LEVELS = 1_000_000, 100_000


@dataclass(frozen=True)
class Runner:
    """One column of a race: an engine (a driver in `peers/`) and what it is asked to do."""

    name: str
    driver: str
    variant: str = ""

    @property
    def ours(self) -> bool:
        return "interlace_jax" in self.driver


@dataclass(frozen=True)
class Benchmark:
    """`random` holds (effects, factor) pairs; `rounds` visits of `calls` calls, after a first call
    that is kept apart.

    A `fresh` benchmark starts a new process for every call.
    """

    name: str
    title: str
    fixed: str
    random: tuple[tuple[str, str], ...]
    csv: Path | Callable[[Path], Path]
    runners: tuple[Runner, ...]
    rounds: int
    calls: int = 1
    fresh: bool = False

    @property
    def formula(self) -> str:
        return self.fixed + "".join(f" + ({effects} | {factor})" for effects, factor in self.random)


def simulate_groups(folder: Path) -> Path:
    """A million rows in a hundred thousand groups, `y ~ x + (1 + x | g)`, as a CSV file in
    `folder`.
    """
    rng = np.random.default_rng(20240607)
    g = rng.integers(GROUPS_LEVELS, size=GROUPS_ROWS)
    x = rng.normal(size=GROUPS_ROWS)
    intercept, slope = np.linalg.cholesky([[1.0, 0.2], [0.2, 0.25]]) @ rng.normal(
        size=(2, GROUPS_LEVELS)
    )
    y = 2 + 0.5 * x + intercept[g] + slope[g] * x + rng.normal(size=GROUPS_ROWS)
    path = folder / "groups.csv"
    pd.DataFrame({"y": y, "x": x, "g": g}).to_csv(path, index=False)
    return path


OURS_COMPILED = Runner("interlace_jax, compiled model's fit", "drive_interlace_jax.py", "compiled")
OURS_FIT = Runner("interlace_jax, fit", "drive_interlace_jax.py", "fit")
OURS_SUMMARY = Runner("interlace_jax, fit + summary", "drive_interlace_jax.py", "summary")
LME4 = Runner("lme4", "drive_lme4.R", "default")
LME4_NO_DERIVS = Runner("lme4, calc.derivs=FALSE", "drive_lme4.R", "noderivs")
LMERTEST_SUMMARY = Runner("lmerTest, fit + summary", "drive_lme4.R", "summary")
MIXEDLM_FIT = Runner("mixedlm, fit", "drive_mixedlm.py", "fit")
MIXEDLM_SUMMARY = Runner("mixedlm, fit + summary", "drive_mixedlm.py", "summary")
STATSMODELS_FIT = Runner("statsmodels, fit", "drive_statsmodels.py", "fit")
STATSMODELS_SUMMARY = Runner("statsmodels, fit + summary", "drive_statsmodels.py", "summary")
INTERLACE_LME_FIT = Runner("interlace-lme, fit", "drive_interlace_lme.py", "fit")
INTERLACE_LME_SUMMARY = Runner("interlace-lme, fit + summary", "drive_interlace_lme.py", "summary")

SLEEPSTUDY = {
    "fixed": "Reaction ~ Days",
    "random": (("1 + Days", "Subject"),),
    "csv": DATA / "sleepstudy.csv",
}

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="small",
            title="sleepstudy, one warm call",
            **SLEEPSTUDY,
            runners=(
                OURS_COMPILED,
                OURS_FIT,
                OURS_SUMMARY,
                LME4,
                LME4_NO_DERIVS,
                LMERTEST_SUMMARY,
                MIXEDLM_FIT,
                MIXEDLM_SUMMARY,
                STATSMODELS_FIT,
                STATSMODELS_SUMMARY,
                INTERLACE_LME_FIT,
                INTERLACE_LME_SUMMARY,
            ),
            rounds=SMALL_ROUNDS,
            calls=SMALL_CALLS,
        ),
        Benchmark(
            name="cold",
            title="sleepstudy, a whole process: start, import, read, fit, print the table",
            **SLEEPSTUDY,
            runners=(
                Runner(
                    "interlace_jax, compilation cache filled", "cold_interlace_jax.py", "filled"
                ),
                Runner("interlace_jax, compilation cache empty", "cold_interlace_jax.py", "empty"),
                Runner("lmerTest", "cold_lme4.R"),
                Runner("mixedlm", "cold_mixedlm.py"),
            ),
            rounds=COLD_ROUNDS,
            fresh=True,
        ),
        Benchmark(
            name="insteval",
            title="InstEval, 73,421 ratings, three crossed factors",
            fixed="y ~ service",
            random=(("1", "s"), ("1", "d"), ("1", "dept")),
            csv=DATA / "InstEval.csv.gz",
            runners=(OURS_COMPILED, OURS_FIT, OURS_SUMMARY, LME4, LME4_NO_DERIVS, MIXEDLM_FIT),
            rounds=INSTEVAL_ROUNDS,
        ),
        Benchmark(
            name="groups",
            title=f"simulated, {GROUPS_ROWS:,} rows in {GROUPS_LEVELS:,} groups, correlated slopes",
            fixed="y ~ x",
            random=(("1 + x", "g"),),
            csv=simulate_groups,
            runners=(OURS_COMPILED, OURS_FIT, OURS_SUMMARY, LME4_NO_DERIVS, MIXEDLM_FIT),
            rounds=GROUPS_ROUNDS,
        ),
        Benchmark(
            name="crossed",
            title="subjects by items, 893 rows, correlated slopes by subject",
            fixed="rt ~ condition",
            random=(("1 + condition", "subject"), ("1", "item")),
            csv=DATA / "crossed.csv",
            runners=(
                OURS_COMPILED,
                OURS_FIT,
                OURS_SUMMARY,
                LME4,
                LME4_NO_DERIVS,
                LMERTEST_SUMMARY,
                MIXEDLM_FIT,
                MIXEDLM_SUMMARY,
            ),
            rounds=CROSSED_ROUNDS,
            calls=CROSSED_CALLS,
        ),
    )
}
