"""Generalised mixed models beside glmer, glmmTMB, glmm and GPBoost: `python
benchmarks/generalized.py [names ...]`.

Every program fits the same rows in the same run, one program after the other; times are CPU
seconds of whole fits with standard errors (GPBoost has none), warm ones (of programs that XLA has
compiled) the fastest of several calls. First calls are those of a process that fits one model, with
a summary. Deviances stand beside times: theirs minus ours. A peer that is not installed is left
out, as are programs that take longer than `--patience` seconds. Results in
`results/generalized.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pandas as pd
from scipy import special

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed

import interlace_jax as interlace  # noqa: E402

R_FITS = """
suppressMessages({library(lme4); library(glmmTMB); library(jsonlite)})
cases <- fromJSON(commandArgs(TRUE)[1], simplifyVector = FALSE); found <- list()
quietly <- function(value) suppressMessages(suppressWarnings(value))
timed <- function(f) {
  t <- system.time(fit <- quietly(try(f(), silent = TRUE)))
  if (inherits(fit, "try-error")) return(NULL)
  s <- quietly(sqrt(diag(as.matrix(if (inherits(fit, "glmmTMB")) vcov(fit)$cond else vcov(fit)))))
  list(seconds = t[["user.self"]] + t[["sys.self"]],
       deviance = -2 * as.numeric(logLik(fit)), se = as.numeric(s)) }
for (name in names(cases)) {
  case <- cases[[name]]; d <- read.csv(case$data, stringsAsFactors = TRUE)
  for (column in case$groups) d[[column]] <- factor(d[[column]])
  formula <- as.formula(case$formula); family <- eval(parse(text = case$family))
  g <- list()
  if ("glmmTMB" %in% case$peers) g$glmmTMB <- timed(function() glmmTMB(formula, d, family = family))
  if ("glmer" %in% case$peers) g$glmer <- timed(function() glmer(formula, d, family = family))
  found[[name]] <- g
}
found$versions <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")),
                       glmmTMB = as.character(packageVersion("glmmTMB")))
cat(toJSON(found, auto_unbox = TRUE, digits = 14, null = "null"))
"""

PYTHON_FITS = """
import importlib.metadata, json, sys, time, warnings
import numpy as np, pandas as pd
warnings.simplefilter("ignore")
cases, found = json.load(open(sys.argv[1])), {"versions": {}}
def timed(fit, repeats):
    best = None
    for _ in range(repeats):
        begun = time.process_time()
        try:
            deviance = fit()
        except Exception as err:
            return {"error": repr(err)[:200]}
        took = time.process_time() - begun
        best = took if best is None else min(best, took)
    return {"seconds": best, "deviance": deviance}
for name, case in cases.items():
    d, found[name] = pd.read_csv(case["data"]), {}
    if "glmm" in case["peers"]:
        import glmm
        own = d.assign(**{g: d[g].astype(str) for g in case["groups"]})
        given = {c: own[c].to_numpy() for c in own}
        def fit():
            link = case["link"] or case["glmm_link"]
            made = glmm.fit(given, case["formula"], case["glmm"], link=link)
            return float(-2 * made.loglik)
        found[name]["glmm"] = timed(fit, case["repeats"])
        found["versions"]["glmm"] = importlib.metadata.version("glmm")
    if "gpboost" in case["peers"]:
        import gpboost
        y, groups = d[case["y"]].to_numpy(), d[case["groups"]].to_numpy()
        X = np.column_stack([np.ones(len(d)), d[case["x"]].to_numpy()])
        def fit():
            model = gpboost.GPModel(group_data=groups, likelihood=case["gpboost"])
            model.fit(y=y, X=X)
            return 2 * float(model.get_current_neg_log_likelihood())
        found[name]["gpboost"] = timed(fit, min(case["repeats"], 3))
        found["versions"]["gpboost"] = importlib.metadata.version("gpboost")
print(json.dumps(found))
"""

FIRST = """
import json, sys, time, warnings
import pandas as pd
import interlace_jax as interlace
warnings.simplefilter("ignore")
case = json.load(open(sys.argv[1]))[sys.argv[2]]
d = pd.read_csv(case["data"])
families = dict(probit=interlace.Binomial("probit"), cloglog=interlace.Binomial("cloglog"))
family = families.get(case["link"], case["ours"])
begun = time.process_time()
fit = interlace.fit(case["formula"], d, family=family)
str(fit.summary())
print(time.process_time() - begun)
"""


@dataclass
class Case:
    """A model and how each program calls it."""

    make: Callable[[np.random.Generator], pd.DataFrame]
    formula: str
    ours: str
    "Name of the family here."
    r: str
    "Family in R."
    groups: list[str]
    peers: list[str]
    link: str | None = None
    glmm: str = ""
    glmm_link: str | None = None
    gpboost: str = ""
    y: str = "y"
    x: list[str] = field(default_factory=lambda: ["x"])
    repeats: int = 5

    @property
    def family(self) -> Any:
        """As `interlace_jax.fit` takes it."""
        return interlace.Binomial(self.link) if self.link else self.ours


def cbpp(rng) -> pd.DataFrame:
    """The data of lme4, 56 rows of 15 herds."""
    frame = interlace.load_dataset("cbpp")
    return frame.assign(failures=frame["size"] - frame["incidence"])


def effects(rng, groups: int, rows: int, slope: float = 0.0, sd: float = 0.9):
    """Group, x and linear predictor of `rows` rows a group."""
    g = np.repeat(np.arange(groups), rows)
    x = rng.normal(size=len(g))
    b = rng.normal(size=(groups, 2)) * [sd, slope]
    return g, x, 0.3 + 0.5 * x + b[g, 0] + b[g, 1] * x


def bernoulli(link: str, groups: int, rows: int):
    """Binary rows with random slopes."""
    inverse = dict(
        logit=special.expit,
        probit=special.ndtr,
        cloglog=lambda eta: -np.expm1(-np.exp(eta - 0.7)),
    )[link]

    def make(rng):
        g, x, eta = effects(rng, groups, rows, slope=0.6)
        return pd.DataFrame({"y": rng.binomial(1, inverse(eta)), "x": x, "g": g})

    return make


def counts(groups: int, rows: int, draw: Callable):
    """Rows of some distribution of a mean on the log scale."""

    def make(rng):
        g, x, eta = effects(rng, groups, rows, sd=0.6)
        return pd.DataFrame({"y": draw(rng, np.exp(eta)), "x": x, "g": g})

    return make


def crossed(rng) -> pd.DataFrame:
    """Binary answers of 200 subjects to 100 items."""
    s, i = (a.ravel() for a in np.meshgrid(np.arange(200), np.arange(100), indexing="ij"))
    x = rng.normal(size=len(s))
    eta = 0.3 + 0.5 * x + rng.normal(size=200)[s] + 0.7 * rng.normal(size=100)[i]
    return pd.DataFrame({"y": rng.binomial(1, special.expit(eta)), "x": x, "s": s, "i": i})


R_PEERS = ["glmer", "glmmTMB"]
SLOPES = "y ~ x + (1 + x | g)"
CASES = {
    "cbpp": Case(
        cbpp,
        "cbind(incidence, failures) ~ period + (1 | herd)",
        "binomial",
        "binomial()",
        ["herd"],
        [*R_PEERS, "glmm"],
        glmm="binomial",
        repeats=30,
    ),
    "probit": Case(
        bernoulli("probit", 200, 20),
        SLOPES,
        "binomial",
        'binomial("probit")',
        ["g"],
        [*R_PEERS, "glmm"],
        link="probit",
        glmm="binomial",
    ),
    "cloglog": Case(
        bernoulli("cloglog", 200, 20),
        SLOPES,
        "binomial",
        'binomial("cloglog")',
        ["g"],
        [*R_PEERS, "glmm"],
        link="cloglog",
        glmm="binomial",
    ),
    "gamma": Case(
        counts(250, 20, lambda rng, mu: rng.gamma(3.0, mu / 3.0)),
        "y ~ x + (1 | g)",
        "gamma",
        'Gamma("log")',
        ["g"],
        [*R_PEERS, "glmm", "gpboost"],
        glmm="gamma",
        glmm_link="log",
        gpboost="gamma",
    ),
    "nbinom2": Case(
        counts(250, 20, lambda rng, mu: rng.negative_binomial(2.0, 2.0 / (2.0 + mu))),
        "y ~ x + (1 | g)",
        "nbinom2",
        "nbinom2()",
        ["g"],
        ["glmmTMB", "glmm", "gpboost"],
        glmm="negativebinomial",
        gpboost="negative_binomial",
    ),
    "crossed": Case(
        crossed,
        "y ~ x + (1 | s) + (1 | i)",
        "binomial",
        "binomial()",
        ["s", "i"],
        [*R_PEERS, "glmm", "gpboost"],
        glmm="binomial",
        gpboost="bernoulli_logit",
    ),
    "bernoulli": Case(
        bernoulli("logit", 5000, 20),
        SLOPES,
        "binomial",
        "binomial()",
        ["g"],
        [*R_PEERS, "glmm"],
        glmm="binomial",
        repeats=3,
    ),
    "poisson": Case(
        counts(20000, 5, lambda rng, mu: rng.poisson(mu)),
        "y ~ x + (1 | g)",
        "poisson",
        "poisson()",
        ["g"],
        [*R_PEERS, "glmm", "gpboost"],
        glmm="poisson",
        gpboost="poisson",
        repeats=3,
    ),
}


def ours(case: Case, frame: pd.DataFrame) -> dict[str, Any]:
    """Warm fits: from formula and frame, and of the compiled model."""
    model = interlace.compile(case.formula, frame, family=case.family)

    def whole():
        return interlace.fit(case.formula, frame, family=case.family).fe_bse

    def compiled():
        return model.fit().fe_bse

    found = {"seconds": fastest(whole, case.repeats), "compiled": fastest(compiled, case.repeats)}
    fit = model.fit()
    found |= dict(deviance=fit.deviance, se=fit.fe_bse.tolist(), evaluations=fit.optimum.steps)
    return found | dict(converged=bool(fit.converged), rows=len(frame))


def fastest(call: Callable, repeats: int) -> float:
    """CPU seconds of the fastest of several calls, after those that let programs be compiled."""
    begun = time.monotonic()
    best, count = np.inf, 0
    while count < repeats or (time.monotonic() - begun < 6.0 and count < 40 * repeats):
        best, count = min(best, taken(call)[0]), count + 1
    return best


def taken(call: Callable) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def batches(models: int, r: int) -> dict[str, Any]:
    """fit_many of counts: 600 rows, 24 subjects; glmmTMB and glmer on some of them."""
    rng = np.random.default_rng(5)
    g = np.sort(rng.integers(0, 24, 600))
    x, depth = rng.normal(size=600), rng.gamma(8.0, 1 / 8.0, 600)
    frame = pd.DataFrame({"g": g, "x": x, "group": g % 2, "depth": depth})
    b = rng.normal(size=(3, models)) * [[0.8], [0.3], [0.2]]
    sd = rng.gamma(4.0, 0.1, models)
    eta = 0.3 + b[0] + frame[["group"]].to_numpy() * b[1] + x[:, None] * b[2]
    mean = depth[:, None] * np.exp(eta + (sd * rng.normal(size=(24, models)))[g])
    size = np.exp(rng.normal(0.7, 0.6, models))
    found = {}
    draws = {
        "poisson": rng.poisson(mean),
        "nbinom2": rng.negative_binomial(size, size / (size + mean)),
    }
    for family, Y in draws.items():
        formula = "~ group + x + offset(log(depth)) + (1 | g)"

        def call(Y=Y, family=family, formula=formula):
            return interlace.fit_many(formula, frame, responses=Y, family=family, progress=False)

        first, wall = taken(call)
        cpu, elapsed = np.min([taken(call) for _ in range(3)], axis=0)
        found[family] = dict(
            models=models,
            first_cpu=first,
            first_wall=wall,
            fits_a_cpu_second=models / cpu,
            fits_a_second=models / elapsed,
            converged=int(call().converged.sum()),
        )
        found[family] |= r_loop(frame, Y[:, :r], family)
    return found


def r_loop(frame: pd.DataFrame, Y: np.ndarray, family: str) -> dict[str, float]:
    """Fits a CPU second of a loop over glmmTMB, and over glmer for Poisson counts."""
    code = """
    suppressMessages({library(lme4); library(glmmTMB)}); a <- commandArgs(TRUE)
    d <- read.csv(a[1]); Y <- as.matrix(read.csv(a[2])); d$g <- factor(d$g)
    f <- y ~ group + x + offset(log(depth)) + (1 | g)
    rate <- function(fit) ncol(Y) / system.time(for (j in seq_len(ncol(Y))) {
      d$y <- Y[, j]; suppressWarnings(suppressMessages(fit(d))) })[["user.self"]]
    cat(rate(function(d) glmmTMB(f, d, family = a[3])),
        if (a[3] == "poisson") rate(function(d) glmer(f, d, family = poisson())) else NA)
    """
    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(f"{folder}/d.csv", index=False)
        pd.DataFrame(Y).to_csv(f"{folder}/y.csv", index=False)
        Path(folder, "loop.R").write_text(code)
        arguments = ["Rscript", f"{folder}/loop.R", f"{folder}/d.csv", f"{folder}/y.csv", family]
        done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        return {}
    values = [None if word == "NA" else float(word) for word in done.stdout.split()]
    return dict(zip(("glmmTMB_fits_a_cpu_second", "glmer_fits_a_cpu_second"), values, strict=False))


def asked(command: list[str], patience: float) -> dict[str, Any]:
    """What a program prints as JSON; nothing where it is not there, or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except (OSError, subprocess.TimeoutExpired) as err:
        return {"error": str(err)[:200]}
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-400:]}


def main() -> None:
    """Run what is asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*CASES, "many"])
    python = os.environ.get("INTERLACE_PEERS_PYTHON", "python")
    parser.add_argument("--peers-python", default=python)
    parser.add_argument("--patience", type=float, default=600.0)
    parser.add_argument("--models", type=int, default=512)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["INTERLACE_JAX_EXECUTION"] = "xla"  # warm numbers are those of compiled programs
    results = {"machine": machine.describe(), "cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        for script, code in dict(fits=PYTHON_FITS, first=FIRST).items():
            Path(folder, f"{script}.py").write_text(code)
        Path(folder, "fits.R").write_text(R_FITS)
        for name in [n for n in arguments.names if n in CASES]:
            results["cases"][name] = one(name, folder, arguments)
            print(line(name, results["cases"][name]), flush=True)
    if "many" in arguments.names:
        results["many"] = batches(arguments.models, 5)
        print(json.dumps(results["many"], indent=1))
    file = HERE / "results" / "generalized.json"
    before = json.loads(file.read_text()) if file.exists() else {"cases": {}}
    results["cases"] = before["cases"] | results["cases"]
    file.write_text(json.dumps(before | results, indent=1) + "\n")


def one(name: str, folder: str, arguments) -> dict[str, Any]:
    """All programs on one case."""
    case = CASES[name]
    frame = case.make(np.random.default_rng(7))
    frame.to_csv(f"{folder}/{name}.csv", index=False)
    own = dict(vars(case), family=case.r, data=f"{folder}/{name}.csv")
    del own["make"], own["r"]
    Path(folder, "cases.json").write_text(json.dumps({name: own}))
    found = {"ours": ours(case, frame)}
    first = [sys.executable, f"{folder}/first.py", f"{folder}/cases.json", name]
    path = {"PYTHONPATH": str(HERE.parent), "INTERLACE_JAX_EXECUTION": "auto"}
    done = subprocess.run(first, capture_output=True, text=True, env=os.environ | path)
    found["ours"]["first_call"] = float(done.stdout) if done.returncode == 0 else None
    asks = {
        "R": ["Rscript", f"{folder}/fits.R", f"{folder}/cases.json"],
        "python": [arguments.peers_python, f"{folder}/fits.py", f"{folder}/cases.json"],
    }
    for kind, command in asks.items():
        answer = asked(command, arguments.patience)
        found |= answer.get(name, {kind: answer})
        found.setdefault("versions", {}).update(answer.get("versions", {}))
    return found


def line(name: str, found: dict[str, Any]) -> str:
    """A row of the table: CPU seconds, and deviances less ours."""
    mine = found["ours"]
    first = "" if mine["first_call"] is None else f"{mine['first_call']:.2f}"
    cells = [name, first, f"{mine['seconds']:.4f}", f"{mine['compiled']:.4f}"]
    for peer in ("glmer", "glmmTMB", "glmm", "gpboost"):
        theirs = found.get(peer) or {}
        if "seconds" not in theirs:
            cells.append("")
            continue
        above = theirs["deviance"] - mine["deviance"]
        cells.append(f"{theirs['seconds']:.3f} ({above:+.1e})")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
