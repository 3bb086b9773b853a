"""Gradient boosting with random effects for its groups, and ids as features out of fold."""

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

import interlace_jax as interlace
from interlace_jax.sklearn import MixedEffects, RandomEffectsEncoder

rng = np.random.default_rng(0)
g = np.repeat(np.arange(150), 10)
X = pd.DataFrame(rng.standard_normal((len(g), 3)), columns=["a", "b", "c"]).assign(group=g)
f = np.sin(2 * X["a"]) + X["b"] * X["c"]
y = (f + rng.standard_normal(150)[g] + 0.5 * rng.standard_normal(len(g))).to_numpy()
train = np.arange(len(g)) % 10 < 7
boosting = HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=15, random_state=0)

mixed = MixedEffects(boosting, groups="group", random_state=0).fit(X[train], y[train])
encoder = RandomEffectsEncoder(random_state=0)
columns = make_column_transformer((encoder, ["group"]), remainder="passthrough")
models = {
    "boosting with random effects": mixed,
    "boosting with the id encoded": make_pipeline(columns, clone(boosting)).fit(X[train], y[train]),
    "boosting with the id as a number": boosting.fit(X[train], y[train]),
}
for name, model in models.items():
    error = np.sqrt(np.mean((y[~train] - model.predict(X[~train])) ** 2))
    print(f"{name:34} RMSE of held-out rows {error:.3f}")
mean, sd = mixed.predict(X[~train], return_std=True)
within = np.mean(np.abs(y[~train] - mean) < 1.96 * sd)
print(f"sigma {mixed.sigma_:.3f}; {within:.0%} of held-out rows lie in their 95% intervals")

# With a linear regressor the rounds end at the linear mixed model.
linear = MixedEffects(LinearRegression(), groups="group", tol=1e-12, rounds=200).fit(X, y)
fit = interlace.fit("y ~ a + b + c + (1 | group)", X.assign(y=y), method="ML")
print(f"\n{'':34} {'ours':>10}  | {'reference':>10}")
for place, name in enumerate("abc"):
    print(f"{name:34} {linear.regressor_.coef_[place]:10.6f}  | {fit.fe_params[name]:10.6f}")
print(
    f"{'SD of groups':34} {linear.effects_.covariances['group'].iloc[0, 0] ** 0.5:10.6f}",
    end="  | ",
)
print(f"{fit.covariances['group'].iloc[0, 0] ** 0.5:10.6f}")
