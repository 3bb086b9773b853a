"""Tables of chunks joined, and models that cannot be fitted."""

import numpy as np
import pandas as pd
import pytest

import interlace_jax as interlace
from interlace_jax.many.run import _joined


def table(places, status):
    return pd.DataFrame({"sigma": np.ones(len(places)), "status": pd.Categorical(status)}, places)


def test_chunks_are_joined_in_the_order_of_the_models():
    joined = _joined([table([2, 0], ["a", "b"]), table([1], ["c"])])
    assert joined.index.tolist() == [0, 1, 2]
    assert joined["status"].tolist() == ["b", "c", "a"]
    assert isinstance(joined["status"].dtype, pd.CategoricalDtype)


def test_statuses_that_no_model_has_are_no_categories():
    status = pd.Categorical(["a"], categories=["a", "unused"])
    joined = _joined([pd.DataFrame({"sigma": 1.0, "status": status}, [0])])
    assert joined["status"].cat.categories.tolist() == ["a"]


def test_if_no_model_can_be_fitted_the_first_says_why():
    frame = pd.DataFrame({"g": np.repeat(list("abcd"), 3), "x": np.arange(12.0)})
    with pytest.raises(ValueError, match="none of the 2 models.*the response is constant"):
        interlace.fit_many("~ x + (1 | g)", frame, responses=np.ones((12, 2)), progress=False)
