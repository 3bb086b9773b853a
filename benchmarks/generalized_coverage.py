"""Coverage and bias of generalised fits under the model: `python benchmarks/generalized_coverage.py
[--nsim 2000]`; the table goes to results/.

Responses of 100 groups with a random intercept and a predictor that varies within groups are
simulated from known parameters: binary ones in groups of 2, 5 and 20 rows, counts of mean about 0.5
and 5 in groups of 5. Each is fitted by Laplace's approximation and, where that is far off, by 11
nodes of quadrature. Counted are how far the slope and the standard deviation of the intercepts are
off on average, and how often the Wald interval of 95% holds the slope; the Monte Carlo standard
error of each number stands after it.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

import interlace_jax as interlace

RESULTS = Path(__file__).parent / "results" / "generalized_coverage.md"
GROUPS, SLOPE, Z = 100, 0.5, 1.959963984540054
HEAD = "| responses | rows a group | SD | fitted by | slope off by | SD off by | slope held |"
STUDIES = [
    # responses, family, rows a group, SD of intercepts, intercept, nodes
    ("binary", "binomial", 2, 2.0, 0.3, (1, 11)),
    ("binary", "binomial", 2, 1.0, 0.3, (1, 11)),
    ("binary", "binomial", 5, 1.0, 0.3, (1, 11)),
    ("binary", "binomial", 20, 1.0, 0.3, (1,)),
    ("counts of mean 0.5", "poisson", 5, 0.7, -0.9, (1,)),
    ("counts of mean 5", "poisson", 5, 0.7, 1.4, (1,)),
]


def simulated(family, rows, sd, intercept, nsim, rng):
    """A design and its responses (n, nsim)."""
    g = np.repeat(np.arange(GROUPS), rows)
    frame = pd.DataFrame({"g": g, "x": rng.normal(size=len(g))})
    b = sd * rng.normal(size=(GROUPS, nsim))
    eta = intercept + SLOPE * frame[["x"]].to_numpy() + b[g]
    draw = rng.poisson(np.exp(eta)) if family == "poisson" else rng.binomial(1, special.expit(eta))
    return frame, draw * 1.0


def off(estimates, truth):
    """How far estimates are off on average, with its Monte Carlo standard error."""
    error = estimates.std(ddof=1) / np.sqrt(len(estimates))
    return f"{estimates.mean() - truth:+.3f} ± {error:.3f}"


def share(held):
    """How often something holds, with its Monte Carlo standard error."""
    error = held.std() / np.sqrt(len(held))
    return f"{100 * held.mean():.1f} ± {100 * error:.1f}%"


def main():
    """Run all studies, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nsim", type=int, default=2000)
    nsim = parser.parse_args().nsim
    warnings.simplefilter("ignore")
    lines = [HEAD, "|---|---:|---:|---|---:|---:|---:|"]
    for responses, family, rows, sd, intercept, nodes in STUDIES:
        frame, Y = simulated(family, rows, sd, intercept, nsim, np.random.default_rng(11))
        for nagq in nodes:
            many = interlace.fit_many(
                "~ x + (1 | g)", frame, responses=Y, family=family, nagq=nagq, progress=False
            )
            fitted = many.converged.to_numpy()
            beta, se = (t["x"].to_numpy()[fitted] for t in (many.fe_params, many.fe_bse))
            theta = many.theta.to_numpy()[fitted, 0]
            held = np.abs(beta - SLOPE) < Z * se
            how = "Laplace" if nagq == 1 else f"{nagq} nodes"
            cells = [off(beta, SLOPE), off(theta, sd), share(held)]
            lines.append(f"| {responses} | {rows} | {sd:g} | {how} | {' | '.join(cells)} |")
            print(lines[-1], f"({fitted.sum()} of {nsim} converged)", flush=True)
    lines += ["", f"{nsim} simulations each, of {GROUPS} groups; slope {SLOPE}."]
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
