"""Progress bars: tqdm's, in the form for the place where they are shown."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets gets bars of text, and no complaint
    from tqdm.auto import tqdm as tqdm
