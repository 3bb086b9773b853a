"""What tests of designs share."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def frame():
    rng = np.random.default_rng(1)
    n = 24
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.uniform(1, 3, n),
            "z": rng.normal(size=n),
            "f": np.tile(["b", "a", "c"], n // 3),
            "g": np.repeat(["s2", "s1", "s3", "s4"], n // 4),
            "h": np.tile([10, 2, 7, 2, 7, 10], n // 6),
        },
        index=np.arange(100, 100 + n),
    )
