"""A frame that prints all of its columns."""

from __future__ import annotations

import pandas as pd

DECIMALS = 4


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
        whole = ("display.max_columns", None, "display.expand_frame_repr")
        with pd.option_context(*whole, False):
            text = super().__repr__()
        if max(map(len, text.splitlines())) <= pd.get_option("display.width"):
            return text
        with pd.option_context(*whole, True, "display.precision", DECIMALS):
            return super().__repr__()
