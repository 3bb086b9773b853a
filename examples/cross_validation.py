"""How well does a model predict new groups, and new rows of known ones? By one batch of refits,
and by scikit-learn.
"""

import os
import time

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import interlace_jax as interlace
from interlace_jax.sklearn import MixedModelRegressor

pd.set_option("display.width", 110, "display.precision", 3, "display.max_columns", 12)
small = os.environ.get("INTERLACE_EXAMPLE_SIZE") == "small"

# Eighteen subjects: each left out in turn and predicted from the others.
sleep = interlace.load_dataset("sleepstudy")
slopes = interlace.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
new_subjects = slopes.cross_val(progress=False)
print(new_subjects.folds.head(4))

# Rows left out one by one are predicted from all other rows, their own subject's included.
new_days = slopes.cross_val("loo", progress=False)
start = time.perf_counter()
slopes.cross_val("loo")
print(f"\n{len(new_days.folds)} refits in {time.perf_counter() - start:.3f} s once compiled\n")
levels = interlace.cross_val("Reaction ~ Days", sleep, groups="Subject", cv="loo", progress=False)
found = {
    ("slopes", "new subjects"): new_subjects,
    ("slopes", "new days"): new_days,
    ("levels", "new days"): levels,
}
print(pd.DataFrame({name: scores.pooled for name, scores in found.items()}).T)

# scikit-learn: the model at the end of a pipeline, its formula chosen by how it predicts subjects
# of other folds.
X, y, folds = sleep[["Days", "Subject"]], sleep["Reaction"], GroupKFold(3)
scaled = ColumnTransformer(
    [("", StandardScaler(), ["Days"])], remainder="passthrough", verbose_feature_names_out=False
)
pipeline = make_pipeline(
    scaled.set_output(transform="pandas"), MixedModelRegressor(random="(1 + Days | Subject)")
)
formulas = (
    ["~ Days", "~ poly(Days, 2)"] if small else ["~ Days", "~ poly(Days, 2)", "~ poly(Days, 3)"]
)
search = GridSearchCV(
    pipeline,
    {"mixedmodelregressor__formula": formulas},
    cv=folds,
    scoring="neg_mean_absolute_error",
)
search.fit(X, y, groups=X["Subject"])
print(f"\nchosen: {search.best_params_}, mean absolute error {-search.best_score_:.2f} ms")
model = MixedModelRegressor("~ Days + (1 + Days | Subject)")
one_by_one = cross_val_predict(model, X, y, groups=X["Subject"], cv=folds)
batch = slopes.cross_val(folds, progress=False)

# The first two: loops of lmer and predict in R 4.2 with lme4 1.1.31, optimised to full precision.
print(f"\n{'':44} {'ours':>10}  | {'reference':>10}")
for what, ours, reference in [
    ("leave one subject out, RMSE", new_subjects.pooled["rmse"], 49.604476),
    ("leave one row out, RMSE", new_days.pooled["rmse"], 28.736589),
    (
        "three folds, RMSE: one batch, scikit-learn",
        batch.pooled["rmse"],
        np.sqrt(np.mean((y - one_by_one) ** 2)),
    ),
]:
    print(f"{what:44} {ours:10.6f}  | {reference:10.6f}")
