"""Sensors and times of MNE's Epochs and Evoked as responses, and results as Evoked.

Nothing of MNE is imported: its objects are known by their attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..many.columns import Labelled
from ..maps.neighbours import product


def responses(recordings: Any) -> Labelled:
    """Amplitudes (trials, channels x times) for `fit_many(responses=)`, labelled `channel time`.

    recordings: Epochs, whose trials are the rows of `epochs.metadata`; or a list of Evoked, one for
    each row of the data. Pick the channels first, by `epochs.pick("eeg")`. Values are as MNE has
    them, volts and tesla; times are seconds. Trials that were dropped are not there; a bad channel
    can be set to NaN in single trials, which leaves these out of its models.

    Raises ValueError for Evoked with different channels or times.

    >>> many = interlace.fit_many(formula, epochs.metadata, responses=responses(epochs))
    """
    if hasattr(recordings, "get_data") and not isinstance(recordings, Sequence):
        first, values = recordings, np.asarray(recordings.get_data())
    else:
        first, values = _of_evoked(recordings)
    labels = pd.MultiIndex.from_product(
        [list(first.ch_names), np.asarray(first.times)], names=("channel", "time")
    )
    return Labelled(values.reshape(len(values), -1), labels)


def _of_evoked(recordings: Any) -> tuple[Any, np.ndarray]:
    recordings = list(recordings)
    if not recordings:
        raise ValueError("recordings is empty: give one Evoked for each row of the data")
    first = recordings[0]
    for number, other in enumerate(recordings):
        is_alike = other.ch_names == first.ch_names and np.array_equal(other.times, first.times)
        if not is_alike:
            raise ValueError(
                f"recording {number} has other channels or times than the first: pick, resample "
                "or crop them first"
            )
    return first, np.stack([other.data for other in recordings])


def adjacency(channels: Any, recordings: Any) -> scipy.sparse.csr_array:
    """Which sensors and times are neighbours, as `many.clusters` takes it.

    channels: (channels, channels), as `mne.channels.find_ch_adjacency(epochs.info, "eeg")[0]` has
    it, in the order of `epochs.ch_names`. recordings: as in `responses`.

    >>> sensors = mne.channels.find_ch_adjacency(epochs.info, "eeg")[0]
    >>> many.clusters("condition[T.b]", adjacency(sensors, epochs))
    """
    first = recordings[0] if isinstance(recordings, list | tuple) else recordings
    if channels.shape[0] != len(first.ch_names):
        raise ValueError(
            f"the adjacency has {channels.shape[0]} channels, but the recordings "
            f"{len(first.ch_names)}: pick the same ones"
        )
    return product(channels, len(first.times))


def to_evoked(template: Any, values: Any) -> Any:
    """A copy of an Evoked with one number for each model in place of its amplitudes.

    template: an Evoked of the same channels and times, as `epochs.average()`. values: (channels x
    times,) in the order of the models, as `many.test(...)["t"]`. Plots of MNE take numbers for
    volts: give `scalings=1` and `units="t"`.

    >>> to_evoked(epochs.average(), clusters.nodes["t"]).plot_topomap(scalings=1, units="t")
    """
    values, shape = np.asarray(values, float), template.data.shape
    if values.size != np.prod(shape):
        raise ValueError(
            f"there are {values.size} values, but {shape[0]} channels x {shape[1]} times"
        )
    made = template.copy()
    made.data = values.reshape(shape)
    return made
