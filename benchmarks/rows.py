"""Rows beyond memory: a simulated Parquet file fitted in batches, `python benchmarks/rows.py [rows
groups]`.

`y ~ x + (1 + x | g)`; the fit runs in a process of its own, whose peak memory is printed. Default:
50 million rows in a million groups.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interlace_jax as interlace  # noqa: E402

FORMULA = "y ~ x + (1 + x | g)"
BATCH = 1_000_000
TRUE = {"Intercept": 1.0, "x": 2.0, "sd_(Intercept)|g": 1.0, "sd_x|g": 0.5, "sigma": 1.0}


def write(path: Path, rows: int, groups: int) -> None:
    rng = np.random.default_rng(1)
    b = rng.normal(size=(groups, 2)) * [TRUE["sd_(Intercept)|g"], TRUE["sd_x|g"]]
    schema = pa.schema([("y", pa.float64()), ("x", pa.float64()), ("g", pa.int32())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, BATCH):
            n = min(BATCH, rows - start)
            g, x = rng.integers(0, groups, n), rng.normal(size=n)
            y = TRUE["Intercept"] + b[g, 0] + (TRUE["x"] + b[g, 1]) * x + rng.normal(size=n)
            writer.write_table(pa.table([y, x, g.astype(np.int32)], schema=schema))


def fit(path: str) -> None:
    """Fit the file; print steps with seconds and the peak memory so far."""
    start = time.perf_counter()

    def passed(what):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what:44} {time.perf_counter() - start:8.1f} s  {peak:6.2f} GiB", flush=True)

    model = interlace.compile(FORMULA, path)
    passed("rows read")
    model.moments  # noqa: B018
    passed("cross-products")
    found = model.fit()
    passed(f"fit: {found.optimum.message}")
    for name, true in TRUE.items():
        print(f"  {name:20} {found.parameters[name]:9.5f}  (simulated with {true})")
    found.random_effects  # noqa: B018
    passed("random effects")


def main() -> None:
    rows, groups = (
        (int(float(a)) for a in sys.argv[1:3]) if len(sys.argv) > 2 else (50_000_000, 1_000_000)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write(path, rows, groups)
        print(
            f"{rows:,} rows, {groups:,} groups, a file of {path.stat().st_size / 2**30:.2f} GiB",
            flush=True,
        )
        subprocess.run([sys.executable, __file__, "--fit", path], check=True)


if __name__ == "__main__":
    fit(sys.argv[2]) if sys.argv[1:2] == ["--fit"] else main()
