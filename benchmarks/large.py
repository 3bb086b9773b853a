"""Crossed random effects with tens of thousands of levels, against GPBoost's iterative methods and the exact core.

    python benchmarks/large.py                                            # 0.1 and 0.5 million ratings
    python benchmarks/large.py 50000x20000x5.5e6 200000x84000x32e6        # users x movies x ratings
    python benchmarks/large.py 10000x4000x5e5 --peers-python PYTHON       # the Python that has gpboost
    python benchmarks/large.py --accuracy 5                               # so many seeds against the dense core

Ratings of movies by users: popularity falls with a power of the rank on both sides, as MovieLens' does, and half of a
user's ratings are of movies of the community that the user belongs to. Every fit is a process of its own, by maximum
likelihood (GPBoost has no REML); *fit* is a whole call on a data frame, the first one with compilation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed

import interlace_jax as interlace  # noqa: E402

FORMULA = "rating ~ 1 + (1 | user) + (1 | movie)"
SLOPES = "rating ~ 1 + x + (1 + x | user) + (1 | movie) + (1 | genre)"
SD = {"user": 0.43, "movie": 0.53, "residual": 0.85}
COMMUNITIES = 12
GPBOOST = """
import json, resource, sys, time
import gpboost, numpy as np
columns = np.load(sys.argv[1])
groups = np.column_stack([columns["user"], columns["movie"]])
y = columns["rating"].astype(float)
start = time.perf_counter()
model = gpboost.GPModel(group_data=groups, likelihood="gaussian", matrix_inversion_method="iterative")
model.fit(y=y, X=np.ones((len(y), 1)))
seconds = time.perf_counter() - start
variances = np.asarray(model.get_cov_pars()).ravel()[:3]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps(dict(seconds=seconds, sd=np.sqrt(variances)[[1, 2, 0]].tolist(), peak_gb=peak,
                      deviance=2.0 * float(model.get_current_neg_log_likelihood()), version=gpboost.__version__)))
"""


def ratings(users: int, movies: int, rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    """So many ratings (or all that there can be) of pairs that occur once, sorted by user."""
    rng = np.random.default_rng(seed)
    pairs = np.empty(0, np.int64)
    while len(pairs) < rows:
        user = ranks(rng, users, 0.6, rows)
        movie = ranks(rng, movies, 0.9, rows)
        own = movie - movie % COMMUNITIES + user % COMMUNITIES
        movie = np.where((rng.random(rows) < 0.5) & (own < movies), own, movie)
        pairs = np.union1d(pairs, user * movies + movie)
    pairs = pairs[np.sort(rng.permutation(len(pairs))[:rows])]
    user, movie = pairs // movies, pairs % movies
    effects = SD["user"] * rng.standard_normal(users)[user] + SD["movie"] * rng.standard_normal(movies)[movie]
    rating = 3.5 + effects + SD["residual"] * rng.standard_normal(rows)
    return {"user": user.astype(np.int32), "movie": movie.astype(np.int32), "rating": rating}


def ranks(rng: np.random.Generator, size: int, power: float, count: int) -> np.ndarray:
    """Ranks from 0, with probability falling as a power of the rank."""
    cumulative = np.cumsum(np.arange(1, size + 1) ** -power)
    return np.searchsorted(cumulative / cumulative[-1], rng.random(count))


def ours(file: str) -> None:
    """Fit twice and print what happened."""
    frame = pd.DataFrame(dict(np.load(file)))
    before, seconds = peak(), []
    for _ in range(2):
        start = time.perf_counter()
        fit = interlace.fit(FORMULA, frame, method="ML", df_method="normal", core="iterative")
        seconds.append(time.perf_counter() - start)
    variances = fit.variance_components
    start = time.perf_counter()
    said = str(fit.model.fit("REML").summary())
    done = dict(
        first=seconds[0],
        seconds=seconds[1],
        reml_summary=time.perf_counter() - start,
        sd=np.sqrt([variances["user"], variances["movie"], variances["residual"]]).tolist(),
        deviance=fit.deviance,
        noise=fit.optimum.noise,
        steps=fit.optimum.steps,
        probes=fit.estimate.probes,
        converged=fit.converged,
        before_gb=before,
        peak_gb=peak(),
    )
    print(said, file=sys.stderr)
    print(json.dumps(done))


def peak() -> float:
    """Largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(arguments: list[str]) -> dict[str, object] | None:
    """The JSON line that a process prints last; None where it fails."""
    environment = os.environ | {"INTERLACE_JAX_CACHE": "0"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def race(size: str, peers_python: str | None) -> dict[str, object]:
    """One size, by us and, where there is a Python for it, by GPBoost."""
    users, movies, rows = (int(float(part)) for part in size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "ratings.npz")
        np.savez(file, **ratings(users, movies, rows))
        found = {"users": users, "movies": movies, "ratings": rows}
        found["interlace_jax"] = run([sys.executable, __file__, "--fit", file])
        if peers_python:
            found["gpboost"] = run([peers_python, "-c", GPBOOST, file])
    return found


def show(races: list[dict[str, object]]) -> None:
    """Print the table and how times grow with the number of ratings."""
    print(f"{'users x movies x ratings':28} {'':14} first s  fit s  peak GB  evals  deviance          noise  SDs")
    for race in races:
        label = f"{race['users']} x {race['movies']} x {race['ratings'] / 1e6:g} M"
        for name in ("interlace_jax", "gpboost"):
            if r := race.get(name):
                sds = " ".join(f"{s:.5f}" for s in r["sd"])
                first, evals = f"{r.get('first', r['seconds']):7.1f}", r.get("steps", "")
                print(
                    f"{label:28} {name:14} {first} {r['seconds']:6.1f} {r['peak_gb']:8.2f} {evals!s:>6}  "
                    f"{r['deviance']:<16.3f} {r.get('noise', float('nan')):6.4f}  {sds}"
                )
    done = [r for r in races if r["interlace_jax"]]
    if len(done) > 1:
        n, s = (np.log([r["ratings"] for r in done]), np.log([r["interlace_jax"]["seconds"] for r in done]))
        print(f"time grows as ratings^{np.polyfit(n, s, 1)[0]:.2f}")


def accuracy(seeds: int) -> None:
    """Print, by seed and model, how far the iterative core is from the dense one, in units of what is uncertain."""
    print("seed model      theta / SE   deviance / noise   noise   probes")
    for seed in range(seeds):
        frame = with_slopes(ratings(2000, 800, 60_000, seed), seed)
        for name, formula in (("intercepts", FORMULA), ("slopes", SLOPES)):
            for method in ("REML", "ML"):
                arguments = dict(method=method, weights="weight", df_method="normal")
                exact, found = (
                    interlace.fit(formula, frame, core=core, **arguments) for core in ("dense", "iterative")
                )
                se = exact.delta(lambda p: p.theta)["se"].to_numpy()
                moved = np.max(np.abs(found.theta - exact.theta) / se)
                away = (found.deviance - exact.deviance) / found.optimum.noise
                noise, probes = found.optimum.noise, found.estimate.probes
                print(f"{seed:4} {name:10} {moved:12.5f} {away:18.2f} {noise:8.4f} {probes:8}  {method}")


def with_slopes(columns: dict[str, np.ndarray], seed: int) -> pd.DataFrame:
    """A frame with a predictor whose effect varies between users, a third factor, and weights."""
    rng = np.random.default_rng([seed, 1])
    frame = pd.DataFrame(columns)
    n = len(frame)
    frame["x"], frame["genre"], frame["weight"] = rng.standard_normal(n), rng.integers(0, 20, n), rng.uniform(0.5, 2, n)
    slopes, genres = 0.2 * rng.standard_normal(2000), 0.2 * rng.standard_normal(20)
    frame["rating"] += (0.1 + slopes[frame["user"]]) * frame["x"] + genres[frame["genre"]]
    return frame


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["4000x1500x1e5", "10000x4000x5e5"])
    parser.add_argument("--peers-python", default=os.environ.get("INTERLACE_PEERS_PYTHON"))
    parser.add_argument("--accuracy", type=int, metavar="SEEDS")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.fit:
        ours(chosen.fit)
    elif chosen.accuracy:
        accuracy(chosen.accuracy)
    else:
        races = [race(size, chosen.peers_python) for size in chosen.sizes]
        show(races)
        target = HERE / "results" / "large.json"
        target.write_text(json.dumps({"machine": machine.describe(), "races": races}, indent=1) + "\n")


if __name__ == "__main__":
    main()
