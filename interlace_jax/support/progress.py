"""Progress bars: tqdm's, in the form for the place where they are shown."""

from __future__ import annotations

import warnings

from .later import Later

tqdm, tqdm_auto = Later("tqdm"), Later("tqdm.auto")


def progress_bar(total: int, unit: str, doing: str, show: bool = True):
    """A bar that appears after a second, unless tqdm's own `TQDM_DISABLE` is set in the
    environment.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", tqdm.TqdmWarning
        )  # a notebook without ipywidgets gets bars of text, no complaint
        bar = tqdm_auto.tqdm
    hidden = {} if show else {"disable": True}
    return bar(total=total, unit=unit, desc=doing, delay=1.0, **hidden)
