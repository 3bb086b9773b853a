"""Crossed random effects with tens of thousands of levels, against GPBoost's iterative methods and
the exact core.

    python benchmarks/large.py                                       # 0.1, 0.5, 2 million ratings
    python benchmarks/large.py 50000x20000x5.5e6 200000x84000x32e6   # users x movies x ratings
    python benchmarks/large.py 10000x4000x5e5 --peers-python PYTHON  # the Python that has gpboost
    python benchmarks/large.py --accuracy 20                         # seeds against the dense core

Ratings of movies by users: popularity falls with a power of the rank on both sides, as MovieLens'
does, and half of a user's ratings are of movies of the community that the user belongs to. Every
fit is a process of its own, by maximum likelihood (GPBoost has no REML); *fit* is a whole call on a
data frame, the first one with compilation.
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

import jax
import jax.numpy as jnp
import machine
import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed

import interlace_jax as interlace  # noqa: E402
from interlace_jax.engines import iterative  # noqa: E402
from interlace_jax.numerics.likelihood.coordinates import to_conditioned  # noqa: E402

FORMULA = "rating ~ 1 + (1 | user) + (1 | movie)"
SLOPES = "rating ~ 1 + x + (1 + x | user) + (1 | movie) + (1 | genre)"
MODELS = {"intercepts": FORMULA, "slopes": SLOPES}
SD = {"user": 0.43, "movie": 0.53, "residual": 0.85}
COMMUNITIES = 12
PEER_RATINGS = 6e6  # GPBoost is given no more: it would take hours
GPBOOST = """
import json, resource, sys, time
import gpboost, numpy as np
columns = np.load(sys.argv[1])
groups = np.column_stack([columns["user"], columns["movie"]])
y = columns["rating"].astype(float)
start = time.perf_counter()
model = gpboost.GPModel(
    group_data=groups, likelihood="gaussian", matrix_inversion_method="iterative"
)
model.fit(y=y, X=np.ones((len(y), 1)))
seconds = time.perf_counter() - start
variances = np.asarray(model.get_cov_pars()).ravel()[:3]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps(dict(seconds=seconds, sd=np.sqrt(variances)[[1, 2, 0]].tolist(), peak_gb=peak,
                      deviance=2.0 * float(model.get_current_neg_log_likelihood()),
                      version=gpboost.__version__)))
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
    effects = (
        SD["user"] * rng.standard_normal(users)[user]
        + SD["movie"] * rng.standard_normal(movies)[movie]
    )
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
        if peers_python and rows <= PEER_RATINGS:
            found["gpboost"] = run([peers_python, "-c", GPBOOST, file])
    return found


def show(races: list[dict[str, object]]) -> None:
    """Print the table."""
    print(
        f"{'users x movies x ratings':28} {'':14} first s  fit s  peak GB  evals  "
        "deviance          noise  SDs"
    )
    for race in races:
        label = f"{race['users']} x {race['movies']} x {race['ratings'] / 1e6:g} M"
        for name in ("interlace_jax", "gpboost"):
            if r := race.get(name):
                sds = " ".join(f"{s:.5f}" for s in r["sd"])
                first, evals = f"{r.get('first', r['seconds']):7.1f}", r.get("steps", "")
                print(
                    f"{label:28} {name:14} {first} {r['seconds']:6.1f} {r['peak_gb']:8.2f} "
                    f"{evals!s:>6}  {r['deviance']:<16.3f} {r.get('noise', float('nan')):6.4f}  "
                    f"{sds}"
                )


def growth(races: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Powers of the number of ratings, and of that of levels, with which our figures grow:
    slopes of log on log.
    """
    done = [r for r in races if r["interlace_jax"]]
    sizes = {
        "ratings": [r["ratings"] for r in done],
        "levels": [r["users"] + r["movies"] for r in done],
    }
    ours = [r["interlace_jax"] for r in done]
    figures = {
        "fit s": [r["seconds"] for r in ours],
        "s an evaluation": [r["seconds"] / r["steps"] for r in ours],
        "peak GB": [r["peak_gb"] for r in ours],
        "noise": [r["noise"] for r in ours],
    }
    return {
        what: {
            by: float(np.polyfit(np.log(size), np.log(values), 1)[0]) for by, size in sizes.items()
        }
        for what, values in figures.items()
    }


def show_growth(powers: dict[str, dict[str, float]]) -> None:
    """Print what `growth` found."""
    for what, by in powers.items():
        print(
            f"{what:24} grows as " + ", ".join(f"{size}^{power:.2f}" for size, power in by.items())
        )


def accuracy(seeds: int) -> dict[str, object]:
    """Print and return by seed and model how far the iterative core is from the dense one, in
    units of uncertainty.
    """
    print(
        "seed model      method  theta / SE  deviance / noise  gradient / noise     noise  probes"
    )
    cases = []
    for seed in range(seeds):
        frame = with_slopes(ratings(2000, 800, 60_000, seed), seed)
        # or all seeds would have the same probes, and much of their noise in common
        iterative.SEED = seed
        # every seed has programs of its own, and the system lends memory in so many pieces
        jax.clear_caches()
        method = ("REML", "ML")[seed % 2]  # whose noise is the same: one is enough
        for name, formula in MODELS.items():
            found = compared(frame, formula, method)
            cases.append({"seed": seed, "model": name, "method": method} | found)
            print(
                f"{seed:4} {name:10} {method:6} {found['theta']:11.5f} {found['deviance']:17.2f} "
                f"{np.max(np.abs(found['gradient'])):17.2f} {found['noise']:9.4f} "
                f"{found['probes']:7}",
                flush=True,
            )
    summary = {name: _summary([c for c in cases if c["model"] == name]) for name in MODELS}
    print(json.dumps(summary, indent=1))
    return {"summary": summary, "cases": cases}


def compared(frame: pd.DataFrame, formula: str, method: str) -> dict[str, object]:
    """How far the iterative fit is from the exact one."""
    arguments = dict(method=method, weights="weight", df_method="normal")
    exact, found = (
        interlace.fit(formula, frame, core=name, **arguments) for name in ("dense", "iterative")
    )
    se = exact.delta(lambda p: p.theta)["se"].to_numpy()
    return {
        "theta": float(np.max(np.abs(found.theta - exact.theta) / se)),
        "deviance": (found.deviance - exact.deviance) / found.optimum.noise,
        "gradient": gradient_errors(exact, found).tolist(),
        "noise": found.optimum.noise,
        "probes": found.estimate.probes,
        "converged": found.converged,
    }


def gradient_errors(exact: interlace.Fit, found: interlace.Fit) -> np.ndarray:
    """By parameter of theta, at the estimate of the iterative core: its gradient less the exact
    one over its noise.
    """
    m, e, reml = found.model.engine.products, found.estimate, found.method == "REML"
    with jax.enable_x64(True):
        at = jnp.asarray(e.theta)
        J = np.asarray(jax.jacobian(lambda theta: to_conditioned(theta, m.layout, m.A))(at))
        true = np.asarray(jax.grad(lambda theta: exact.model.deviance(theta, reml))(at))
    evaluation = found.model.engine.evaluate(e.t, e, reml)
    noise = np.sqrt(np.diag(J.T @ evaluation.gradient_cov @ J))
    free = noise > 1e-6 * noise.max()  # a variance of 0 has derivative 0
    return ((J.T @ evaluation.gradient - true) / np.where(free, noise, 1.0))[free]


def _summary(cases):
    deviances = np.array([c["deviance"] for c in cases])
    gradients = np.concatenate([c["gradient"] for c in cases])
    return {
        "fits": len(cases),
        "converged": sum(c["converged"] for c in cases),
        "largest |theta - exact| / SE": max(c["theta"] for c in cases),
        "largest noise": max(c["noise"] for c in cases),
        "probes": sorted({c["probes"] for c in cases}),
    } | {
        f"({what} - exact) / noise": {
            "mean": float(z.mean()),
            "rms": float(np.sqrt(np.mean(z**2))),
            "largest": float(np.abs(z).max()),
            "share within 1, 2, 3": [float(np.mean(np.abs(z) <= k)) for k in (1, 2, 3)],
        }
        for what, z in (("deviance", deviances), ("gradient", gradients))
    }


def with_slopes(columns: dict[str, np.ndarray], seed: int) -> pd.DataFrame:
    """A frame with a predictor whose effect varies between users, a third factor, and weights."""
    rng = np.random.default_rng([seed, 1])
    frame = pd.DataFrame(columns)
    n = len(frame)
    frame["x"], frame["genre"], frame["weight"] = (
        rng.standard_normal(n),
        rng.integers(0, 20, n),
        rng.uniform(0.5, 2, n),
    )
    slopes, genres = 0.2 * rng.standard_normal(2000), 0.2 * rng.standard_normal(20)
    frame["rating"] += (0.1 + slopes[frame["user"]]) * frame["x"] + genres[frame["genre"]]
    return frame


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sizes", nargs="*", default=["4000x1500x1e5", "10000x4000x5e5", "20000x8000x2e6"]
    )
    parser.add_argument("--peers-python", default=os.environ.get("INTERLACE_PEERS_PYTHON"))
    parser.add_argument("--accuracy", type=int, metavar="SEEDS")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.fit:
        ours(chosen.fit)
    elif chosen.accuracy:
        store("large-accuracy", accuracy(chosen.accuracy))
    else:
        races = [race(size, chosen.peers_python) for size in chosen.sizes]
        show(races)
        powers = growth(races) if len(races) > 1 else {}
        show_growth(powers)
        store("large", {"races": races, "growth": powers})


def store(name: str, found: dict[str, object]) -> None:
    """Write what was found to a file of results."""
    text = json.dumps({"machine": machine.describe()} | found, indent=1)
    (HERE / "results" / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
