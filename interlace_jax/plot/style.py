"""What all plots share: theme, colours, axes."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9

from ..batch import Many
from ..inference.marginal_means import MarginalMeans
from ..maps.clusters import ClusterTest
from ..maps.curves import Curve
from ..result import Fit

NAMED = 60  # levels up to which their names are shown
LINE_OF_NAME, ROOM_FOR_NAMES = 16, 66  # characters of a category's name, and of all side by side
LETTER = 0.008  # inches that a letter of one point is wide
HALF = 16  # characters of either end of a long name
DRAWN = 10_000  # points that a picture can show
# Okabe & Ito's, apart for all kinds of eyes
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#9A9A9A", "#222222"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)

TAKEN = {
    Fit: "a fit, as interlace_jax.fit(...) gives it",
    Many: "many fits, as interlace_jax.fit_many(...) gives them",
    ClusterTest: "a tested map, as many.clusters(...) gives it",
    Curve: "a curve, as many.curves(...) gives it",
    MarginalMeans: "marginal means, as interlace_jax.emmeans(fit, ...) gives them",
    pd.DataFrame: "a table of influence, as fit.influence(...) gives it",
}


def _check(given: Any, kind: type) -> None:
    """Refuse what is not of the kind that a plot takes."""
    if not isinstance(given, kind):
        raise TypeError(f"this plot takes {TAKEN[kind]}, not {type(given).__name__}")


def _theme(width: float, height: float) -> p9.theme:
    """The look of every plot; size in inches."""
    return p9.theme_bw(base_size=10) + p9.theme(
        figure_size=(width, height),
        panel_grid_minor=p9.element_blank(),
        panel_grid_major=p9.element_line(color="#EBEBEB", size=0.5),
        panel_border=p9.element_rect(color="#B0B0B0"),
        strip_background=p9.element_rect(fill="#F2F2F2", color="#B0B0B0"),
        plot_title=p9.element_text(size=12, ha="left"),
        plot_subtitle=p9.element_text(size=9, ha="left", color="#555555"),
        legend_key=p9.element_blank(),
    )


def _level_axis(name: str, m: int) -> str:
    return name if m <= NAMED else f"{m:,} levels of {name}"


def _level_names(m: int) -> Any:
    """The names of levels beside an axis, as long as they can be read."""

    def names(keys: Iterable[Any]) -> list[str]:
        return _shortened([str(key).rpartition("\t")[2] for key in keys])

    if m <= NAMED:
        return [
            p9.scale_y_discrete(labels=names),
            p9.theme(axis_text_y=p9.element_text(size=7 if m > 25 else 8)),
        ]
    hidden = p9.theme(axis_text_y=p9.element_blank(), axis_ticks_major_y=p9.element_blank())
    return [hidden, p9.theme(panel_grid_major_y=p9.element_blank())]


def _short(name: str, half: int = HALF) -> str:
    """A name whose middle is left out where it is long: ends tell levels apart."""
    return name if len(name) <= 2 * half + 1 else f"{name[:half]}…{name[-half:]}"


def _shortened(names: Sequence[str], half: int = HALF) -> list[str]:
    """Names as `_short` has them; without what all have in common where these would be the same."""
    short = [_short(name, half) for name in names]
    if len(set(short)) == len(set(names)) or len(set(names)) < 2:
        return short
    start = len(os.path.commonprefix(list(names)))
    end = len(os.path.commonprefix([name[start:][::-1] for name in names]))
    middles = [f"…{name[start : len(name) - end]}…" for name in names]
    return [_short(name, half) for name in middles]


def _name_width(levels: Iterable[Any]) -> float:
    """Inches that the names of levels need beside each panel, beyond those of a short one."""
    names = list(map(str, levels))
    return 0.065 * max(max(map(len, _shortened(names))) - 6, 0) if len(names) <= NAMED else 0.0


def _height(m: int) -> float:
    """Inches for a row a level."""
    return 1.3 + 0.16 * max(m, 8) if m <= NAMED else 6.0


def _panels(count: int) -> p9.theme:
    size = p9.theme(strip_text=p9.element_text(size=8))
    return _theme(1.0 + 2.5 * min(count, 3), 1.2 + 2.0 * np.ceil(count / 3)) + size


def _fitting(text: str, inches: float, points: float = 9.0) -> str:
    """Text in lines that a picture has room for, in letters of so many points."""
    most = max(int(inches / (LETTER * points)), 8)
    return "\n".join(textwrap.fill(line, most) for line in text.split("\n"))


def _category_axis(column: pd.Series) -> list[Any]:
    """Names of categories under an axis: in several lines where they are long, and aslant where
    there are too many to stand side by side.
    """
    if column.dtype == float:
        return []
    names = _shortened(list(map(str, column.cat.categories)))
    lines = [textwrap.fill(name, LINE_OF_NAME) for name in names]
    widest = max((len(line) for name in lines for line in name.split("\n")), default=0)
    aslant = len(lines) * (widest + 2) > ROOM_FOR_NAMES
    shown = dict(zip(column.cat.categories, names if aslant else lines, strict=True))
    labels = p9.scale_x_discrete(labels=lambda keys: [shown.get(key, key) for key in keys])
    return [labels, *([p9.theme(axis_text_x=p9.element_text(rotation=45, ha="right"))] * aslant)]
