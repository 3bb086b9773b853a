"""Coverage of intervals under the model: `python benchmarks/coverage.py [--nsim 2000]`; the table
goes to results/.

Responses are simulated from known parameters on two designs: sleepstudy's (18 subjects by 10 days,
random intercept and slope, at its REML estimates) and a small unbalanced one (8 groups of 3 to 9
rows, random intercept). Each is fitted by REML, singular fits included. Counted is how often an
interval of level 95% holds

    coefficient     the slope of the fixed part: t with Satterthwaite's df, and normal quantiles
    population      the population mean at a new x
    known level     the expected response of a level of the fit, at a new x; with theta's
                    uncertainty, and without
    new level       the expected response of a level that the fit has not seen
    new response    of a known level, of a new level

The Monte Carlo standard error is sqrt(.95 .05 / nsim): 0.5% for 2000.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import interlace_jax as interlace

RESULTS = Path(__file__).parent / "results" / "coverage.md"
SLEEP = {"beta": [251.4, 10.47], "Sigma": [[612.1, 9.6], [9.6, 35.1]], "sigma": 25.6}
SMALL = {"beta": [1.0, 0.5], "Sigma": [[0.5]], "sigma": 1.0}


def designs():
    """By name: formula, frame with a response to overwrite, parameters, x of the rows to
    predict.
    """
    sleep = interlace.load_dataset("sleepstudy").rename(
        columns={"Reaction": "y", "Days": "x", "Subject": "g"}
    )
    rng = np.random.default_rng(1)
    sizes = [3, 3, 4, 5, 6, 7, 8, 9]
    small = pd.DataFrame({"g": np.repeat([f"g{i}" for i in range(8)], sizes)})
    small = small.assign(x=rng.normal(size=len(small)), y=rng.normal(size=len(small)))
    return {
        "sleepstudy": ("y ~ x + (1 + x | g)", sleep, SLEEP, 12.0),
        "8 groups": ("y ~ x + (1 | g)", small, SMALL, 1.0),
    }


def intervals(fit, known, new):
    """By quantity: the frame of the interval, for the first row of its data."""
    wide = dict(interval="prediction")
    narrow = dict(interval="confidence")
    return {
        "population": fit.predict(known, include_re=False, **narrow),
        "known level": fit.predict(known, **narrow),
        "known level, theta's uncertainty added": fit.predict(
            known, theta_uncertainty=True, **narrow
        ),
        "new level": fit.predict(new, **narrow),
        "new response, known level": fit.predict(known, **wide),
        "new response, new level": fit.predict(new, **wide),
    }


def simulate(formula, frame, truth, x, nsim, seed=1):
    """Share of the intervals that hold what they are for, by quantity."""
    rng = np.random.default_rng(seed)
    beta, L, sigma = np.array(truth["beta"]), np.linalg.cholesky(truth["Sigma"]), truth["sigma"]
    codes, levels = pd.factorize(frame["g"])
    k, model = len(L), interlace.compile(formula, frame)
    X, at = np.column_stack([np.ones(len(frame)), frame["x"]]), np.array([1.0, x])
    known = pd.DataFrame({"x": [x], "g": levels[:1]})
    new = pd.DataFrame({"x": [x], "g": ["somebody else"]})
    held = {}
    for _ in range(nsim):
        b, b_new = rng.normal(size=(len(levels), k)) @ L.T, L @ rng.normal(size=k)
        y = X @ beta + (X[:, :k] * b[codes]).sum(1) + sigma * rng.normal(size=len(X))
        fit = model.with_response(y).fit()
        mean, of_known, of_new, noise = (
            at @ beta,
            at[:k] @ b[0],
            at[:k] @ b_new,
            sigma * rng.normal(),
        )
        targets = [mean, mean + of_known, mean + of_known, mean + of_new]
        targets += [mean + of_known + noise, mean + of_new + noise]
        found = {}
        for (name, interval), target in zip(
            intervals(fit, known, new).items(), targets, strict=True
        ):
            found[name] = interval["lower"].iloc[0] <= target <= interval["upper"].iloc[0]
        off = abs(fit.fe_params["x"] - beta[1])
        found["coefficient, Satterthwaite"] = (
            fit.fe_conf_int.loc["x", "upper"] - fit.fe_params["x"] >= off
        )
        found["coefficient, normal"] = 1.959964 * fit.fe_bse["x"] >= off
        found["(share of singular fits)"] = fit.is_singular
        for name, inside in found.items():
            held.setdefault(name, []).append(bool(inside))
    return pd.Series({name: np.mean(inside) for name, inside in held.items()})


def main() -> None:
    """Simulate, print and store the table."""
    warnings.simplefilter("ignore", UserWarning)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nsim", type=int, default=2000)
    nsim = parser.parse_args().nsim
    table = pd.DataFrame({name: simulate(*design, nsim) for name, design in designs().items()})
    rows = [
        f"| {name} | " + " | ".join(f"{100 * value:.1f}%" for value in row) + " |"
        for name, row in table.iterrows()
    ]
    head = [
        "| interval of level 95% for | " + " | ".join(table) + " |",
        "|---|" + "---|" * table.shape[1],
    ]
    text = "\n".join([*head, *rows, "", f"{nsim} simulations each."])
    print(text)
    RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
