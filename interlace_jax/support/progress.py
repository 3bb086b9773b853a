"""Progress bars: tqdm's, in the form for the place where they are shown."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets gets bars of text, and no complaint
    from tqdm.auto import tqdm


def progress_bar(total: int, unit: str, doing: str, show: bool = True) -> tqdm:
    """A bar that appears after a second, unless tqdm's own `TQDM_DISABLE` is set in the environment."""
    hidden = {} if show else {"disable": True}
    return tqdm(total=total, unit=unit, desc=doing, delay=1.0, **hidden)
