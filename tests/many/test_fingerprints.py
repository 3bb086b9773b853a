"""The fingerprint of a run tells everything apart that its numbers or names depend on."""

import numpy as np
import pandas as pd

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.many.fingerprints import fingerprint


def _frame():
    return pd.DataFrame({"g": list("abcabcabc"), "x": np.arange(9.0) ** 2, "z": np.arange(9.0) % 4})


def _print(frame, formula="~ x + (1 | g)", words=(), arrays=(), **arguments):
    design = build(parse(formula, None, None), frame, **arguments, response=False)
    return fingerprint([design], words, arrays)


def _moved(frame):
    return frame.iloc[[1, 0, *range(2, 9)]]


CHANGES = {
    "a renamed level": lambda d: (d.replace({"g": {"c": "d"}}), {}),
    "levels exchanged": lambda d: (d.replace({"g": {"a": "b", "b": "a"}}), {}),
    "moved rows": lambda d: (_moved(d), {}),
    "an excluded row": lambda d: (d.assign(x=d["x"].where(d["x"] != 16)), {}),
    "another value": lambda d: (d.assign(x=d["x"] + (d["x"] == 4)), {}),
    "a renamed column": lambda d: (d.rename(columns={"x": "w"}), dict(formula="~ w + (1 | g)")),
    "another random part": lambda d: (d, dict(formula="~ x + (1 + z || g)")),
    "correlations": lambda d: (d, dict(formula="~ x + (1 + z | g)")),
    "weights": lambda d: (d, dict(weights=np.arange(1.0, 10.0))),
    "an offset": lambda d: (d, dict(offset=np.arange(9.0))),
    "labels": lambda d: (d, dict(words=["Cz"])),
    "responses": lambda d: (d, dict(arrays=[np.ones(9)])),
}


def test_the_same_run_has_the_same_fingerprint():
    assert _print(_frame()) == _print(_frame().copy())


def test_everything_that_matters_changes_it():
    prints = {_print(_frame())}
    for change in CHANGES.values():
        frame, more = change(_frame())
        prints.add(_print(frame, **more))
    assert len(prints) == len(CHANGES) + 1


def test_which_rows_are_left_out_matters_where_they_are_alike():
    twins = pd.concat([_frame(), _frame().iloc[[8]]], ignore_index=True)
    first, second = (twins.assign(x=twins["x"].where(np.arange(10) != row)) for row in (8, 9))
    assert _print(first) != _print(second)
