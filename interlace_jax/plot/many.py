"""Plots of many fits: volcano and heatmap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotnine as p9

from ..batch import Many
from ..design.alignment import in_order_of
from ..support.arguments import listed, one_of
from .data import names_of
from .diagnostics import _apart
from .style import BLUE, GREY, INK, NAMED, ORANGE, _check, _height, _level_names, _theme


def volcano(many: Many, coefficient: str, alpha: float = 0.05, label: int = 8) -> p9.ggplot:
    """Estimates of one coefficient against their p-values, a point a model; the smallest p-values
    are named.

    alpha: false discovery rate (Benjamini & Hochberg) at which a model is coloured.
    """
    _check(many, Many)
    _check_coefficient(many, coefficient)
    p = many.fe_pvalues[coefficient]
    found = many.adjusted_pvalues("bh")[coefficient] <= alpha
    table = pd.DataFrame(
        {"x": many.fe_params[coefficient], "p": np.maximum(p, 1e-300), "found": found}
    ).dropna()
    table = table.assign(name=table.index.map(str), y=-np.log10(table["p"]))
    table["found"] = np.where(table["found"], "yes", "no")
    named = _apart(table[table["found"] == "yes"].nsmallest(label, "p"), table, "x", "y")
    threshold = table.loc[table["found"] == "yes", "y"].min()
    line = (
        []
        if np.isnan(threshold)
        else p9.geom_hline(yintercept=threshold, color=GREY, linetype="dashed")
    )
    n = len(table)
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_vline(xintercept=0, color=GREY, size=0.5)
        + line
        + p9.geom_point(p9.aes(color="found"), size=2.0 if n <= 500 else 1.3, alpha=0.7, stroke=0)
        + p9.geom_text(
            p9.aes(label="name"), named, size=7, va="bottom", nudge_y=0.015 * np.ptp(table["y"])
        )
        + p9.scale_color_manual({"yes": ORANGE, "no": GREY}, guide=None)
        + p9.scale_y_continuous(labels=_powers, expand=(0.06, 0))
        + p9.scale_x_continuous(expand=(0.08, 0))
        + p9.labs(
            x=f"estimate of {coefficient}",
            y="p-value",
            title=f"{coefficient} in {n:,} models",
            subtitle=f"Orange: {sum(table['found'] == 'yes'):,} models at a false "
            f"discovery rate of {alpha:.0%}",
        )
        + _theme(6.0, 4.5)
    )


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
    """
    _check(many, Many)
    if coefficient is not None:
        _check_coefficient(many, coefficient)
    t, adjusted = many.fe_tvalues, many.adjusted_pvalues("bh")
    if where is None:
        kept = (
            [coefficient] if coefficient else [name for name in t if name != "Intercept"] or list(t)
        )
        at = pd.DataFrame({"x": np.repeat(kept, len(t)), "y": np.tile(t.index.map(str), len(kept))})
        axes, order = ("", "model"), list(t.index.map(str))
        at = at.assign(x=pd.Categorical(at["x"], kept), y=pd.Categorical(at["y"], order[::-1]))
        width = min(2.5 + 0.8 * len(kept), 8.0)
        values, p = (table[kept].to_numpy().T.ravel() for table in (t, adjusted))
    else:
        if coefficient is None or len(where) != len(t) or where.shape[1] != 2:
            raise ValueError(
                f"where= needs a coefficient, one of {listed(t)}, and two columns with {len(t)} "
                "rows"
            )
        where = in_order_of(t, where, "where")
        axes = tuple(map(str, where.columns))
        x, y = (names_of(where.iloc[:, i]).reset_index(drop=True) for i in range(2))
        y = y if y.dtype == float else y.cat.reorder_categories(y.cat.categories[::-1])
        at, width = pd.DataFrame({"x": x, "y": y}), 6.5
        values, p = t[coefficient].to_numpy(), adjusted[coefficient].to_numpy()
    table = at.assign(t=values, found=p <= alpha)
    largest, rows = float(np.nanmax(np.abs(values))), table["y"].nunique()
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_tile(p9.aes(fill="t"))
        + p9.geom_point(
            data=table[table["found"]], size=1.0 if rows <= NAMED else 0.5, color=INK, stroke=0
        )
        + p9.scale_fill_gradient2(
            low=BLUE,
            mid="#F7F7F7",
            high=ORANGE,
            limits=(-largest, largest),
            na_value="#CCCCCC",
            name="t",
        )
        + p9.labs(
            x=axes[0],
            y=axes[1],
            title=f"t values{f' of {coefficient}' if coefficient else ''} in {len(t):,} models",
            subtitle=f"Dots: at a false discovery rate of {alpha:.0%}",
        )
        + _theme(width, _height(rows))
        + p9.theme(panel_grid_major=p9.element_blank())
        + (_level_names(rows) if isinstance(table["y"].dtype, pd.CategoricalDtype) else [])
    )


def _check_coefficient(many: Many, name: str) -> None:
    one_of("coefficient", name, list(many.fe_params))


def _broken(name: str) -> str:
    """A long name of a parameter in lines."""
    return (
        name
        if len(name) <= 24
        else name.replace(".(", "\n.(").replace("|", "\n|", ".(" not in name)
    )
