"""A formula part and a frame as what layers take: codes by factor, and features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..design.design import build
from ..design.formula import parse
from ..design.grouping import is_nested
from ..design.new_data import new_data


class Encoder:
    """Labels to codes, and columns to features, for the random-effects part of a formula.

    It is to a layer of random effects what a vocabulary is to an embedding of words: made from the
    training data, kept beside the network, and applied to any frame with these columns.

    >>> from interlace_jax.layers.encoder import Encoder
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> encode = Encoder("(1 + Days | Subject)", sleep)
    >>> encode.sizes
    {'groups': {'Subject': 18}, 'slopes': {'Subject': 1}, 'nested': {}, 'terms': {'Subject': (2,)}}
    >>> codes, features = encode(sleep.tail(2))
    >>> codes["Subject"], features["Subject"]
    (array([17, 17], dtype=int32), array([[8.],
           [9.]]))
    """

    def __init__(self, formula: str, data: Any):
        """formula: random effects in lme4's grammar, each with its intercept. data: any frame; rows
        with gaps are left out. Raises ValueError for terms without an intercept, and for what `fit`
        refuses.
        """
        right = formula.strip().removeprefix("~").strip()
        self._design = build(parse(f"~ 1 + {right}"), data, response=False)
        for factor in self._design.factors:
            if factor.columns[0] != "(Intercept)" or factor.columns.count("(Intercept)") > 1:
                raise ValueError(
                    f"the effects of {factor.name!r} have the columns {list(factor.columns)}: a "
                    "layer has one "
                    f"intercept for each factor, the first of them; write (1 + ... | {factor.name})"
                )
        self.levels: dict[str, pd.Index] = {f.name: f.levels for f in self._design.factors}

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of `RandomEffects`: `groups`, `slopes`, `nested` and `terms`."""
        factors = self._design.factors
        return dict(
            groups={f.name: len(f.levels) for f in factors},
            slopes={f.name: len(f.columns) - 1 for f in factors if len(f.columns) > 1},
            nested=self._nested(),
            terms={f.name: f.sizes for f in factors},
        )

    def _nested(self) -> dict[str, str]:
        """For every factor the finest of those that it lies in."""
        found = {}
        for inner in self._design.factors:
            outer = [f for f in self._design.factors if f is not inner and is_nested(inner, f)]
            outer = [f for f in outer if len(f.levels) < len(inner.levels)]
            if outer:
                found[inner.name] = max(outer, key=lambda f: len(f.levels)).name
        return found

    def __call__(self, data: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Codes, Int[n], of every factor and features, Float[n, slopes], of those with slopes.

        -1 is the code of a label that the encoder has not seen. Raises ValueError for missing
        values.
        """
        new = new_data(self._design, data, bare=True)
        if new.missing.any():
            raise ValueError(
                f"{np.count_nonzero(new.missing)} rows have missing values: leave them out"
            )
        each = list(zip(self._design.factors, new.codes, new.Z, strict=True))
        groups = {f.name: codes for f, codes, _ in each}
        return groups, {f.name: Z[:, 1:] for f, _, Z in each if Z.shape[1] > 1}
