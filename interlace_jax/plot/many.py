"""Plots of many fits: volcano and heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotnine as p9

from ..batch import Many
from ..design.alignment import in_order_of
from ..many.fits import false_discovery
from ..support.arguments import listed, one_of
from .data import names_of
from .diagnostics import _apart
from .style import BLUE, GREY, INK, NAMED, ORANGE, _check, _fitting, _height, _level_names, _theme


def volcano(
    many: Many,
    coefficient: str,
    alpha: float = 0.05,
    label: int | Sequence[Any] = 8,
    moderated: bool = False,
) -> p9.ggplot:
    """Estimates of one coefficient against their p-values, a point a model; some models are named.

    alpha: false discovery rate (Benjamini & Hochberg) at which a model is coloured. label: how many
    of these are named, those with the smallest p-values; or the labels of the models to name.
    moderated: p-values of `many.moderate(coefficient)`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> picture = plot.volcano(many, "Days")
    """
    _check(many, Many)
    _check_coefficient(many, coefficient)
    if moderated:
        p = many.moderate(coefficient)["p"].set_axis(many.labels)
    else:
        p = many.fe_pvalues[coefficient]
    found = false_discovery(p, "bh") <= alpha
    table = pd.DataFrame(
        {"x": many.fe_params[coefficient], "p": np.maximum(p, 1e-300), "found": found}
    ).dropna()
    table = table.assign(name=table.index.map(str), y=-np.log10(table["p"]))
    table["found"] = np.where(table["found"], "yes", "no")
    named = _apart(_named(table, label), table, "x", "y")
    threshold = table.loc[table["found"] == "yes", "y"].min()
    line = p9.geom_hline(yintercept=threshold, color=GREY, linetype="dashed")
    n, count = len(table), sum(table["found"] == "yes")
    size, above = 2.0 if n <= 500 else 1.3, 0.015 * np.ptp(table["y"])
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_vline(xintercept=0, color=GREY, size=0.5)
        + ([] if np.isnan(threshold) else line)
        + p9.geom_point(p9.aes(color="found"), size=size, alpha=0.7, stroke=0)
        + p9.geom_text(p9.aes(label="name"), named, size=7, va="bottom", nudge_y=above)
        + p9.scale_color_manual({"yes": ORANGE, "no": GREY}, guide=None)
        + p9.scale_y_continuous(labels=_powers, expand=(0.06, 0))
        + p9.scale_x_continuous(expand=(0.08, 0))
        + p9.labs(
            x=f"estimate of {coefficient}",
            y="moderated p-value" if moderated else "p-value",
            title=f"{coefficient} in {n:,} models",
            subtitle=f"Orange: {count:,} models at a false discovery rate of {alpha:.0%}",
        )
        + _theme(6.0, 4.5)
    )


def _named(table: pd.DataFrame, label: int | Sequence[Any]) -> pd.DataFrame:
    """The points that bear names."""
    if isinstance(label, int):
        return table[table["found"] == "yes"].nsmallest(label, "p")
    unknown = [name for name in label if name not in table.index]
    if unknown:
        raise ValueError(f"label has {listed(unknown)}, which no model is called")
    return table.loc[list(label)]


def _powers(values: Sequence[float]) -> list[str]:
    return [f"{10.0**-v:.2g}" for v in values]


def heatmap(
    many: Many,
    coefficient: str | None = None,
    where: pd.DataFrame | None = None,
    alpha: float = 0.05,
) -> p9.ggplot:
    """The t values of many models as colours; dots mark those at a false discovery rate of `alpha`.

    coefficient: one of them; by default all but the intercept, models by coefficients. where: for
    one coefficient, a frame with a row for each model and two columns, the place of the model on
    the x and y axes (time and electrode).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> picture = plot.heatmap(many)
    """
    _check(many, Many)
    if coefficient is not None:
        _check_coefficient(many, coefficient)
    if where is None:
        tiles = _by_coefficient(many, coefficient)
    else:
        tiles = _by_place(many, coefficient, where)
    table = tiles.table.assign(found=tiles.table["adjusted"] <= alpha)
    largest, rows = float(table["t"].abs().max()), table["y"].nunique()
    size = 1.0 if rows <= NAMED else 0.5
    of = f" of {coefficient}" if coefficient else ""
    plot = (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_tile(p9.aes(fill="t"))
        + p9.geom_point(data=table[table["found"]], size=size, color=INK, stroke=0)
        + p9.scale_fill_gradient2(
            low=BLUE,
            mid="#F7F7F7",
            high=ORANGE,
            limits=(-largest, largest),
            na_value="#CCCCCC",
            name="t",
        )
        + p9.labs(
            x=tiles.axes[0],
            y=tiles.axes[1],
            title=_fitting(f"t values{of} in {len(many):,} models", tiles.width - 1.5, 12),
            subtitle=f"Dots: at a false discovery rate of {alpha:.0%}",
        )
        + _theme(tiles.width, _height(rows))
        + p9.theme(panel_grid_major=p9.element_blank())
    )
    if isinstance(table["y"].dtype, pd.CategoricalDtype):
        plot = plot + _level_names(rows)
    return plot


class _Tiles(NamedTuple):
    """A row for each tile, `x y t adjusted`, with adjusted p-values."""

    table: pd.DataFrame
    axes: tuple[str, ...]
    width: float


def _by_coefficient(many: Many, coefficient: str | None) -> _Tiles:
    """Models by coefficients, the first model on top."""
    t, adjusted = many.fe_tvalues, many.adjusted_pvalues("bh")
    shown = [name for name in t if name != "Intercept"] or list(t)
    if coefficient is not None:
        shown = [coefficient]
    models = list(t.index.map(str))
    table = pd.DataFrame(
        {
            "x": pd.Categorical(np.repeat(shown, len(t)), shown),
            "y": pd.Categorical(np.tile(models, len(shown)), models[::-1]),
            "t": t[shown].to_numpy().T.ravel(),
            "adjusted": adjusted[shown].to_numpy().T.ravel(),
        }
    )
    return _Tiles(table, ("", "model"), min(2.5 + 0.8 * len(shown), 8.0))


def _by_place(many: Many, coefficient: str | None, where: pd.DataFrame) -> _Tiles:
    """One coefficient, each model at its place."""
    t, adjusted = many.fe_tvalues, many.adjusted_pvalues("bh")
    if coefficient is None or len(where) != len(t) or where.shape[1] != 2:
        raise ValueError(
            f"where= needs a coefficient, one of {listed(t)}, and two columns with {len(t)} rows"
        )
    where = in_order_of(t, where, "where")
    x, y = (names_of(where.iloc[:, i]).reset_index(drop=True) for i in range(2))
    if y.dtype != float:
        y = y.cat.reorder_categories(y.cat.categories[::-1])
    values, p = t[coefficient].to_numpy(), adjusted[coefficient].to_numpy()
    table = pd.DataFrame({"x": x, "y": y, "t": values, "adjusted": p})
    return _Tiles(table, tuple(map(str, where.columns)), 6.5)


def _check_coefficient(many: Many, name: str) -> None:
    one_of("coefficient", name, list(many.fe_params))


def _broken(name: str) -> str:
    """A long name of a parameter in lines."""
    if len(name) <= 24:
        return name
    return name.replace(".(", "\n.(").replace("|", "\n|", ".(" not in name)
