"""Error rates of inference over many models, by simulation: of whole maps under sign flips, of
moderated tests.

python benchmarks/many_error.py flips [data sets] [subjects] [slopes | intercepts | crossed]
python benchmarks/many_error.py moderation [models]
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd

import interlace_jax as interlace
from interlace_jax.maps.flips import flip_statistics, signs
from interlace_jax.maps.scores import Contrast, null_fits, scores

MODELS, FLIPS = 30, 199  # of a map
ITEMS = 10


def smooth(a: np.ndarray, sets: int) -> np.ndarray:
    """Neighbours within a data set correlate."""
    a = a.reshape(*a.shape[:-1], sets, MODELS)
    summed = a + np.roll(a, 1, -1) + np.roll(a, 2, -1)
    return (summed / np.sqrt(3)).reshape(*a.shape[:-2], -1)


def flips(sets: int = 400, subjects: int = 16, kind: str = "slopes") -> None:
    """Share of data sets without an effect in which some model is significant at 5 %,
    family-wise.
    """
    rng = np.random.default_rng(3)
    s, item = (a.ravel() for a in np.meshgrid(np.arange(subjects), np.arange(ITEMS), indexing="ij"))
    x = np.where((s + item) % 2, 0.5, -0.5)
    data, k = pd.DataFrame({"s": s, "item": item, "x": x}), sets * MODELS
    Y = smooth(rng.normal(size=(subjects, k)), sets)[s] + smooth(rng.normal(size=(len(s), k)), sets)
    if kind != "intercepts":
        Y += 0.7 * x[:, None] * smooth(rng.normal(size=(subjects, k)), sets)[s]
    if kind == "crossed":
        Y += 0.5 * smooth(rng.normal(size=(ITEMS, k)), sets)[item]
    formula = "~ x + (1 | s)" if kind == "intercepts" else "~ x + (1 + x | s)"
    formula += " + (1 | item)" if kind == "crossed" else ""
    many = interlace.fit_many(formula, data, responses=Y, progress=False)
    contrast = Contrast.of(many.work.design, np.array([0.0, 1.0]))
    factor = next(f for f in many.work.design.factors if f.name == "s")
    u = scores(many, null_fits(many, contrast), contrast, factor.codes)
    drawn, _ = signs(subjects, FLIPS, 1)
    t = np.abs(np.vstack(list(flip_statistics(u, drawn))))
    largest = t.reshape(len(drawn), sets, MODELS).max(2)
    rejected = np.mean((largest >= largest[0] * (1 - 1e-9)).mean(0) <= 0.05)
    p = many.fe_pvalues["x"].to_numpy().reshape(sets, MODELS).min(1)
    print(f"{kind}, {subjects} subjects, {sets} data sets of {MODELS} models")
    print(f"  flips, largest |t|            {rejected:.3f} +- {np.sqrt(0.05 * 0.95 / sets):.3f}")
    print(f"  Satterthwaite and Bonferroni  {np.mean(p < 0.05 / MODELS):.3f}")


def moderation(models: int = 10_000) -> None:
    """Rates of moderated tests without effects, within and between subjects, complete and with
    missing values.
    """
    rng, s = np.random.default_rng(5), np.repeat(np.arange(10), 4)
    data = pd.DataFrame({"s": s, "between": (s % 2) - 0.5, "within": np.tile([-0.5, 0.5], 20)})
    sigma2, tau2 = (6.0 / rng.chisquare(6.0, models) for _ in range(2))
    for missing in (0.0, 0.1):
        Y = rng.normal(size=(10, models))[s] * np.sqrt(tau2) + rng.normal(
            size=(40, models)
        ) * np.sqrt(sigma2)
        Y[rng.random(Y.shape) < missing] = np.nan
        many = interlace.fit_many("~ between + within + (1 | s)", data, responses=Y, progress=False)
        for name in ("within", "between"):
            tests = {
                "Satterthwaite": many.fe_pvalues[name],
                "moderated": many.moderate(name)["p"],
                "trend": many.moderate(name, trend=True)["p"],
                "robust": many.moderate(name, robust=True)["p"],
            }
            for what, p in tests.items():
                rates = "  ".join(f"{np.nanmean(p < level):.4f}" for level in (0.05, 0.01, 0.001))
                print(f"{missing:.0%} missing, {name:8} {what:14} below .05 .01 .001: {rates}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    what, *given = sys.argv[1:]
    {"flips": flips, "moderation": moderation}[what](*(int(a) if a.isdigit() else a for a in given))
