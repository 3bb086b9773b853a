"""What first calls take: fresh processes, with programs stored or not, beside other packages.

    python benchmarks/first_call.py [--peers PYTHON] [--rscript RSCRIPT] [--shipped ARCHIVE]
        [--only verbs,whole,ten,sixty] [data set ...]

CPU and wall milliseconds, all programs in turns in one run: the first and the second call of each
verb in one process (`verbs`); a process that imports, reads a CSV, fits and summarises (`whole`);
ten models of one data set (`ten`); sixty models of different shape, and memory (`sixty`).

The store of programs is `empty`, `filled` by the process before, or `shipped`: a new user's, with
the archive of `scripts/ship_programs.py`. Peers are left out where they are not given.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "sleepstudy": "Reaction ~ Days + (1 + Days | Subject)",
    "dyestuff": "Yield ~ 1 + (1 | Batch)",
    "crossed": "rt ~ condition + (1 + condition | subject) + (1 | item)",
}
BARS = (
    "(1 | S)",
    "(0 + Days | S)",
    "(1 + Days | S)",
    "(1 + Days || S)",
    "(1 | S) + (0 + Days | S)",
)
TEN = [f"Reaction ~ {x} + {bar.replace('S', 'Subject')}" for x in ("1", "Days") for bar in BARS]
VERBS = {
    "fit": "interlace_jax.fit(formula, data)",
    "summary": "str(fit.summary())",
    "predict, 7 intervals": "fit.predict(data.iloc[:7], interval='prediction')",
    "predict, 9 intervals": "fit.predict(data.iloc[:9], interval='prediction')",
    "random_effects_se": "fit.random_effects_se",
    "anova, Kenward-Roger": "fit.anova(ddf='kenward-roger')",
    "r2": "fit.r2()",
    "icc": "fit.icc()",
    "leverage": "fit.leverage()",
    "confint, profile": "fit.confint(method='profile')",
    "bootstrap, 200": "fit.bootstrap(200, seed=1, progress=False)",
    "influence, levels": "fit.influence(fit.design.factors[0].name)",
}
MIXEDLM = {"fit": "mixedlm.lmer(formula, data)", "summary": "str(fit.summary())"}
GLMM = {"fit": "glmm.fit(data, formula)", "summary": "str(fit)"}
LMERTEST = {
    "fit": "lmer(formula, data)",
    "summary": "capture.output(print(summary(fit)))",
    "random_effects_se": "ranef(fit, condVar = TRUE)",
    "anova, Kenward-Roger": "anova(fit, ddf = 'Kenward-Roger')",
    "leverage": "hatvalues(fit)",
    "confint, profile": "confint(fit, quiet = TRUE)",
    "bootstrap, 200": "bootMer(fit, function(m) c(fixef(m), sigma(m)), 200, seed = 1)",
    "influence, levels": "influence(fit, names(getME(fit, 'flist'))[1])",
}
PYTHON = """
    import json, sys, time, warnings
    warnings.simplefilter("ignore")
    start = time.process_time()
    {before}
    import {package}, pandas
    data, formula = pandas.read_csv({csv!r}), {formula!r}
    fit, rows = None, {{"import": [1e3 * (time.process_time() - start)]}}
    for name, verb in {verbs!r}.items():
        times = []
        for _ in range({times}):
            start = time.process_time(), time.perf_counter()
            result = eval(verb)
            times += [1e3 * (time.process_time() - start[0])]
            times += [1e3 * (time.perf_counter() - start[1])]
            fit = fit or result
        rows[name] = times
    rows["JAX imported"] = [float("jax" in sys.modules)]
    print(json.dumps(rows))
"""
R = """
    clock <- function() {{ t <- proc.time(); 1e3 * c(t[[1]] + t[[2]], t[[3]]) }}
    start <- clock(); suppressMessages(library(lmerTest))
    data <- read.csv({csv!r}, stringsAsFactors = TRUE)
    rows <- list(import = (clock() - start)[1]); fit <- NULL
    for (verb in {verbs}) {{
        times <- c()
        for (i in 1:{times}) {{
            start <- clock()
            result <- suppressWarnings(suppressMessages(eval(parse(text = verb[2]))))
            times <- c(times, clock() - start)
            if (is.null(fit)) fit <- result
        }}
        rows[[verb[1]]] <- times
    }}
    numbers <- sapply(rows, function(x) sprintf("[%s]", paste(sprintf("%.2f", x), collapse = ",")))
    cat(sprintf("{{%s}}\\n", paste(sprintf('"%s": %s', names(rows), numbers), collapse = ", ")))
"""
SIXTY = """
    import numpy as np, pandas as pd
    rng = np.random.default_rng(0)
    random = ["(1 | g)", "(1 + x0 | g)", "(1 | g) + (1 | h)", "(1 + x0 || g)",
              "(1 + x0 | g) + (1 | h)", "(1 + x0 + x1 | g)"]
    for i in range(60):
        n, m = 100 + 7 * i, 8 + i % 13
        g, h = rng.integers(0, m, n), rng.integers(0, 5 + i % 7, n)
        d = {f"x{j}": rng.normal(size=n) for j in range(5)} | {"g": g, "h": h}
        d["y"] = rng.normal(size=n) + rng.normal(size=m)[g] + d["x0"] * rng.normal(size=m)[g]
        fixed = " + ".join(f"x{j}" for j in range(1 + i % 5))
        fit = interlace_jax.fit(f"y ~ {fixed} + {random[i % 6]}", pd.DataFrame(d))
        str(fit.summary())
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MB")
"""


def run(command, home=None):
    """CPU and wall milliseconds of a process, and its last line; None where it fails."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ours = {"XDG_CACHE_HOME": home, "PYTHONPATH": path} if home else {}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    made = subprocess.run(command, capture_output=True, text=True, env=os.environ | ours)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if made.returncode:
        return None
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1e3 * cpu, 1e3 * wall, (made.stdout.strip().splitlines() or [""])[-1]


def stores(archive):
    """States of the store: a name, a folder for it, and what a process runs first."""
    first = "from interlace_jax.runtime.programs import store; import pathlib; "
    first += "store.SHIPPED = pathlib.Path({!r})"
    with tempfile.TemporaryDirectory() as home:
        for state in ("empty", "filled"):
            yield state, home, first.format("none")
    if archive and Path(archive).exists():
        with tempfile.TemporaryDirectory() as home:
            yield "shipped", home, first.format(str(Path(archive).resolve()))


def runners(options):
    """Every program: its name, and a function of (code, verbs, more) that runs a process of it."""
    for state, home, before in stores(options.shipped):
        ours = python(sys.executable, "interlace_jax", before, home)
        yield f"interlace_jax, {state}", VERBS, ours
    if options.peers:
        yield "mixedlm", MIXEDLM, python(options.peers, "mixedlm", "", None)
        yield "glmm", GLMM, python(options.peers, "glmm", "", None)
    if options.rscript:
        yield "lmerTest", LMERTEST, r(options.rscript)


def python(interpreter, package, before, home):
    """A function that runs a session of a Python package."""

    def session(csv, formula, verbs, times=2):
        fixed = dict(before=before, package=package, times=times)
        code = textwrap.dedent(PYTHON).format(**fixed, csv=csv, formula=formula, verbs=verbs)
        return run([interpreter, "-c", code], home)

    return session


def r(interpreter):
    """A function that runs a session of lmerTest."""

    def session(csv, formula, verbs, times=2):
        calls = {name: verb.replace("(formula", f"({formula}") for name, verb in verbs.items()}
        pairs = ", ".join(f"c({name!r}, {verb!r})" for name, verb in calls.items())
        code = textwrap.dedent(R).format(csv=csv, times=times, verbs=f"list({pairs})")
        return run([interpreter, "-e", code])

    return session


def verbs(csvs, options):
    """First and second calls of every verb."""
    for data, csv in csvs.items():
        for name, asked, session in runners(options):
            found = session(csv, CASES[data], asked)
            print(f"\n{data}, {name}" + ("" if found else ": not here"), flush=True)
            for verb, times in json.loads(found[2]).items() if found else ():
                print(f"  {verb:22s}" + "".join(f"{t:9.1f}" for t in times))


def whole(csvs, options):
    """Whole processes: import, read, fit, summarise."""
    for data, csv in csvs.items():
        for name, asked, session in runners(options):
            two = {verb: asked[verb] for verb in ("fit", "summary")}
            show(f"{data}, whole process, {name}", session(csv, CASES[data], two, 1))


def ten(csvs, options):
    """Ten models of one data set in a process."""
    for name, asked, session in runners(options):
        calls = {}
        for i, formula in enumerate(TEN):
            given = formula if name == "lmerTest" else repr(formula)
            fitted = asked["fit"].replace("formula", given)
            calls[f"model {i}"] = asked["summary"].replace("fit", fitted, 1)
        found = session(csvs["sleepstudy"], "y ~ x", calls, 1)
        show(f"ten models of sleepstudy, {name}", found)


def sixty(csvs, options):
    """Sixty models of different shape in a process, and its memory."""
    code = textwrap.dedent(SIXTY)
    for state, home, before in stores(options.shipped):
        command = [sys.executable, "-c", f"{before}\nimport interlace_jax\n{code}"]
        show(f"sixty models, interlace_jax, {state}", run(command, home))
    if options.peers:
        given = code.replace("interlace_jax.fit", "mixedlm.lmer")
        show("sixty models, mixedlm", run([options.peers, "-c", f"import mixedlm\n{given}"]))


def show(what, found):
    """One line."""
    cpu, wall, last = found or (float("nan"), float("nan"), "")
    memory = last if last.endswith("MB") else ""
    print(f"{what:50s} {cpu:8.0f} ms CPU {wall:8.0f} ms wall  {memory}", flush=True)


def main():
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers"), parser.add_argument("--rscript")
    parser.add_argument("--shipped", default=ROOT / "interlace_jax/runtime/programs/shipped.zip")
    parser.add_argument("--only", default="verbs,whole,ten,sixty")
    parser.add_argument("data", nargs="*", default=list(CASES))
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import interlace_jax

    with tempfile.TemporaryDirectory() as folder:
        csvs = {name: f"{folder}/{name}.csv" for name in {*options.data, "sleepstudy"}}
        for name, csv in csvs.items():
            interlace_jax.load_dataset(name).to_csv(csv, index=False)
        asked = {name: csvs[name] for name in options.data}
        for part in options.only.split(","):
            given = csvs if part == "ten" else asked
            {"verbs": verbs, "whole": whole, "ten": ten, "sixty": sixty}[part](given, options)


if __name__ == "__main__":
    main()
