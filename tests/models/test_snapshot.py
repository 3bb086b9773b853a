"""A fit is of the data as they were: nothing that is done to the frame or the arrays later
changes what it says.
"""

import warnings

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest

from interlace_jax import Kernel, Known, check, emmeans, fit, fit_many
from interlace_jax.plot.data import used_data

N = 60


def data():
    r = np.random.default_rng(11)
    g = np.repeat(np.arange(12), 5)
    x = r.normal(10.0, 1.0, N)
    f = np.tile(list("ab"), N // 2)
    y = 1.0 + 0.5 * x + (f == "b") + r.normal(size=12)[g] + 0.3 * r.normal(size=N)
    return pd.DataFrame(
        {"y": y, "x": x, "f": f, "g": g, "w": r.uniform(0.5, 2.0, N), "extra": np.arange(N)}
    )


VERBS = {
    "anova": lambda m: m.anova(),
    "emmeans": lambda m: emmeans(m, "f").frame,
    "augment": lambda m: m.augment(),
    "update": lambda m: m.update("~ . - x:f").fe_params,
    "update of arguments": lambda m: m.update(method="ML").fe_params,
    "predict": lambda m: m.predict(),
    "residuals": lambda m: m.resid,
    "cross-validation": lambda m: m.cross_val("logo", seed=1, progress=False).predictions,
    "bootstrap": lambda m: m.bootstrap(5, seed=1, progress=False).estimates,
    "jackknife": lambda m: m.jackknife("g").cov,
    "influence": lambda m: m.influence("g"),
    "refit": lambda m: m.refit(m.design.y[::-1]).fe_params,
    "simulate": lambda m: m.simulate(2, seed=1),
    "check": lambda m: repr(check(m)),
    "own lines": lambda m: used_data(m),
}

EDITS = {
    "a column centred": lambda d: d.__setitem__("x", d["x"] - d["x"].mean()),
    "a cell set": lambda d: d.__setitem__("y", d["y"].where(d.index > 3, 0.0)),
    "cells set in place": lambda d: d.loc.__setitem__((slice(0, 20), "x"), -5.0),
    "a column dropped": lambda d: d.__delitem__("f"),
    "a column added": lambda d: d.insert(0, "pi", 0.0),
    "columns renamed": lambda d: setattr(d, "columns", list("fgxywz")),
    "labels changed": lambda d: setattr(d, "index", d.index[::-1]),
}


def quiet(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def value(found):
    return found.to_string() if hasattr(found, "to_string") else str(found)


READING = ("anova", "emmeans", "augment", "update", "own lines")
"Verbs that look the data up again."


@pytest.fixture(scope="module")
def expected():
    model = quiet(lambda: fit("y ~ x * f + (1 | g)", data()))
    return {name: value(quiet(lambda verb=verb: verb(model))) for name, verb in VERBS.items()}


@pytest.mark.parametrize("edit", EDITS)
def test_verbs_do_not_follow_the_frame(expected, edit):
    frame = data()
    model = quiet(lambda: fit("y ~ x * f + (1 | g)", frame))
    EDITS[edit](frame)
    for name in VERBS if edit == "a column centred" else READING:
        assert value(quiet(lambda name=name: VERBS[name](model))) == expected[name], name


def test_frames_of_polars_are_kept_too():
    frame = pl.from_pandas(data())
    model = fit("y ~ x * f + (1 | g)", frame)
    before = value(model.anova())
    frame.drop_in_place("x")
    frame[3, "y"] = 0.0
    assert value(model.anova()) == before


def test_arrays_of_weights_and_offset_are_kept():
    w, shift = np.linspace(0.5, 2.0, N), np.linspace(0.0, 1.0, N)
    model = fit("y ~ x + (1 | g)", data(), weights=w, offset=shift)
    before = model.update("~ . + f").deviance
    deviance = model.update(method="ML").deviance
    w[:], shift[:] = 1.0, 0.0
    assert model.update("~ . + f").deviance == pytest.approx(before, rel=1e-10)
    assert model.update(method="ML").deviance == pytest.approx(deviance, rel=1e-10)


def test_weights_that_can_be_read_once_serve_updates():
    model = fit("y ~ x + (1 | g)", data(), weights=(1.0 + (i % 3) for i in range(N)))
    assert np.isfinite(model.update("~ . + f").deviance)


def decay(at, length):
    return jnp.exp(-jnp.abs(at[:, None] - at[None]) / length)


def test_matrices_and_coordinates_of_levels_are_kept():
    K, at = np.eye(12) + 0.3, np.arange(12.0)
    for cov, held in (({"g": Known(K)}, K), ({"g": Kernel(decay, at, {"length": 3.0})}, at)):
        model = quiet(lambda cov=cov: fit("y ~ x + (1 | g)", data(), cov=cov))
        before = quiet(lambda model=model: model.update("~ . + f").deviance)
        held[...] = held[::-1] ** 2 + 1.0
        again = quiet(lambda model=model: model.update("~ . + f").deviance)
        assert again == pytest.approx(before, rel=1e-10)


def test_single_fits_of_many_are_of_the_same_data():
    frame = data()
    many = fit_many("~ x + (1 | g)", frame, responses=frame[["y", "w"]], progress=False)
    groups = fit_many("y ~ x + (1 | g)", frame, by="f", progress=False)
    frame["x"] = frame["x"] * 10
    frame["f"] = "a"
    np.testing.assert_allclose(many["y"].fe_params["x"], many.fe_params.loc["y", "x"], rtol=1e-6)
    np.testing.assert_allclose(
        groups["b"].fe_params["x"], groups.fe_params.loc["b", "x"], rtol=1e-6
    )
