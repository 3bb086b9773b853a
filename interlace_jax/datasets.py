"""Small data sets for examples and tests, shipped with the package."""

from difflib import get_close_matches
from importlib.resources import files

import pandas as pd

DATASETS = (
    "cake",
    "cbpp",
    "crossed",
    "dyestuff",
    "dyestuff2",
    "machines",
    "pastes",
    "penicillin",
    "sleepstudy",
)


def load_dataset(name: str) -> pd.DataFrame:
    """Load one of the data sets that come with the package.

    Ids and treatments are strings; some ids carry a letter (``S308``, ``R01``) so that no reader
    takes them for numbers.

    ==========  ====  ==============================================================================
    name        rows  columns
    ==========  ====  ==============================================================================
    sleepstudy  180   ``Reaction``: mean reaction time (ms) of a day; ``Days`` (0-9) of sleep
                      restricted to three hours a night; ``Subject`` (18). [1]_
    dyestuff    30    ``Yield`` (grams of standard colour) of five preparations of dyestuff from
                      each ``Batch`` (6) of an intermediate product. [2]_
    dyestuff2   30    ``Yield`` and ``Batch`` (6): numbers simulated by Box and Tiao so that batches
                      vary no more than chance makes them; the variance estimate is 0. [3]_
    penicillin  144   ``diameter`` (mm) of the zone in which growth is inhibited, of each ``sample``
                      (6) of penicillin on each ``plate`` (24): fully crossed. [2]_
    pastes      60    ``strength`` of a chemical paste, assayed twice in each ``cask`` (a-c,
                      numbered anew in each batch) of each delivery ``batch`` (10): nested. [2]_
    cake        270   ``angle`` (degrees) at which a chocolate cake breaks, by ``recipe`` (A-C),
                      baking ``temp`` (``T175`` ... ``T225``, degrees Fahrenheit) and ``replicate``
                      (15, numbered anew in each recipe): a split plot. [4]_, [5]_
    machines    54    productivity ``score`` of each ``Worker`` (6) on each ``Machine`` (A-C), three
                      times. [6]_
    cbpp        56    ``incidence``: new cases of contagious bovine pleuropneumonia among the
                      ``size`` animals of a ``herd`` (15) in a ``period`` (p1-p4). [7]_
    crossed     893   ``rt``: reaction time (ms) of a ``subject`` (40) to an ``item`` (24) in one of
                      two conditions, as a string (``condition``) and as -0.5 / 0.5 (``cond_c``); 7
                      % of the cells are missing. Simulated: intercepts and condition effects vary
                      by subject and by item.
    ==========  ====  ==============================================================================

    Parameters
    ----------
    name : str
        A name from the table.

    Returns
    -------
    pandas.DataFrame
        A new frame at each call, with a default index and no missing values.

    Raises
    ------
    ValueError
        If there is no data set of that name; the message lists those there are.

    References
    ----------
    .. [1] Belenky, G. et al. (2003). Patterns of performance degradation and restoration during
       sleep restriction and subsequent recovery: a sleep dose-response study. Journal of Sleep
       Research 12, 1-12.
    .. [2] Davies, O. L. and Goldsmith, P. L., eds. (1972). Statistical Methods in Research and
       Production, 4th ed. Hafner, New York.
    .. [3] Box, G. E. P. and Tiao, G. C. (1973). Bayesian Inference in Statistical Analysis.
       Addison-Wesley.
    .. [4] Cook, F. E. (1938). Chocolate cake, I. Optimum baking temperature. Master's thesis, Iowa
       State College.
    .. [5] Cochran, W. G. and Cox, G. M. (1957). Experimental Designs, 2nd ed. Wiley, New York.
    .. [6] Milliken, G. A. and Johnson, D. E. (1992). Analysis of Messy Data, Volume 1: Designed
       Experiments. Chapman and Hall, London.
    .. [7] Lesnoff, M. et al. (2004). Within-herd spread of contagious bovine pleuropneumonia in
       Ethiopian highlands. Preventive Veterinary Medicine 64, 27-40.

    Examples
    --------
    >>> interlace_jax.load_dataset("sleepstudy").shape
    (180, 3)
    """
    if name not in DATASETS:
        raise ValueError(_unknown(name))
    with (files("interlace_jax") / "data" / f"{name}.csv").open(encoding="utf-8") as csv:
        return pd.read_csv(csv)


def _unknown(name: object) -> str:
    near = get_close_matches(str(name).lower(), DATASETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no data set {name!r}.{hint} The data sets are: {', '.join(DATASETS)}."
