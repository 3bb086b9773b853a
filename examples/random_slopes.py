"""Random slopes, from the first fit to predictions: sleep deprivation, then subjects crossed
with items.
"""

import pandas as pd
from scipy.stats import chi2

import interlace_jax as interlace

pd.set_option("display.width", 100, "display.precision", 3)

# Reaction times of 18 subjects over ten days of little sleep. Each has an own level and an own
# slope over days.
sleep = interlace.load_dataset("sleepstudy")
slopes = interlace.fit("Reaction ~ Days", sleep, random="(1 + Days | Subject)")
print(slopes.summary())

print("\n\nHow subjects differ from the average (BLUPs), with 95% intervals:\n")
print(slopes.random_effects["Subject"].head(3))
print(slopes.random_effects_ci()["Subject"].head(3))
print("\nTheir covariance matrix:\n")
print(slopes.varcov)

# Are the slopes needed? They cost two parameters: a variance and a covariance. Both fits by maximum
# likelihood.
larger = slopes.update(method="ML")
smaller = interlace.fit("Reaction ~ Days", sleep, groups="Subject", method="ML")
lrt = 2 * (larger.llf - smaller.llf)
print(f"\nSlopes by subject: chi2(2) = {lrt:.2f}, p = {chi2.sf(lrt, df=2):.1e}")

# A subject of the study keeps the own line; one never seen gets that of the population.
tomorrow = pd.DataFrame({"Days": [10, 10], "Subject": ["S308", "somebody new"]})
print("\nPredictions for day 10:\n")
print(tomorrow.assign(Reaction=slopes.predict(tomorrow)))

# Two crossed factors: the effect of the condition varies by subject, items differ in level only.
words = interlace.load_dataset("crossed")
crossed = interlace.fit("rt ~ condition", words, random=["(1 + condition | subject)", "(1 | item)"])
print(f"\n\n{crossed.summary()}")

# R 4.2 with lme4 1.1.31 and lmerTest 3.1.3, optimised to full precision.
effect = "condition[T.incongruent]"
print(f"\n\n{'':34} {'ours':>12}  | {'reference':>12}")
for what, ours, reference in [
    ("sleepstudy: REML criterion", slopes.deviance, 1743.628272),
    ("sleepstudy: variance of intercepts", slopes.varcov.iloc[0, 0], 612.089939),
    ("sleepstudy: variance of slopes", slopes.varcov.iloc[1, 1], 35.071660),
    ("sleepstudy: standard error of Days", slopes.fe_bse["Days"], 1.545789),
    ("sleepstudy: chi2 of the slopes", lrt, 42.139299),
    ("crossed: REML criterion", crossed.deviance, 10834.832609),
    ("crossed: effect of the condition", crossed.fe_params[effect], 22.188657),
    ("crossed: its degrees of freedom", crossed.fe_df[effect], 36.406137),
    ("crossed: residual SD", crossed.sigma, 94.877455),
]:
    print(f"{what:34} {ours:12.6f}  | {reference:12.6f}")
