"""Subjects seen at visits."""

import numpy as np
import pandas as pd


def frame(n=12, m=4, seed=0):
    rng = np.random.default_rng(seed)
    d = pd.DataFrame(
        {"id": np.repeat([f"S{i}" for i in range(n)], m), "t": np.tile(np.arange(m), n)}
    )
    d["visit"] = "V" + (d["t"] + 1).astype(str)
    d["arm"] = np.where(d["id"].str[1:].astype(int) % 2, "B", "A")
    d["x"], d["y"] = rng.normal(size=len(d)), rng.normal(size=len(d))
    return d.sample(frac=1.0, random_state=1).reset_index(drop=True)
