"""Time of many responses of people in families, seen several times: sizes as those of FEMA's
published timings (Fan et al. 2022, Hum. Brain Mapp. 43).

python benchmarks/many_families.py [largest product of rows and responses, in millions]

Prints a table: CPU seconds of a warm call of `fit_many`, tables included, for rows x responses. A
full table, 100 million values, takes minutes and a gigabyte.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import machine
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout, whatever is installed

import interlace_jax as interlace  # noqa: E402

ROWS = 2_000, 5_000, 10_000, 20_000
RESPONSES = 50, 500, 5_000
PREDICTORS = [f"x{j}" for j in range(1, 6)]
FORMULA = "~ " + " + ".join(PREDICTORS) + " + (1 | family) + (1 | subject)"


def families(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Families of one to three people, each seen one to four times."""
    people = np.repeat(np.arange(rows), rng.integers(1, 4, rows))[:rows]
    subject = np.repeat(np.arange(rows), rng.integers(1, 5, rows))[:rows]
    frame = pd.DataFrame(rng.normal(size=(rows, 5)), columns=PREDICTORS)
    return frame.assign(family=people[subject], subject=subject)


def responses(frame: pd.DataFrame, count: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal residuals, and effects of families and people with half the variance each."""
    Y = rng.normal(size=(len(frame), count))
    for name in ("family", "subject"):
        codes = frame[name].to_numpy()
        Y += np.sqrt(0.5) * rng.normal(size=(codes.max() + 1, count))[codes]
    return Y


def seconds(rows: int, count: int) -> float:
    """CPU time of the second call."""
    rng = np.random.default_rng(rows + count)
    frame = families(rows, rng)
    Y = responses(frame, count, rng)
    for _ in range(2):
        start = time.process_time()
        many = interlace.fit_many(FORMULA, frame, responses=Y, progress=False)
        took = time.process_time() - start
    if many.converged.mean() < 1.0:
        print(f"{rows} x {count}: {many.converged.mean():.2%} converged", file=sys.stderr)
    return took


def main() -> None:
    most = 1e6 * float(sys.argv[1]) if len(sys.argv) > 1 else np.inf
    where = machine.describe()
    print(f"`{FORMULA}`, CPU seconds of {where['cores_used']} cores, {where['cpu']}\n")
    print("| rows | " + " | ".join(f"{count:,} responses" for count in RESPONSES) + " |")
    print("|---:|" + "---:|" * len(RESPONSES))
    for rows in ROWS:
        cells = [
            f"{seconds(rows, count):.2f}" if rows * count <= most else "" for count in RESPONSES
        ]
        print(f"| {rows:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
