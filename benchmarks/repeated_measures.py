"""Repeated measures: whole warm fits of four data sets, next to nlme in the same run.

    python benchmarks/repeated_measures.py                   # all four; most of it is nlme's
    python benchmarks/repeated_measures.py fev growth --rounds 3
    python benchmarks/repeated_measures.py many --responses 1000

A fit is formula and frame to estimates, standard errors and Satterthwaite's degrees of freedom
(which nlme has not). CPU time, the fastest of the rounds, once with programs run as NumPy, as the
first fits of a kind are, and once with programs that XLA has compiled; nlme's is measured inside of
R, after a first fit. Both must end at the same optimum, to what nlme's search leaves.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import interlace_jax as interlace

FEV = Path(__file__).resolve().parents[1] / "tests" / "reference" / "residual" / "data" / "fev.csv"
RESULTS = Path(__file__).resolve().parent / "results" / "repeated_measures.json"
SYMMETRIC = "correlation = corSymm(form = ~ position | id), weights = varIdent(form = ~ 1 | visit)"
R_SCRIPT = """
suppressMessages(library(nlme))
d <- read.csv("{csv}")
d$position <- as.integer(factor(d$visit))
d$visit <- factor(d$visit)
control <- list(maxIter = 200, msMaxIter = 500, msMaxEval = 5000)
once <- function() {call}
best <- Inf
for (i in seq_len({rounds})) {{
  spent <- system.time(m <- once())
  best <- min(best, spent[["user.self"]] + spent[["sys.self"]])
}}
cat(sprintf("%.6f %.10f\\n", best, -2 * as.numeric(logLik(m))))
"""


@dataclass(frozen=True)
class Case:
    """One data set, our fit of it and nlme's."""

    title: str
    data: Callable[[], pd.DataFrame]
    formula: str
    residual: str
    nlme: str
    "The call in R, on `d`."


def fev() -> pd.DataFrame:
    """537 rows of 197 patients at up to 4 visits: the public data of the mmrm package."""
    return pd.read_csv(FEV).dropna(subset=["fev"])


def bcva() -> pd.DataFrame:
    """1,000 patients at up to 10 visits, some missing, some drop out: the size of a late trial."""
    rng = np.random.default_rng(0)
    n, m = 1000, 10
    sd = 8.0 + 0.6 * np.arange(m)
    C = 0.85 ** np.sqrt(np.abs(np.subtract.outer(range(m), range(m))))
    E = rng.multivariate_normal(np.zeros(m), C * np.outer(sd, sd), n)
    d = pd.DataFrame({"id": np.repeat(np.arange(n), m), "visit": np.tile(np.arange(1, m + 1), n)})
    d["arm"] = np.where(d["id"] % 2, "active", "control")
    d["base"] = rng.normal(75, 10, n)[d["id"]]
    d["race"] = rng.choice(["a", "b", "c"], n)[d["id"]]
    d["y"] = 0.1 * d["base"] + 0.3 * d["visit"] * (d["arm"] == "active") + E.ravel()
    last = rng.geometric(0.04, n)[d["id"]] + 2
    return d[(rng.random(len(d)) < 0.97) & (d["visit"] <= last)]


def growth() -> pd.DataFrame:
    """300 subjects at 10 times: a random line each, and AR(1) around it."""
    rng = np.random.default_rng(1)
    n, m = 300, 10
    C = 0.5 ** np.abs(np.subtract.outer(range(m), range(m)))
    d = pd.DataFrame({"id": np.repeat(np.arange(n), m), "visit": np.tile(np.arange(m), n)})
    line = rng.normal(size=n)[d["id"]] + 0.3 * rng.normal(size=n)[d["id"]] * d["visit"]
    noise = rng.multivariate_normal(np.zeros(m), C, n).ravel()
    return d.assign(t=d["visit"].astype(float), y=1.0 + 0.5 * d["visit"] + line + noise)


CASES = {
    "fev": Case(
        "fev, unstructured, 12 coefficients",
        fev,
        "fev ~ race + sex + base + arm * visit",
        "us(visit | id)",
        f"gls(fev ~ race + sex + base + arm * visit, d, {SYMMETRIC}, control = control)",
    ),
    "bcva": Case(
        "1,000 patients at 10 visits, unstructured: 55 parameters",
        bcva,
        "y ~ base + race + arm * C(visit)",
        "us(visit | id)",
        f"gls(y ~ base + race + arm * visit, d, {SYMMETRIC}, control = control)",
    ),
    "growth": Case(
        "300 subjects at 10 times, random line and AR(1)",
        growth,
        "y ~ t + (1 + t | id)",
        "ar1(t | id)",
        "lme(y ~ t, d, ~ t | id, correlation = corAR1(form = ~ position | id), control = control)",
    ),
}


def best_of(function: Callable, rounds: int) -> tuple[float, float, object]:
    """The least CPU time of some calls, that of the first, and what the last returned."""
    spent = []
    for _ in range(rounds + 1):
        start = time.process_time()
        found = function()
        spent.append(time.process_time() - start)
    return min(spent[1:]), spent[0], found


def whole_fit(case: Case, data: pd.DataFrame) -> interlace.Fit:
    """Estimates, standard errors and degrees of freedom."""
    fit = interlace.fit(case.formula, data, residual=case.residual)
    fit.fe_df  # noqa: B018
    return fit


def by_nlme(case: Case, data: pd.DataFrame, rounds: int, limit: float) -> tuple[float, float]:
    """CPU seconds and -2 log L; NaN without R, or past the limit in seconds."""
    if shutil.which("Rscript") is None:
        return np.nan, np.nan
    with tempfile.TemporaryDirectory() as folder:
        csv, script = Path(folder) / "d.csv", Path(folder) / "race.R"
        data.to_csv(csv, index=False)
        script.write_text(R_SCRIPT.format(csv=csv, call=case.nlme, rounds=rounds))
        try:
            ran = subprocess.run(
                ["Rscript", str(script)], capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return np.nan, np.nan
    if ran.returncode:
        print(ran.stderr.strip().splitlines()[-1])
        return np.nan, np.nan
    seconds, deviance = map(float, ran.stdout.split())
    return seconds, deviance


def race(name: str, rounds: int, limit: float) -> dict[str, float | str]:
    """Our time and nlme's for one case."""
    case = CASES[name]
    data = case.data()
    as_numpy, first, _ = by_way("numpy", lambda: whole_fit(case, data), rounds)
    seconds, _, fit = by_way("xla", lambda: whole_fit(case, data), rounds)
    theirs, deviance = by_nlme(case, data, min(rounds, 3), limit)
    return dict(
        title=case.title,
        rows=len(data),
        seconds=seconds,
        as_numpy=as_numpy,
        first=first,
        nlme=theirs,
        ratio=theirs / seconds,
        above=float(fit.deviance - deviance),
    )


def by_way(way: str, function: Callable, rounds: int) -> tuple[float, float, object]:
    """As `best_of`, with programs run in one way."""
    os.environ["INTERLACE_JAX_EXECUTION"] = way
    try:
        return best_of(function, rounds)
    finally:
        del os.environ["INTERLACE_JAX_EXECUTION"]


def many(responses: int) -> dict[str, float | str]:
    """Responses of 200 subjects at 4 visits, unstructured, all in one call."""
    rng = np.random.default_rng(2)
    n, m = 200, 4
    d = pd.DataFrame({"id": np.repeat(np.arange(n), m), "visit": np.tile(list("abcd"), n)})
    d["arm"] = np.where(d["id"] % 2, "A", "B")
    d = d[rng.random(len(d)) < 0.95].reset_index(drop=True)
    level = rng.normal(size=(n, responses))[d["id"]]
    Y = level + rng.normal(size=(len(d), responses))

    def call():
        found = interlace.fit_many(
            "~ arm * visit", d, responses=Y, residual="us(visit | id)", progress=False
        )
        return found.fe_df

    cpu_first, first = spent(call)
    cpu, seconds = spent(call)
    return dict(
        title=f"{responses:,} responses, us(visit | id) of 200 subjects",
        seconds=seconds,
        cpu=cpu,
        first=first,
        cpu_first=cpu_first,
    )


def spent(function: Callable) -> tuple[float, float]:
    """CPU time and elapsed time of a call."""
    cpu, elapsed = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*CASES, "many"]
    parser.add_argument("names", nargs="*", help=f"some of: {' '.join(names)}")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--responses", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that nlme may take")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen.names or names:
        made = many(chosen.responses) if name == "many" else race(name, chosen.rounds, chosen.limit)
        found[name] = {key: None if value != value else value for key, value in made.items()}
        print(name, json.dumps(made))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
