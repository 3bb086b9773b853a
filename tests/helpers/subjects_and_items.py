"""Twenty responses of twelve subjects to six items under two conditions, fitted once in a
session.
"""

from functools import cache

import numpy as np
import pandas as pd

import interlace_jax as interlace

CONDITION = "condition[T.b]"


@cache
def frame():
    """Twelve subjects by six items by two conditions; `old` is a property of subjects."""
    subject, item, b = (
        a.ravel() for a in np.meshgrid(np.arange(12), np.arange(6), [0, 1], indexing="ij")
    )
    table = pd.DataFrame({"subject": subject, "item": item, "condition": np.where(b, "b", "a")})
    return table.assign(old=(subject % 2).astype(float))


@cache
def many():
    """Twenty responses: an effect of the condition in the first, of age in the second."""
    table, rng = frame(), np.random.default_rng(0)
    Y = rng.normal(size=(len(table), 20)) + rng.normal(size=(12, 20))[table["subject"]]
    Y += rng.normal(size=(6, 20))[table["item"]]
    Y[:, 0] += 1.5 * (table["condition"] == "b")
    Y[:, 1] += 4.0 * table["old"]
    return interlace.fit_many("~ condition + old + (1 | subject) + (1 | item)", table, responses=Y)
