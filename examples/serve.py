"""Serve predictions of a saved fit: a small file, no data, no pickle, and no JAX in the process
that predicts.

python examples/serve.py            # fits, saves, and serves from a fresh process
python examples/serve.py fit.npz    # serves from a file
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import interlace_jax


def milliseconds(verb):
    """What a call returns, and how long it took."""
    began = time.perf_counter()
    found = verb()
    return found, 1e3 * (time.perf_counter() - began)


def train(path):
    """Fit and save."""
    data = interlace_jax.load_dataset("sleepstudy")
    fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", data)
    fit.save(path)
    print(f"saved {path.stat().st_size / 1e3:.0f} kB")


def serve(path):
    """Load and answer requests of one row and of a thousand."""
    saved, loading = milliseconds(lambda: interlace_jax.load(path))
    one = pd.DataFrame({"Days": [10.0], "Subject": ["S308"]})
    many = pd.concat([one.assign(Days=day) for day in range(1000)], ignore_index=True)
    print(f"loaded in {loading:.0f} ms: {saved}")
    for rows in (one, one, many):
        answer, took = milliseconds(lambda rows=rows: saved.predict(rows, interval="prediction"))
        print(f"{len(rows)} rows in {took:.1f} ms, the first: {answer.iloc[0].round(1).to_dict()}")
    print("JAX was imported:", "jax" in sys.modules)
    print(f"coefficient of Days, and lme4's: {saved.fe_params['Days']:.5f} | 10.46729")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            train(Path(folder) / "fit.npz")
            subprocess.run([sys.executable, __file__, str(Path(folder) / "fit.npz")], check=True)
