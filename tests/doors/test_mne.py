"""Epochs and Evoked go in as sensors x times, and results come back as Evoked.

With MNE where it is installed, otherwise with what has its attributes.
"""

import copy
import importlib.util
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import interlace_jax as interlace
from interlace_jax.doors.mne import adjacency, responses, to_evoked

NAMES, RATE = ["Cz", "Fz", "Pz"], 100.0
TIMES = np.arange(5) / RATE


def _values() -> np.ndarray:
    return 1e-6 * np.random.default_rng(4).normal(size=(40, 3, 5))


def _metadata() -> pd.DataFrame:
    return pd.DataFrame({"subject": np.arange(40) // 5, "x": np.arange(40) % 5 - 2.0})


class _Evoked(SimpleNamespace):
    def copy(self):
        return copy.deepcopy(self)


def _stand_in():
    values, channels = _values(), dict(ch_names=NAMES, times=TIMES)
    evoked = _Evoked(data=values.mean(0), **channels)
    return SimpleNamespace(
        get_data=lambda: values, metadata=_metadata(), average=lambda: evoked, **channels
    )


def _of_mne():
    if importlib.util.find_spec("mne") is None:
        pytest.skip("needs mne")
    import mne

    info = mne.create_info(NAMES, RATE, "eeg")
    return mne.EpochsArray(_values(), info, metadata=_metadata(), verbose=False)


@pytest.mark.parametrize("made", [_stand_in, _of_mne])
def test_trials_go_in_and_a_map_comes_out(made):
    epochs = made()
    many = interlace.fit_many(
        "~ x + (1 | subject)", epochs.metadata, responses=responses(epochs), progress=False
    )
    assert many.labels.names == ["channel", "time"]
    assert many.labels.tolist() == [(name, time) for name in NAMES for time in TIMES]
    by_hand = interlace.fit_many(
        "~ x + (1 | subject)", _metadata(), responses=_values()[:, 2, 3:4], progress=False
    )
    np.testing.assert_allclose(many.fe_params.iloc[13], by_hand.fe_params.iloc[0], rtol=1e-9)
    t = many.test("x")["t"]
    evoked = to_evoked(epochs.average(), t)
    assert_array_equal(evoked.data, t.to_numpy().reshape(3, 5))
    assert list(evoked.ch_names) == NAMES
    near = adjacency(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]), epochs)
    nodes = many.clusters("x", near, n=19, seed=1).nodes
    assert len(nodes) == 15 and near[[0], [5]] == 1 and near[[0], [10]] == 0


def test_a_list_of_evoked_is_a_row_each():
    listed = [_Evoked(data=v, ch_names=NAMES, times=TIMES) for v in _values()]
    found = responses(listed)
    assert_array_equal(found.values, _values().reshape(40, 15))
    assert adjacency(np.eye(3), listed).shape == (15, 15)
    other = _Evoked(data=listed[0].data, ch_names=NAMES[::-1], times=TIMES)
    with pytest.raises(ValueError, match="recording 40 has other channels or times"):
        responses([*listed, other])
    with pytest.raises(ValueError, match="recordings is empty"):
        responses([])


def test_other_sizes_are_refused():
    epochs = _stand_in()
    with pytest.raises(ValueError, match="the adjacency has 4 channels, but the recordings 3"):
        adjacency(np.eye(4), epochs)
    with pytest.raises(ValueError, match="there are 4 values, but 3 channels x 5 times"):
        to_evoked(epochs.average(), np.zeros(4))
