"""Degrees of freedom and profiles against lmerTest, pbkrtest and lme4, in one run: `python
benchmarks/inference.py`.

Warm medians in milliseconds, each on a fresh fit, so that nothing is remembered from the call
before; the first call (compilation, or its copy on disk) apart. R runs on one BLAS thread.
"""

import json
import os
import subprocess
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np

import interlace_jax as interlace

MODELS = {
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "crossed": "rt ~ condition + (condition | subject) + (1 | item)",
}
TASKS = {
    "Satterthwaite df": lambda fit: fit.fe_df,
    "Kenward-Roger df": lambda fit: fit.coefficients("kenward-roger").df(np.eye(2)),
    "profile intervals": lambda fit: fit.confint("profile"),
}
REPEATS = 7


def ours(data: str, formula: str) -> dict[str, tuple[float, float]]:
    """By task: seconds of the first call, and of later ones."""
    model = interlace.compile(formula, interlace.load_dataset(data))
    return {task: timed(model, call) for task, call in TASKS.items()}


def timed(model, call):
    seconds = []
    for _ in range(REPEATS + 1):
        fit = model.fit()
        start = time.perf_counter()
        call(fit)
        seconds.append(time.perf_counter() - start)
    return seconds[0], median(seconds[1:])


def theirs() -> dict[str, dict[str, float]]:
    """By data set and task: seconds in R."""
    script = Path(__file__).parent / "peers" / "inference.R"
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    folder = Path(__file__).parent.parent / "tests" / "reference" / "data"
    done = subprocess.run(
        ["Rscript", script, folder], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore", UserWarning)
    reference = theirs()
    print(f"{'':32} first ms   warm ms      R ms   ratio")
    for data, formula in MODELS.items():
        for task, (first, warm) in ours(data, formula).items():
            r = reference[data][task]
            print(
                f"{data + ', ' + task:32} {1e3 * first:8.0f} {1e3 * warm:9.2f} {1e3 * r:9.0f} "
                f"{r / warm:7.0f}"
            )


if __name__ == "__main__":
    main()
