"""Plots of maps are drawn, and show the numbers, the places and the clusters of the models."""

import io
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace
from interlace_jax import plot
from interlace_jax.maps import neighbours
from interlace_jax.plot import maps as maps_module
from interlace_jax.plot.regions import border, centres_to_edges, on_a_head, outlines, surface

CHANNELS, TIMES = ["Cz", "Fz", "Pz", "C3", "C4"], np.array([0.0, 0.1, 0.2, 0.4])
PLACES = {"Cz": (0, 0), "Fz": (0, 1), "Pz": (0, -1), "C3": (-1, 0), "C4": (1, 0)}
CLUSTER = [("Cz", 0.1), ("Cz", 0.2), ("Pz", 0.1)]


@cache
def many() -> interlace.Many:
    rng, s = np.random.default_rng(1), np.repeat(np.arange(10), 6)
    data = pd.DataFrame({"s": s, "x": np.tile([-0.5, 0.5], 30)})
    labels = pd.MultiIndex.from_product([CHANNELS, TIMES], names=["channel", "time"])
    Y = pd.DataFrame(rng.normal(size=(60, 20)) + rng.normal(size=(10, 20))[s], columns=labels)
    for label in CLUSTER:
        Y[label] += 4.0 * data["x"]
    return interlace.fit_many("~ x + (1 | s)", data, responses=Y, progress=False)


@cache
def found():
    star = np.array([name == "Cz" for name in CHANNELS])
    return many().clusters(
        "x", neighbours.product(star[:, None] | star[None], 4), "max", n=199, seed=1
    )


@cache
def curve():
    labels = many().labels
    of_cz = [i for i, (channel, _) in enumerate(labels) if channel == "Cz"]
    data, Y = many().work.data, many().work.Y.read(0, 20)[:, of_cz]
    one = interlace.fit_many(
        "~ x + (1 | s)", data, responses=pd.DataFrame(Y, columns=TIMES), progress=False
    )
    return one.curves("x", seed=1)


BALL = np.hypot(*np.indices((5, 4)) - 2.0)[..., None] < [1.5, 2.5, 1.5]
DRAWN = {
    "clusters": lambda: plot.clusters(found()),
    "topography": lambda: plot.topography(found(), PLACES, [0.1, 0.21]),
    "slices": lambda: plot.slices(np.arange(BALL.sum()) - 9.0, BALL),
    "curve": lambda: plot.curve(curve()),
    "variance_fractions": lambda: plot.variance_fractions(many()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_map_is_drawn(name):
    picture = io.BytesIO()
    DRAWN[name]().save(picture, format="png", dpi=40, verbose=False)
    plt.close("all")
    assert len(picture.getvalue()) > 2000


def test_the_cluster_is_the_one_that_was_put_there():
    assert sorted(found().nodes.query("cluster >= 0")[["channel", "time"]].agg(tuple, 1)) == sorted(
        CLUSTER
    )


def test_a_map_shows_t_at_channel_and_time_and_outlines_the_cluster():
    picture = plot.clusters(found())
    table = picture.data.assign(channel=[CHANNELS[4 - int(y)] for y in picture.data["y"]])
    assert_array_equal(table["t"], found().nodes["t"])
    assert_array_equal(table["channel"], found().nodes["channel"])
    assert_array_equal(table["x"], found().nodes["time"])
    sides = picture.layers[1]._data
    upright = sides[sides["x"] == sides["xend"]]
    # Cz (y = 4) from .05 to .3, Pz (y = 2) from .05 to .15
    assert_allclose(sorted(upright["x"]), [0.05, 0.05, 0.15, 0.3])


def test_models_without_two_labels_need_places():
    plain = interlace.fit_many(
        "~ x + (1 | s)",
        many().work.data,
        responses=many().work.Y.read(0, 6),
        progress=False,
    ).clusters("x", statistic="max", n=99, seed=1)
    with pytest.raises(ValueError, match="labelled by 'model': say by where="):
        plot.clusters(plain)
    where = pd.DataFrame({"x": [0, 1, 2] * 2, "row": np.repeat(["a", "b"], 3)})
    assert_array_equal(plot.clusters(plain, where).data["y"], [1, 1, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="two columns and 6 rows"):
        plot.clusters(plain, where.iloc[:3])
    with pytest.raises(ValueError, match="channel and time, not by 'model'"):
        plot.topography(plain, PLACES)


def test_heads_show_the_nearest_times_and_pass_through_the_sensors():
    picture = plot.topography(found(), PLACES, [0.1, 0.21])
    assert sorted(picture.data["time"].unique()) == [0.1, 0.2]
    spots = on_a_head(np.array([PLACES[name] for name in CHANNELS], float))
    assert_allclose(np.hypot(*spots.T).max(), 0.92)
    at = found().nodes.query("time == 0.1")["t"].to_numpy()
    shown = picture.data[picture.data["time"] == 0.1]
    nearest = np.hypot(shown["x"] - spots[0, 0], shown["y"] - spots[0, 1]).argmin()
    assert_allclose(shown["value"].iloc[nearest], at[0], atol=0.2)
    with pytest.raises(ValueError, match="places has none for 'C4'"):
        plot.topography(found(), {name: at for name, at in PLACES.items() if name != "C4"})


def test_a_slice_shows_the_voxels_of_its_level():
    values = np.arange(BALL.sum()) - 9.0
    picture = plot.slices(values, BALL, count=2)
    assert sorted(picture.data["slice"].unique()) == [0, 2]
    for level, part in picture.data.groupby("slice"):
        volume = np.full(BALL.shape, np.nan)
        volume[BALL] = values
        assert_array_equal(part["value"], volume[..., level][BALL[..., level]])
    with pytest.raises(ValueError, match=f"3 values, but the mask has {BALL.sum()} voxels"):
        plot.slices(np.zeros(3), BALL)


def test_outlines_are_the_sides_between_regions():
    region = np.array([[-1, 0, 0], [-1, 0, 1]])
    sides = outlines(region, np.arange(4.0), np.arange(3.0))
    lengths = np.abs(sides["xend"] - sides["x"]) + np.abs(sides["yend"] - sides["y"])
    # around region 0 (3 cells: 8 sides) and region 1 (1 cell: 4), 2 of which they share
    assert len(sides) == 10 and (lengths == 1.0).all()
    assert outlines(np.full((2, 2), -1), np.arange(3.0), np.arange(3.0)).empty
    assert_allclose(centres_to_edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2.0, 4.0])
    assert_allclose(centres_to_edges(np.array([2.0])), [1.5, 2.5])


def test_a_border_lies_around_the_sensors_of_a_cluster():
    spots = on_a_head(np.array([PLACES[name] for name in CHANNELS], float))
    line = border(spots, np.array([True, False, False, False, False]))
    distance = np.hypot(line["x"], line["y"])
    assert distance.min() > 0.1 and distance.max() < 0.9
    assert border(spots, np.zeros(5, bool)).empty
    assert_allclose(surface(spots, np.full(5, 3.0))["value"], 3.0)


def test_the_bands_of_a_curve_are_its_table():
    assert plot.curve(curve()).data is curve().table


def test_violins_have_the_shares_of_the_models():
    picture = plot.variance_fractions(many())
    shares = many().variance_fractions()
    for name in shares:
        shown = picture.data[picture.data["component"] == name]["share"]
        assert_array_equal(shown, shares[name])
    assert_allclose(
        picture.layers[1]._data.set_index("component")["share"][list(shares)], shares.median()
    )


@pytest.mark.parametrize("name", ["clusters", "topography", "curve", "variance_fractions"])
def test_other_objects_are_refused(name):
    arguments = (PLACES,) if name == "topography" else ()
    with pytest.raises(TypeError, match="this plot takes .* not DataFrame"):
        getattr(plot, name)(pd.DataFrame(), *arguments)


def test_a_volcano_is_moderated_and_names_what_it_is_told_to():
    picture = plot.volcano(many(), "x", label=[("C4", 0.0)], moderated=True)
    moderated = many().moderate("x")
    assert_allclose(10.0 ** -picture.data["y"], moderated["p"])
    assert picture.layers[-1]._data["name"].tolist() == ["('C4', 0.0)"]
    with pytest.raises(ValueError, match="label has 'C5', which no model is called"):
        plot.volcano(many(), "x", label=["C5"])


def test_the_scale_ends_at_the_largest_value():
    assert_array_equal(maps_module._squeezed(np.array([-0.1, 0.5, 1.2])), [0.0, 0.5, 1.0])
