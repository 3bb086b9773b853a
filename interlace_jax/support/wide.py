"""A frame that prints all of its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd

DECIMALS = 4
COUNTS = ("Df",)  # whole numbers, where a missing one makes the column one of floats


class WideFrame(pd.DataFrame):
    """A pandas frame of many columns that prints without leaving any of them out.

    Where pandas would write `...` in place of columns, numbers are shown shorter, and columns
    beyond the width of the display (`pd.options.display.width`) go below. The values are as in any
    frame; so are frames made from it.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> type(fit.ranova()).__name__
    'WideFrame'
    """

    @property
    def _constructor(self) -> type[WideFrame]:
        return WideFrame

    def __repr__(self) -> str:
        frame = pd.DataFrame(self.copy())
        for name in self.columns.intersection(COUNTS):
            numbers = [n if pd.isna(n) else int(n) for n in self[name]]
            frame[name] = np.array(numbers, dtype=object)
        whole = ("display.max_columns", None, "display.expand_frame_repr")
        with pd.option_context(*whole, False):
            text = repr(frame)
        if max(map(len, text.splitlines())) <= pd.get_option("display.width"):
            return text
        with pd.option_context(*whole, True, "display.precision", DECIMALS):
            return repr(frame)
