"""Plots of random effects: caterpillar, shrinkage, fitted lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9
from mizani.breaks import breaks_extended

from ..result import Fit
from ..support.arguments import listed
from .data import effects, label, lines, own_and_shrunk, place, predictor, shown_levels, used_data
from .generalized import is_generalized, mean_name
from .style import (
    BLUE,
    GREY,
    INK,
    NAMED,
    ORANGE,
    _check,
    _fitting,
    _height,
    _level_axis,
    _level_names,
    _name_width,
    _shortened,
    _theme,
)


def caterpillar(fit: Fit, factor: str | None = None, level: float = 0.95) -> p9.ggplot:
    """Random effects of one factor with their intervals, ordered, a panel a column.

    factor: a name of `fit.ngroups`, by default the first. Intervals are those of
    `random_effects_ci`; effects whose interval excludes 0 are darker.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.caterpillar(fit)
    """
    _check(fit, Fit)
    g = place(fit, factor)
    table = effects(fit, g, level)
    table["clear"] = np.where((table["lower"] > 0) | (table["upper"] < 0), "yes", "no")
    f = fit.model.design.factors[g]
    m = len(f.levels)
    width = 3.0 * max(1.5 / max(len(f.columns), 1), 1.0) - 0.6
    if m <= NAMED:
        bar, point = 0.9, p9.geom_point(size=1.8)
    else:
        bar, point = 0.25, p9.geom_point(size=0.3, color=INK, stroke=0)
    return (
        p9.ggplot(table, p9.aes("estimate", "key", color="clear"))
        + p9.geom_vline(xintercept=0, color=GREY, size=0.5)
        + p9.geom_segment(p9.aes(x="lower", xend="upper", yend="key"), size=bar)
        + point
        + p9.facet_wrap(
            "panel", scales="free", nrow=1, labeller=lambda name: _fitting(name, width, 8)
        )
        + p9.scale_color_manual({"yes": BLUE, "no": GREY}, guide=None)
        + p9.labs(
            x=f"difference from the average, with {level:.0%} interval",
            y=_level_axis(f.name, m),
            title=f"Random effects of {f.name}, ordered",
            subtitle=f"Blue: the {level:.0%} interval excludes 0",
        )
        + _theme(1.0 + (3.0 + _name_width(f.levels)) * max(len(f.columns), 1.5), _height(m))
        + _level_names(m)
    )


def shrinkage(fit: Fit, factor: str | None = None, terms: Sequence[str] | None = None) -> p9.ggplot:
    """Where each group's own estimates move to in the mixed model: arrows from the former, which
    are by least squares (of generalised models by maximum likelihood), to the latter.

    factor: as in `caterpillar`. terms: one or two random-effects columns of the factor, by default
    the first two; with one the groups stand below each other. Coefficients include the fixed effect
    of the same name; other effects are as in the fit. Groups whose rows do not determine their own
    estimates are left out.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.shrinkage(fit)
    """
    _check(fit, Fit)
    fit.model.engine.require("plots_of_rows")
    g = place(fit, factor)
    f = fit.model.design.factors[g]
    chosen = _chosen(f.columns, terms)
    at = [f.columns.index(name) for name in chosen]
    own, shrunk, centre = own_and_shrunk(fit, g)
    known = np.isfinite(own).all(1)
    table = pd.DataFrame({"level": f.levels[known].astype(str)})
    for i, j in enumerate(at):
        table[f"a{i}"], table[f"b{i}"] = own[known, j], shrunk[known, j]
    words = p9.labs(title=f"Shrinkage of {f.name}", subtitle=_from_where(fit, int((~known).sum())))
    names = [label(fit, f, name) for name in chosen]
    if len(at) == 2:
        draw = _arrows
    else:
        draw = _dumbbells if len(table) <= NAMED else _against_own
    return draw(table, names, f.name, centre[at]) + words


def _from_where(fit: Fit, left_out: int) -> str:
    """What groups move from, and how many are left out."""
    if is_generalized(fit):
        without = f"; left out: {left_out} without a finite estimate of their own" * bool(left_out)
        return f"From maximum likelihood in each group alone\nto the mixed model{without}"
    without = f"; left out as too small for an own estimate: {left_out}" * bool(left_out)
    return f"From least squares in each group alone to the mixed model{without}"


def _chosen(columns: Sequence[str], terms: str | Sequence[str] | None) -> list[str]:
    """One or two columns of a factor, by default the first two."""
    if terms is None:
        return list(columns[:2])
    chosen = [terms] if isinstance(terms, str) else list(terms)
    if not 1 <= len(chosen) <= 2 or not set(chosen) <= set(columns):
        raise ValueError(f"terms must be one or two of {listed(columns)}, not {terms!r}")
    return chosen


def _arrows(table: pd.DataFrame, names: list[str], _: str, centre: np.ndarray) -> p9.ggplot:
    average = pd.DataFrame({"a0": [centre[0]], "a1": [centre[1]]})
    moves, blue = p9.aes(xend="b0", yend="b1"), {"color": BLUE}
    if len(table) <= NAMED:
        head = p9.arrow(length=0.06, type="closed")
        own = p9.geom_point(color=GREY, size=1.8, stroke=0.5)
        layers = [own, p9.geom_segment(moves, alpha=0.8, size=0.5, arrow=head, **blue)]
    else:  # of very many arrows a point is the head
        own = p9.geom_point(color=GREY, size=0.8, stroke=0)
        heads = p9.geom_point(p9.aes("b0", "b1"), size=0.8, stroke=0, **blue)
        layers = [own, p9.geom_segment(moves, alpha=0.15, size=0.5, **blue), heads]
    return (
        p9.ggplot(table, p9.aes("a0", "a1"))
        + layers
        + p9.geom_point(data=average, shape="+", size=6, stroke=1.2, color=ORANGE)
        + p9.labs(
            x=_fitting(names[0], 5.0, 10),
            y=_fitting(names[1], 3.2, 10),
            caption="Grey: alone; blue: mixed model; orange cross: the average group",
        )
        + _theme(6.0, 4.5)
    )


def _dumbbells(table: pd.DataFrame, names: list[str], factor: str, centre: np.ndarray) -> p9.ggplot:
    table = table.sort_values("a0").assign(level=lambda d: pd.Categorical(d["level"], d["level"]))
    return (
        p9.ggplot(table, p9.aes("a0", "level"))
        + p9.geom_vline(xintercept=centre[0], color=ORANGE, size=0.5)
        + p9.geom_segment(p9.aes(xend="b0", yend="level"), color=BLUE, size=0.5)
        + p9.geom_point(color=GREY, size=1.8)
        + p9.geom_point(p9.aes(x="b0"), color=BLUE, size=1.8)
        + p9.labs(
            x=_fitting(names[0], 4.0, 10),
            y=factor,
            caption="Grey: alone; blue: mixed model; orange line: the average group",
        )
        + _theme(6.0, _height(len(table)))
        + _level_names(len(table))
    )


def _against_own(
    table: pd.DataFrame, names: list[str], factor: str, centre: np.ndarray
) -> p9.ggplot:
    """One estimate of very many groups: the mixed model's against the group's own."""
    return (
        p9.ggplot(table, p9.aes("a0", "b0"))
        + p9.geom_abline(slope=1, intercept=0, color=GREY, linetype="dashed", size=0.5)
        + p9.geom_hline(yintercept=centre[0], color=ORANGE, size=0.5)
        + p9.geom_point(color=BLUE, size=1.0, alpha=0.5, stroke=0)
        + p9.labs(
            x=_fitting(f"{names[0]}, in the group alone", 5.0, 10),
            y=_fitting(f"{names[0]}, mixed model", 3.2, 10),
            caption=f"{len(table):,} levels of {factor}; dashed: no shrinkage; orange line: the "
            "average group",
        )
        + _theme(6.0, 4.5)
    )


def fitted_lines(
    fit: Fit,
    x: str | None = None,
    factor: str | None = None,
    groups: Sequence[Any] | None = None,
    most: int = 30,
) -> p9.ggplot:
    """The data of each group with its fitted line, and that of the average group, as small
    multiples.

    x: the predictor, by default the first with a random slope, else the first of the fixed part.
    factor: as in `caterpillar`. groups: levels to show; by default all, or `most` of them spread
    evenly over the levels as ordered by their first random effect. Lines are for the middle (or
    most frequent) value of other predictors, which the subtitle names; of predictors that do not
    vary within groups each has its own. Other random effects are held at 0.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.fitted_lines(fit)
    """
    _check(fit, Fit)
    fit.model.engine.require("plots_of_rows")
    g = place(fit, factor)
    f, frame = fit.model.design.factors[g], used_data(fit)
    x = predictor(fit, g, frame, x)
    shown = shown_levels(fit, g, groups, most)
    data, curves, held = lines(fit, g, frame, x, shown)
    sampled = f"all {len(shown)} levels"
    if len(shown) < len(f.levels):
        sampled = f"{len(shown)} of {len(f.levels):,} levels"
    axis = p9.theme(axis_text_x=p9.element_text(rotation=45, ha="right"))
    if data["x"].dtype == float:
        axis = p9.scale_x_continuous(breaks=breaks_extended(4))
    columns, groups = _columns(len(shown)), list(data["group"].cat.categories)
    strips = dict(zip(groups, _shortened(groups, 7), strict=True))
    return (
        p9.ggplot(data, p9.aes("x", "y"))
        + p9.geom_point(color=INK, size=1.2, alpha=0.6)
        + p9.geom_line(
            p9.aes(y="average", group="group"), curves, color=ORANGE, linetype="dashed", size=0.6
        )
        + p9.geom_line(p9.aes(y="fitted", group="group"), curves, color=BLUE, size=0.9)
        + p9.facet_wrap("group", ncol=columns, labeller=strips.__getitem__)
        + p9.labs(
            x=x,
            y=mean_name(fit) if is_generalized(fit) else fit.model.design.response,
            title=f"Data and fitted lines, {sampled} of {f.name}",
            subtitle=f"Blue: the group's own line; dashed: the average group{_conditions(held)}",
        )
        + _theme(max(1.3 * columns, 6.0), max(2.6, 1.0 + 1.25 * np.ceil(len(shown) / columns)))
        + p9.theme(strip_text=p9.element_text(size=8), panel_spacing=0.01)
        + axis
    )


def _conditions(held: Sequence[str]) -> str:
    """At which values of other predictors lines are drawn, as far as a line of text has room."""
    if not held:
        return ""
    more = f" and {len(held) - 3} more" if len(held) > 3 else ""
    return f".\nLines at {', '.join(held[:3])}{more}"


def _columns(panels: int) -> int:
    """Of small multiples: wider than high, with as few empty places as can be."""
    wanted = int(np.ceil(np.sqrt(1.2 * panels)))
    return min(range(wanted, wanted + 3), key=lambda c: -panels % c) if panels > 3 else panels
