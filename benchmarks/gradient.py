"""What a derivative through the fit costs: `python benchmarks/gradient.py`.

The held-out loss of a fitted model is the mean squared error of its predictions (BLUPs included)
for rows that it was not fitted to; its gradient is by the columns of the fitted rows, response and
predictor. One implicit gradient in reverse mode against one fit with its loss, and against finite
differences, two fits a number. All are compiled, in float64, and timed warm and in turns; finite
differences are timed on a few numbers and extrapolated. The run fails if they disagree with the
implicit gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import machine
import numpy as np
from threadpoolctl import threadpool_limits

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed

import interlace_jax as interlace  # noqa: E402

STEP = 1e-3  # of the differences, in standard deviations of the column
SAMPLE = 8  # numbers that finite differences are made for


def slopes(groups: int, rows: int) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, bool]]]:
    """(y, x, factors) with an intercept and a slope for every group."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(groups), rows), rng.standard_normal(groups * rows)
    b = rng.standard_normal((groups, 2)) * [1.0, 0.5]
    return 1.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.standard_normal(len(g)), x, [(g, True)]


def crossed(
    subjects: int, items: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, bool]]]:
    """(y, x, factors) of subjects by items, slopes by subject."""
    rng = np.random.default_rng(1)
    s, i = (
        grid.ravel() for grid in np.meshgrid(np.arange(subjects), np.arange(items), indexing="ij")
    )
    x, b = rng.standard_normal(len(s)), rng.standard_normal((subjects, 2)) * [1.0, 0.5]
    y = (
        0.5 * x
        + b[s, 0]
        + b[s, 1] * x
        + 0.7 * rng.standard_normal(items)[i]
        + rng.standard_normal(len(s))
    )
    return y, x, [(s, True), (i, False)]


CASES = {
    "18 groups, 180 rows, slopes": lambda: slopes(18, 10),
    "2,000 groups, 20,000 rows, slopes": lambda: slopes(2000, 10),
    "40 subjects x 60 items, slopes": lambda: crossed(40, 60),
}


def problem(y, x, factors):
    """The loss of the columns (y, x) of the rows that are fitted; every fifth row is held out."""
    held = np.arange(len(y)) % 5 == 4

    def design(x, rows):
        X = jnp.stack([jnp.ones_like(x), x], 1)
        return X, [(codes[rows], X if slope else X[:, :1]) for codes, slope in factors]

    def loss(columns):
        m = interlace.moments(columns[0], *design(columns[1], ~held))
        error = jnp.asarray(y[held]) - interlace.predict(
            interlace.estimate(m), m, *design(jnp.asarray(x[held]), held)
        )
        return jnp.mean(error**2)

    return loss, jnp.stack([y[~held], x[~held]])


def case(name: str, repeat: int) -> dict:
    """Medians in seconds, and the largest disagreement with finite differences relative to the
    largest derivative.
    """
    loss, columns = problem(*CASES[name]())
    one, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
    rng = np.random.default_rng(0)
    places = [(i % 2, int(j)) for i, j in enumerate(rng.integers(0, columns.shape[1], SAMPLE))]

    def differences():
        steps = [jnp.zeros_like(columns).at[place].set(STEP) for place in places]
        return [(one(columns + s) - one(columns - s)) / (2 * STEP) for s in steps]

    calls = {
        "fit": lambda: one(columns),
        "gradient": lambda: both(columns),
        "differences": differences,
    }
    first, seconds = (
        {what: timed(call) for what, call in calls.items()},
        {what: [] for what in calls},
    )
    for _ in range(repeat):
        for what, call in calls.items():
            seconds[what].append(timed(call))
    gradient = np.asarray(both(columns)[1])
    gap = np.max(np.abs(np.array([gradient[place] for place in places]) - np.array(differences())))
    times = {what: median(s) for what, s in seconds.items()}
    times["differences"] *= columns.size / SAMPLE
    ratio = median(g / f for f, g in zip(seconds["fit"], seconds["gradient"], strict=True))
    found = dict(
        name=name, derivatives=columns.size, seconds=times, first_s=first, gradient_in_fits=ratio
    )
    return found | dict(gap=float(gap / np.abs(gradient).max()))


def timed(call) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    before, rows = os.getloadavg()[0], []
    print(
        "| model | derivatives | fit and loss | with gradient | in fits | finite differences | "
        "gap |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        for name in CASES:
            row = case(name, options.repeat)
            rows.append(row)
            s = row["seconds"]
            cells = (
                f"{1e3 * s['fit']:.2f} ms | {1e3 * s['gradient']:.2f} ms | "
                f"{row['gradient_in_fits']:.2f} | "
            )
            print(
                f"| {name} | {row['derivatives']:,} | {cells}{s['differences']:.3g} s | "
                f"{row['gap']:.0e} |",
                flush=True,
            )
    result = dict(
        rows=rows, machine=machine.describe(), load_before=before, load_after=os.getloadavg()[0]
    )
    (HERE / "results" / "gradient.json").write_text(json.dumps(result, indent=1) + "\n")
    if max(row["gap"] for row in rows) > 1e-4:
        sys.exit("the implicit gradient and the finite differences disagree")


if __name__ == "__main__":
    main()
