"""Thousands of models in one call against loops over lme4 and mixedlm: `python benchmarks/many.py
[names ...]`.

Ours are timed warm and whole, tables included. Loops are timed on a sample of responses and
extrapolated, as marked. `million` reads its responses from a file that is never held in memory. On
a machine with a GPU that JAX can use, `python benchmarks/many.py million crossed` is the run that
needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import machine
import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed

import interlace_jax as interlace  # noqa: E402

CROSSED = "condition + (1 + condition | subject) + (1 | item)"
R_LOOP = """
suppressMessages(library(lme4)); arguments <- commandArgs(TRUE)
d <- read.csv(arguments[1]); Y <- as.matrix(read.csv(arguments[2])); d$y <- Y[, 1]
for (name in c("Subject", "subject", "item")) if (name %in% names(d)) d[[name]] <- factor(d[[name]])
first <- suppressMessages(suppressWarnings(lmer(as.formula(arguments[3]), d)))
control <- suppressMessages(suppressWarnings(refit(first, Y[, 2])))
quietly <- function(value) suppressMessages(suppressWarnings(value))
took <- system.time(for (j in seq_len(ncol(Y))) quietly(refit(first, Y[, j])))[["elapsed"]]
values <- sapply(seq_len(min(10, ncol(Y))), function(j) {  # refit() would change the criterion
  d$y <- Y[, j]; REMLcrit(quietly(lmer(as.formula(arguments[3]), d))) })
boot <- NA; n <- as.integer(arguments[4])
if (n > 0) boot <- system.time(quietly(bootMer(first, fixef, nsim = n)))[["elapsed"]]
cat(jsonlite::toJSON(list(seconds = took, boot = boot, values = values,
                          version = as.character(packageVersion("lme4"))),
                     auto_unbox = TRUE, digits = 12, na = "null"))
"""
MIXEDLM_LOOP = """
import json, sys, time, warnings, importlib.metadata
import pandas as pd
import mixedlm
warnings.simplefilter("ignore")
d, Y = pd.read_csv(sys.argv[1]), pd.read_csv(sys.argv[2])
def fit(y):
    return mixedlm.lmer(sys.argv[3], d.assign(y=y), REML=True)
fit(Y.iloc[:, 0])
start = time.perf_counter()
for name in Y:
    fit(Y[name])
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "version": importlib.metadata.version("mixedlm")}))
"""


def sleepstudy(models: int) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Responses simulated from the fit to sleepstudy."""
    frame = interlace.load_dataset("sleepstudy")
    fit = interlace.fit("Reaction ~ Days + (1 + Days | Subject)", frame)
    return frame, fit.simulate(models, seed=1).to_numpy(), "Days + (1 + Days | Subject)"


def crossed(models: int) -> tuple[pd.DataFrame, np.ndarray, str]:
    """30 subjects by 60 items, a condition that varies within both."""
    rng = np.random.default_rng(1)
    subject, item = (
        grid.ravel() for grid in np.meshgrid(np.arange(30), np.arange(60), indexing="ij")
    )
    condition = (subject + item) % 2 - 0.5
    Y = (
        rng.standard_normal((len(subject), models))
        + 0.8 * rng.standard_normal((30, models))[subject]
    )
    Y += 0.4 * rng.standard_normal((60, models))[item]
    Y += condition[:, None] * (0.2 + 0.4 * rng.standard_normal((30, models))[subject])
    return pd.DataFrame({"subject": subject, "item": item, "condition": condition}), Y, CROSSED


def million(models: int) -> tuple[pd.DataFrame, np.ndarray, str]:
    """The same as `sleepstudy` in a file, mapped into memory; written and read in slices."""
    frame, block = interlace.load_dataset("sleepstudy"), min(models, 20_000)
    fit = interlace.fit("Reaction ~ Days + (1 + Days | Subject)", frame)
    path = Path(tempfile.gettempdir()) / f"interlace-responses-{models}.npy"
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=float, shape=(len(frame), models))
    for start in range(0, models, block):
        stored[:, start : start + block] = fit.simulate(block, seed=start).to_numpy()[
            :, : models - start
        ]
    stored.flush()
    return frame, np.load(path, mmap_mode="r"), "Days + (1 + Days | Subject)"


CASES = {  # the problem, its responses, how many of them the loops get
    "sleepstudy": (sleepstudy, 10_000, 200),
    "crossed": (crossed, 10_000, 40),
    "million": (million, 1_000_000, 200),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", default=["sleepstudy", "crossed"], help=f"which of {', '.join(CASES)}"
    )
    parser.add_argument("--models", type=int, help="responses of each case")
    parser.add_argument("--repeat", type=int, default=3, help="warm calls")
    parser.add_argument("--peers-python", default=os.environ.get("INTERLACE_PEERS_PYTHON"))
    parser.add_argument("--rscript", default="Rscript")
    options = parser.parse_args()
    for name in options.names:
        make, models, sample = CASES[name]
        result = _case(name, make(options.models or models), sample, options)
        (HERE / "results" / f"many-{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(_markdown(result), flush=True)


def _case(name, problem, sample, options) -> dict:
    frame, Y, right = problem
    models = Y.shape[1]
    rows, kept, before = [], {}, os.getloadavg()[0]

    def ours(what, call, of=models):
        with Peak() as memory:
            first, *times = [_time(call) for _ in range(options.repeat + 1)]
        times = times or [first]
        runner = f"interlace_jax, {what}"
        rows.append(
            dict(runner=runner, first_s=first, seconds=min(times), times=times, models=of)
            | memory.report()
        )

    def fits(dtype="float64"):
        return interlace.fit_many("~ " + right, frame, responses=Y, dtype=dtype, progress=False)

    ours("estimates, errors, certificate", lambda: kept.update(many=fits()))
    many = kept["many"]
    ours("then degrees of freedom", lambda: (vars(many).pop("fe_df", None), many.fe_df))
    ours("estimates as above, searched in float32", lambda: fits("float32"))
    boot = 0
    if name == "sleepstudy":
        boot = 100
        fit = interlace.fit("y ~ " + right, frame.assign(y=Y[:, 0]))
        ours("bootstrap of 1000", lambda: fit.bootstrap(1000, seed=1).estimates, 1000)
    peers, gap = _peers(
        frame, Y[:, :sample], "y ~ " + right, boot, options, -2 * many.llf.to_numpy()
    )
    certificate = dict(
        converged=float(many.converged.mean()),
        singular=float(many.is_singular.mean()),
        gradient=float(many.certificate["gradient"].max()),
        predicted_decrease=float(many.certificate["predicted_decrease"].max()),
        reml_above_lme4=gap,
    )
    where = dict(
        machine=machine.describe(),
        device=_device(),
        load_before=before,
        load_after=os.getloadavg()[0],
    )
    formula = "y ~ " + right
    return (
        dict(name=name, formula=formula, models=models, rows=rows + peers, certificate=certificate)
        | where
    )


def _device() -> str:
    devices = jax.local_devices()
    return f"{len(devices)} {devices[0].platform} ({devices[0].device_kind})"


class Peak:
    """Memory of this process (Linux): before, and the largest seen; a mapped file's pages do not
    count.
    """

    def __enter__(self) -> Peak:
        self.before = self.largest = _own_memory()
        self.over = threading.Event()
        self.watch = threading.Thread(target=self._watch)
        self.watch.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.02):
            self.largest = max(self.largest, _own_memory())

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.watch.join()

    def report(self) -> dict[str, float]:
        return dict(memory_before_mb=self.before, memory_peak_mb=self.largest)


def _own_memory() -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def _time(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _peers(frame, Y, formula, boot, options, ours) -> tuple[list[dict], float | None]:
    """Rows of the loops, and how far ours is at most above lme4's criterion."""
    rows, gap, n = [], None, Y.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        data, responses, script = (
            Path(folder) / name for name in ("data.csv", "responses.csv", "loop")
        )
        frame.to_csv(data, index=False)
        pd.DataFrame(Y).add_prefix("y").to_csv(responses, index=False)
        for peer, command, text in (
            ("lme4, refit loop", options.rscript, R_LOOP),
            ("mixedlm, loop of fits", options.peers_python, MIXEDLM_LOOP),
        ):
            if command is None or shutil.which(command) is None:
                continue
            script.write_text(text)
            done = subprocess.run(
                [command, script, data, responses, formula, str(boot)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                rows.append(dict(runner=peer, error=done.stderr[-500:]))
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                dict(runner=f"{peer} ({found['version']})", seconds=found["seconds"], models=n)
            )
            if found.get("values"):
                gap = float(np.max(ours[: len(found["values"])] - np.array(found["values"])))
            if found.get("boot"):
                rows.append(dict(runner="lme4, bootMer", seconds=found["boot"], models=boot))
    return rows, gap


def _markdown(result) -> str:
    lines = [
        f"### many-{result['name']}: {result['models']:,} responses of `{result['formula']}`, REML",
        "",
    ]
    lines += [
        "| runner | models timed | first call | seconds | models/s | for all, s | memory, MB |"
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for row in result["rows"]:
        if "error" in row:
            lines.append(f"| {row['runner']} | failed | | | | | |")
            continue
        rate, first = (
            row["models"] / row["seconds"],
            f"{row['first_s']:.2f}" if "first_s" in row else "",
        )
        total = 1000 if "boot" in row["runner"] else result["models"]
        mark = "" if row["models"] == total else " (extrapolated)"
        cells = (
            f"{row['models']:,} | {first} | {row['seconds']:.3g} | {rate:,.0f} | "
            f"{total / rate:.3g}{mark} | "
        )
        if "memory_peak_mb" in row:
            cells += f"{row['memory_before_mb']:.0f} to {row['memory_peak_mb']:.0f}"
        lines.append(f"| {row['runner']} | {cells} |")
    c = result["certificate"]
    lines += [
        "",
        f"Converged {c['converged']:.2%}, singular {c['singular']:.2%}; largest predicted "
        "decrease ",
    ]
    above = (
        ""
        if c["reml_above_lme4"] is None
        else f"; -2 log L at most {c['reml_above_lme4']:.1e} above lme4's"
    )
    load = f"Load average {result['load_before']:.1f} to {result['load_after']:.1f}."
    lines[-1] += f"{c['predicted_decrease']:.1e}{above}. On {result['device']}. {load}"
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
