"""Profile limits of standard deviations and the correlation against a global search, on small sets.

    python benchmarks/profile_limits.py [sets] [--level 0.95]

Six to fifteen subjects with random slopes, mostly of negative correlation: profiles have several
basins there, and a search that starts in the wrong one ends too near the estimate. At every limit
the deviance is minimised over the other parameters from a grid of starts, by SciPy, as the closed
form for balanced data. A limit is wrong where that minimum is not chi-squared's quantile above the
lowest, by more than a hundredth of it, and the limit is not at the end of the parameter's range.
"""

from __future__ import annotations

import argparse
import itertools
import warnings

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.stats import chi2

import interlace_jax as interlace

ROWS = {"sd_(Intercept)|g": 0, "sd_x|g": 1, "cor_x.(Intercept)|g": 2, "sigma": 3}
STARTS = list(itertools.product((-4.0, -2.0, 0.0), (-4.0, -2.0, 0.0), (-1.5, 0.0, 1.5), (-1.0,)))


def dataset(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows, and the times x of one subject; all subjects have the same."""
    r = np.random.default_rng(seed)
    m, each = int(r.choice([6, 8, 10, 15])), int(r.choice([5, 8]))
    x = np.arange(each) * 2.0 / (each - 1)
    sd, rho = r.choice([0.5, 0.8, 1.2]), r.choice([-0.5, -0.7, -0.85])
    sigma = r.choice([0.3, 0.5])
    root = np.array([[1.0, sd * rho], [0.0, sd * np.sqrt(1 - rho**2)]])
    b = r.normal(size=(m, 2)) @ root
    y = 1 + b[:, :1] + (0.5 + b[:, 1:]) * x + sigma * r.normal(size=(m, each))
    frame = pd.DataFrame({"y": y.ravel(), "x": np.tile(x, m), "g": np.repeat(np.arange(m), each)})
    return frame, x


class Deviance:
    """-2 log L at (log sd, log sd, atanh rho, log sigma), for a design in which GLS is OLS."""

    def __init__(self, frame: pd.DataFrame, x: np.ndarray):
        self.Z = np.column_stack([np.ones_like(x), x])
        y = frame["y"].to_numpy().reshape(-1, len(x))
        self.m = len(y)
        hat = self.Z @ np.linalg.pinv(self.Z)
        left = y - hat @ y.mean(axis=0)
        self.S = left.T @ left

    def __call__(self, values: np.ndarray) -> float:
        a, b, z, s = values
        sd = np.exp([a, b])
        D = np.outer(sd, sd) * np.array([[1.0, np.tanh(z)], [np.tanh(z), 1.0]])
        V = self.Z @ D @ self.Z.T + np.exp(2 * s) * np.eye(len(self.Z))
        sign, logdet = np.linalg.slogdet(2 * np.pi * V)
        return self.m * logdet + np.trace(np.linalg.solve(V, self.S)) if sign > 0 else np.inf

    def lowest(
        self, place: int | None = None, value: float = 0.0, method: str = "L-BFGS-B"
    ) -> float:
        """The global minimum, or the one with the coordinate at `place` held at a value."""
        free = [i for i in range(4) if i != place]
        bounds = [[(-12, 4), (-12, 4), (-9, 9), (-6, 3)][i] for i in free]

        def held(part: np.ndarray) -> float:
            whole = np.full(4, value)
            whole[free] = part
            return self(whole)

        starts = {tuple(np.array(start)[free]) for start in STARTS}
        return min(minimize(held, s, method=method, bounds=bounds).fun for s in starts)


def wrong_limits(seed: int, level: float) -> list[str]:
    """Descriptions of the limits of one data set that a global search does not confirm."""
    frame, x = dataset(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits = interlace.fit("y ~ x + (1 + x | g)", frame, method="ML").confint(
            "profile", level=level
        )
    deviance, wanted = Deviance(frame, x), chi2.ppf(level, 1)
    lowest, found = deviance.lowest(), []
    for name, place in ROWS.items():
        for side in ("lower", "upper"):
            limit = limits.loc[name, side]
            at_end = abs(limit) > 1 - 1e-6 if place == 2 else not 1e-6 < limit < np.inf
            if at_end or np.isnan(limit):
                continue
            coordinate = np.arctanh(limit) if place == 2 else np.log(limit)
            for method in ("L-BFGS-B", "Nelder-Mead"):  # the quick one is caught in valleys
                rise = deviance.lowest(place, coordinate, method) - lowest
                is_right = abs(rise - wanted) <= 0.01 * wanted
                if is_right:
                    break
            if not is_right:
                found.append(
                    f"set {seed}: {name} {side} {limit:.5f} rises {rise:.3f}, not {wanted:.3f}"
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sets", type=int, nargs="?", default=60)
    parser.add_argument("--level", type=float, default=0.95)
    asked = parser.parse_args()
    wrong = [line for seed in range(asked.sets) for line in wrong_limits(seed, asked.level)]
    print("\n".join(wrong))
    print(f"{len(wrong)} of {8 * asked.sets} limits are wrong")


if __name__ == "__main__":
    main()
