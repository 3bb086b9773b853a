"""Every string and table the user sees."""

from __future__ import annotations

import numpy as np
import pandas as pd


def varcov(covariances):
    if len(covariances) == 1:
        return next(iter(covariances.values()))
    keys = pd.MultiIndex.from_tuples([(name, term) for name, S in covariances.items() for term in S.columns])
    whole = pd.DataFrame(0.0, index=keys, columns=keys)
    for name, S in covariances.items():
        whole.loc[name, name] = S.to_numpy()
    return whole


def varcorr(factors, covariances, scale):
    rows = []
    for f in factors:
        S, start = covariances[f.name].to_numpy(), 0
        sd = np.sqrt(np.diag(S))
        for size in f.sizes:
            term = range(start, start + size)
            rows += [(f.name, f.columns[i], None, S[i, i], sd[i]) for i in term]
            pairs = [(i, j) for i in term for j in term if j > i]
            rows += [(f.name, f.columns[i], f.columns[j], S[i, j], S[i, j] / (sd[i] * sd[j])) for i, j in pairs]
            start += size
    rows.append(("Residual", None, None, scale, np.sqrt(scale)))
    return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])


def singular_message(fit):
    return "singular"


class Summary:
    def __init__(self, fit):
        self.fit = fit
