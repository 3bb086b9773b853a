"""Plots of maps of models: clusters over sensors and times, heads, slices of volumes, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from ..batch import Many
from ..design.alignment import in_order_of
from ..maps.clusters import ClusterTest
from ..maps.curves import Curve
from ..support.arguments import listed
from .regions import border, centres_to_edges, on_a_head, outlines, surface
from .style import BLUE, GREY, INK, ORANGE, _check, _height, _theme

SHOWN = 6  # heads of a picture
PALE = "#F7F7F7"


def clusters(
    found: ClusterTest, where: pd.DataFrame | None = None, alpha: float = 0.05
) -> p9.ggplot:
    """The t values of a map as colours, with the clusters outlined whose p is at most `alpha`.

    found: as `many.clusters(...)` gives it. Models with labels of two levels (channel, time) lie at
    these, the second along the x axis; where: else a frame with a row for each model and two
    columns, its place on the x and y axes.

    Raises ValueError where neither says where the models lie.

    >>> import numpy as np
    >>> import pandas as pd
    >>> from interlace_jax.maps.neighbours import product
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> draws = interlace_jax.fit(formula, sleep).simulate(4, seed=1)
    >>> labels = [["Cz", "Pz"], [0.1, 0.2]]
    >>> draws.columns = pd.MultiIndex.from_product(labels, names=["channel", "seconds"])
    >>> many = interlace_jax.fit_many("~ Days + (1 | Subject)", sleep, responses=draws)
    >>> found = many.clusters("Days", product(np.array([[0, 1], [1, 0]]), 2), n=99, seed=1)
    >>> picture = plot.clusters(found)
    """
    _check(found, ClusterTest)
    nodes = found.nodes
    where = _places_of(nodes) if where is None else in_order_of(nodes, where, "where")
    if where.shape != (len(nodes), 2):
        raise ValueError(
            f"where must have two columns and {len(nodes)} rows, one for each model, not "
            f"{where.shape}"
        )
    (x, across), (y, down) = (_axis(where.iloc[:, k]) for k in range(2))
    y, up = y.max() - y if isinstance(down, list) else y, down
    table = pd.DataFrame(dict(x=x, y=y, t=nodes["t"].to_numpy()))
    frame = _framed(table, _significant(found, alpha))
    scales = [_named_axis(p9.scale_x_continuous, across), _named_axis(p9.scale_y_continuous, up)]
    rows = table["y"].nunique()
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + _tiles(table)
        + _lines(frame)
        + scales
        + _diverging(table["t"])
        + p9.labs(
            x=str(where.columns[0]),
            y=str(where.columns[1]),
            title=f"t values of {len(nodes):,} models",
            subtitle=_sentence(found, alpha),
        )
        + _theme(6.5, min(_height(rows), 8.0))
        + p9.theme(panel_grid_major=p9.element_blank())
    )


def topography(
    found: ClusterTest,
    places: pd.DataFrame | Mapping[Any, Sequence[float]],
    times: Sequence[float] | None = None,
    alpha: float = 0.05,
) -> p9.ggplot:
    """Heads seen from above, one for each of some times: t values between the sensors, which are
    dots, with the clusters outlined whose p is at most `alpha`.

    found: as `many.clusters(...)` gives it, of models labelled (channel, time). places: x (to the
    right) and y (to the nose) of each channel, by its name. times: which to show, the nearest there
    are; by default six, evenly spread.

    Raises ValueError for models with other labels, or a channel without a place.

    >>> import numpy as np
    >>> import pandas as pd
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> draws = interlace_jax.fit(formula, sleep).simulate(4, seed=1)
    >>> labels = [["Cz", "Pz", "Oz", "Fz"], [0.2]]
    >>> draws.columns = pd.MultiIndex.from_product(labels, names=["channel", "seconds"])
    >>> many = interlace_jax.fit_many("~ Days + (1 | Subject)", sleep, responses=draws)
    >>> found = many.clusters("Days", np.ones((4, 4)), n=99, seed=1)
    >>> places = {"Cz": (0.0, 0.0), "Pz": (0.1, -0.4), "Oz": (0.0, -0.8), "Fz": (0.1, 0.4)}
    >>> picture = plot.topography(found, places)
    """
    _check(found, ClusterTest)
    nodes = found.nodes
    names = list(nodes.columns[: list(nodes).index("t")])
    if len(names) != 2:
        raise ValueError(
            f"a topography needs models labelled by channel and time, not by {listed(names)}"
        )
    channel, time = names
    by_name = places if isinstance(places, pd.DataFrame) else pd.DataFrame(dict(places)).T
    channels = nodes[channel].unique()
    if lacking := [name for name in channels if name not in by_name.index]:
        raise ValueError(f"places has none for {listed(lacking)}")
    spots = on_a_head(by_name.loc[channels].to_numpy(float)[:, :2])
    shown = _nearest(np.sort(nodes[time].unique()), times)
    nodes = nodes.assign(inside=_significant(found, alpha) >= 0)
    maps, lines = [], []
    for moment in shown:
        at = nodes[nodes[time] == moment].set_index(channel).reindex(channels)
        known = at["t"].notna().to_numpy()
        t, inside = (at.loc[known, name].to_numpy() for name in ("t", "inside"))
        maps.append(surface(spots[known], t).assign(time=moment))
        lines.append(border(spots[known], inside).assign(time=moment))
    columns = min(len(shown), 6)
    return (
        p9.ggplot(pd.concat(maps), p9.aes("x", "y"))
        + p9.geom_raster(p9.aes(fill="value"))
        + p9.geom_path(p9.aes("x", "y"), _head(), color=INK, size=0.7)
        + p9.geom_point(p9.aes("x", "y"), pd.DataFrame(spots, columns=["x", "y"]), size=0.4)
        + _paths(pd.concat(lines, ignore_index=True))
        + p9.facet_wrap("time", ncol=columns, labeller=lambda value: f"{float(value):g}")
        + _diverging(nodes["t"])
        + p9.coord_fixed()
        + p9.labs(title=f"t values by {time}", subtitle=_sentence(found, alpha))
        + _theme(1.5 + 1.4 * columns, 1.2 + 1.6 * np.ceil(len(shown) / columns))
        + _bare()
    )


def slices(
    values: ClusterTest | Any,
    mask: Any,
    axis: int = 2,
    count: int = 9,
    alpha: float = 0.05,
    name: str = "value",
) -> p9.ggplot:
    """Slices of a volume, evenly spread over where the mask has voxels.

    values: a number for each voxel of the mask, in C order, or what `many.clusters(...)` gives: its
    t values, with clusters outlined whose p is at most `alpha`. mask: bool, three dimensions, as
    `doors.nibabel.read(...)` has it. axis: across which to cut. count: how many slices. name: of
    the numbers.

    Raises ValueError for another number of values than voxels.

    >>> import numpy as np
    >>> ball = np.hypot(*np.indices((9, 9)) - 4)[:, :, None] + abs(np.arange(7) - 3) < 5.5
    >>> picture = plot.slices(np.ones(ball.sum()), ball, count=5, name="t")
    """
    mask, found = np.asarray(mask, bool), values
    is_test = isinstance(found, ClusterTest)
    values = found.nodes["t"].to_numpy() if is_test else np.asarray(values, float)
    if values.shape != (mask.sum(),):
        raise ValueError(f"there are {len(values)} values, but the mask has {mask.sum()} voxels")
    volume, region = np.full(mask.shape, np.nan), np.full(mask.shape, -1)
    volume[mask] = values
    if is_test:
        region[mask] = _significant(found, alpha)
    levels = np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis)))
    chosen = levels[np.unique(np.linspace(0, len(levels) - 1, count).round().astype(int))]
    tables, lines = [], []
    for level in chosen:
        cut, there, of = (np.take(a, level, axis) for a in (volume, mask, region))
        i, j = np.nonzero(there)
        tables.append(pd.DataFrame(dict(x=i, y=j, value=cut[i, j], slice=level)))
        edges = (np.arange(size + 1) - 0.5 for size in of.shape)
        lines.append(outlines(of.T, *edges).assign(slice=level))
    table, columns = pd.concat(tables), min(len(chosen), 5)
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_raster(p9.aes(fill="value"))
        + _lines(pd.concat(lines))
        + p9.facet_wrap("slice", ncol=columns, labeller=lambda value: f"{'ijk'[axis]} = {value}")
        + _diverging(table["value"], "t" if is_test else name)
        + p9.coord_fixed()
        + p9.labs(
            title=f"{'t' if is_test else name} of {len(values):,} voxels",
            subtitle=_sentence(found, alpha) if is_test else None,
        )
        + _theme(1.5 + 1.5 * columns, 1.2 + 1.7 * np.ceil(len(chosen) / columns))
        + _bare()
    )


def curve(curve: Curve) -> p9.ggplot:
    """A coefficient along time: the estimate of every model as a point, the smooth curve, its
    pointwise band (dark) and joint band (pale).

    curve: as `many.curves(...)` gives it.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> picture = plot.curve(many.curves("Days", time=[0, 1, 2, 3], seed=1))
    """
    _check(curve, Curve)
    table = curve.table
    return (
        p9.ggplot(table, p9.aes("time"))
        + p9.geom_ribbon(p9.aes(ymin="joint_lower", ymax="joint_upper"), fill=BLUE, alpha=0.15)
        + p9.geom_ribbon(p9.aes(ymin="lower", ymax="upper"), fill=BLUE, alpha=0.25)
        + p9.geom_hline(yintercept=0, color=GREY, size=0.5)
        + p9.geom_line(p9.aes(y="smooth"), color=BLUE, size=0.9)
        + p9.geom_point(p9.aes(y="estimate"), color=INK, size=0.8, stroke=0)
        + p9.scale_x_continuous(expand=(0.01, 0))
        + p9.labs(
            x="time",
            y="estimate",
            title="Coefficient along time",
            subtitle="Dark band: each time; pale band: the whole curve",
        )
        + _theme(6.0, 3.8)
    )


def variance_fractions(many: Many) -> p9.ggplot:
    """Shares of the variance in all models, as `many.variance_fractions()` has them: a violin each,
    with its median.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> picture = plot.variance_fractions(many)
    """
    _check(many, Many)
    shares = many.variance_fractions().dropna()
    order = list(shares)[::-1]
    table = shares.melt(var_name="component", value_name="share", ignore_index=True)
    medians = shares.median().rename_axis("component").reset_index(name="share")
    for one in (table, medians):
        one["component"] = pd.Categorical(one["component"], order)
    return (
        p9.ggplot(table, p9.aes("component", "share"))
        + p9.geom_violin(fill=BLUE, alpha=0.3, color=BLUE, scale="width", size=0.5)
        + p9.geom_point(data=medians, color=ORANGE, size=2.5, stroke=0)
        + p9.coord_flip()
        + p9.scale_y_continuous(limits=(0, 1), labels=_percents)
        + p9.labs(
            x="",
            y="share of the variance",
            title=f"Sources of variance in {len(shares):,} models",
            subtitle="Orange: the median",
        )
        + _theme(6.0, 1.4 + 0.6 * len(order))
    )


def _percents(values: Sequence[float]) -> list[str]:
    return [f"{value:.0%}" for value in values]


def _places_of(nodes: pd.DataFrame) -> pd.DataFrame:
    """The labels of models as x (the second level) and y."""
    names = list(nodes.columns[: list(nodes).index("t")])
    if len(names) != 2:
        raise ValueError(
            f"the models are labelled by {listed(names)}: say by where= where they lie, a frame "
            "with two columns"
        )
    return nodes[names[::-1]]


def _axis(column: pd.Series) -> tuple[np.ndarray, list[str] | None]:
    """Coordinates of a column, and the names of its levels, if these are no numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(float), None
    codes, levels = pd.factorize(column)
    return codes.astype(float), list(map(str, levels))


def _named_axis(scale: Any, names: list[str] | None) -> Any:
    """A scale whose whole numbers bear names, the first at the top."""
    if names is None:
        return scale(expand=(0, 0))
    if scale is p9.scale_y_continuous:
        names = names[::-1]
    step = -(-len(names) // 30)
    at = list(range(len(names)))[::step]
    return scale(breaks=at, labels=[names[k] for k in at], expand=(0, 0))


def _significant(found: ClusterTest, alpha: float) -> np.ndarray:
    """The number of each model's cluster, -1 where it has none whose p is at most alpha."""
    numbers = found.nodes["cluster"].to_numpy()
    kept = found.table.index[found.table["p"] <= alpha]
    return np.where(np.isin(numbers, kept), numbers, -1)


def _framed(table: pd.DataFrame, region: np.ndarray) -> pd.DataFrame:
    """Outlines of regions of points that lie on a grid."""
    x, column = np.unique(table["x"], return_inverse=True)
    y, row = np.unique(table["y"], return_inverse=True)
    grid = np.full((len(y), len(x)), -1)
    grid[row, column] = region
    return outlines(grid, centres_to_edges(x), centres_to_edges(y))


def _tiles(table: pd.DataFrame) -> p9.geom_rect:
    """A rectangle around each point of a grid."""
    sides = {}
    for name in ("x", "y"):
        centres, at = np.unique(table[name], return_inverse=True)
        edges = centres_to_edges(centres)
        sides |= {f"{name}min": edges[at], f"{name}max": edges[at + 1]}
    edges = p9.aes(xmin="xmin", xmax="xmax", ymin="ymin", ymax="ymax", fill="t")
    return p9.geom_rect(edges, table.assign(**sides), inherit_aes=False)


def _lines(segments: pd.DataFrame) -> Any:
    if segments.empty:
        return []
    ends = p9.aes(x="x", y="y", xend="xend", yend="yend")
    return p9.geom_segment(ends, segments, color=INK, size=0.7, inherit_aes=False)


def _paths(lines: pd.DataFrame) -> Any:
    if lines.empty:
        return []
    return p9.geom_path(p9.aes("x", "y", group="line"), lines, color=INK, size=0.9)


def _diverging(values: Any, name: str = "t") -> p9.scale_fill_gradient2:
    largest = float(np.nanmax(np.abs(values)))
    return p9.scale_fill_gradient2(
        low=BLUE,
        mid=PALE,
        high=ORANGE,
        limits=(-largest, largest),
        oob=_squeezed,
        na_value="#CCCCCC",
        name=name,
    )


def _squeezed(values: Any) -> np.ndarray:
    """Parts of the scale: what a spline makes beyond the largest value has the colour of that."""
    return np.clip(values, 0.0, 1.0)


def _sentence(found: ClusterTest, alpha: float) -> str:
    count = int((found.table["p"] <= alpha).sum())
    clusters = "cluster" if count == 1 else "clusters"
    return f"Outlined: {count} {clusters} with p at most {alpha:g}, of the whole map"


def _nearest(there: np.ndarray, times: Sequence[float] | None) -> np.ndarray:
    if times is None:
        places = np.linspace(0, len(there) - 1, min(SHOWN + 2, len(there))).round().astype(int)
        return there[places[1:-1] if len(places) > 2 else places]
    return np.unique([there[np.abs(there - time).argmin()] for time in times])


def _head() -> pd.DataFrame:
    """The outline of a head with its nose, begun at the left of the nose."""
    angle = np.linspace(0.5 * np.pi + 0.1, 2.5 * np.pi - 0.1, 120)
    x, y = np.cos(angle), np.sin(angle)
    return pd.DataFrame(dict(x=np.r_[x, 0.0, x[0]], y=np.r_[y, 1.13, y[0]]))


def _bare() -> p9.theme:
    blank = p9.element_blank()
    return p9.theme(
        axis_text=blank,
        axis_title=blank,
        axis_ticks=blank,
        panel_grid_major=blank,
        panel_border=blank,
        strip_background=blank,
    )
