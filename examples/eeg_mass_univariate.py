"""One mixed model for every channel and moment of an EEG: crossed subjects and items, effect over
scalp and time.

Saves two pictures in the folder given (a temporary one by default). INTERLACE_EXAMPLE_SIZE=small
makes it quick.
"""

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import plotnine as p9

import interlace_jax as interlace

small = os.environ.get("INTERLACE_EXAMPLE_SIZE") == "small"
channels, times, subjects, items = (8, 10, 12, 12) if small else (64, 200, 20, 24)
rng = np.random.default_rng(1)

# Channels on a disc seen from above (nose up), time in ms. The effect: a negativity about 400 ms,
# centro-parietal.
angle, radius = np.arange(channels) * 2.39996, np.sqrt((np.arange(channels) + 0.5) / channels)
scalp = pd.DataFrame({"left_right": radius * np.cos(angle), "back_front": radius * np.sin(angle)})
ms = np.linspace(-100, 900, times)
where = np.exp(-((scalp["left_right"] ** 2 + (scalp["back_front"] + 0.2) ** 2) / 0.3))
truth = -3.0 * where.to_numpy()[:, None] * np.exp(-(((ms - 400) / 100) ** 2))[None]

# Every subject reads every item, half of them at odd places; subjects differ in level and effect,
# items in level.
subject, item = (
    grid.ravel() for grid in np.meshgrid(np.arange(subjects), np.arange(items), indexing="ij")
)
odd = (subject + item) % 2
trials = pd.DataFrame(
    {"subject": subject, "item": item, "condition": np.where(odd, "odd", "expected")}
)
B = channels * times
Y = 4.0 * rng.standard_normal((len(trials), B))
Y += 2.0 * rng.standard_normal((subjects, B))[subject] + 1.0 * rng.standard_normal((items, B))[item]
Y += odd[:, None] * (truth.ravel() + 1.0 * rng.standard_normal((subjects, B))[subject])

formula = "~ condition + (1 + condition | subject) + (1 | item)"
start = time.perf_counter()
many = interlace.fit_many(formula, trials, responses=Y, progress=False)
seconds = time.perf_counter() - start
effect = "condition[T.odd]"
found = pd.DataFrame({"estimate": many.fe_params[effect], "p": many.adjusted_pvalues("bh")[effect]})
found["channel"], found["ms"] = np.repeat(np.arange(channels), times), np.tile(ms, channels)
found = found.join(scalp, on="channel")
inside = np.abs(truth.ravel()) > 0.5
print(f"{many}\n{seconds:.1f} s, {B / seconds:.0f} models a second, compilation included")
print(
    f"found at a false discovery rate of 5%: {np.mean(found['p'][inside] < 0.05):.0%} of the "
    "effect's places,"
)
print(
    f"{np.mean(found['p'][~inside] < 0.05):.1%} of the others; correlation of estimates and "
    "simulated truth:"
)
print(
    f"{np.corrcoef(found['estimate'], truth.ravel())[0, 1]:.2f}; {many.is_singular.mean():.0%} "
    "singular fits"
)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
peak = found[np.isclose(found["ms"], ms[np.abs(ms - 400).argmin()])]
topography = (
    p9.ggplot(peak, p9.aes("left_right", "back_front", fill="estimate"))
    + p9.geom_point(size=9, shape="o")
    + p9.scale_fill_gradient2(low="#2166ac", mid="white", high="#b2182b", name="effect, uV")
    + p9.coord_fixed()
    + p9.labs(x="left - right", y="back - front", title="Effect at 400 ms")
)
course = (
    p9.ggplot(found, p9.aes("ms", "estimate", group="channel"))
    + p9.geom_line(alpha=0.3, color="#2166ac")
    + p9.labs(x="ms", y="effect, uV", title="Effect over time, a line a channel")
)
for name, picture in dict(topography=topography, time_course=course).items():
    picture.save(folder / f"{name}.png", width=5, height=4, dpi=100, verbose=False)
print(f"pictures in {folder}")

# The same models one at a time.
print(f"\n{'':44} {'ours':>14}  | {'reference':>14}")
for place in np.linspace(0, B - 1, 4).astype(int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interlace.SingularFitWarning)
        one = interlace.fit(f"y {formula}", trials.assign(y=Y[:, place]))
    print(
        f"{f'model {place}: REML criterion':44} {-2 * many.llf[place]:14.6f}  | "
        f"{one.deviance:14.6f}"
    )
    print(
        f"{f'model {place}: standard error of the effect':44} {many.fe_bse[effect][place]:14.6f}  "
        "| ",
        end="",
    )
    print(f"{one.fe_bse[effect]:14.6f}")
