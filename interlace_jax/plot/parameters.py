"""Plots of parameters and what they predict: coefficients, effects, marginal means, profiles,
variance components.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotnine as p9
from scipy import special

from ..inference.marginal_means import MarginalMeans
from ..result import Fit
from ..support.arguments import check_level, texts
from . import data
from .data import components, forest, in_order, names_of, over
from .generalized import link_scale, mean_name, observed, ratio
from .many import _broken
from .style import (
    BLUE,
    COLOURS,
    DRAWN,
    GREY,
    ORANGE,
    _category_axis,
    _check,
    _fitting,
    _panels,
    _theme,
)


def profile(fit: Fit | pd.DataFrame, level: float = 0.95) -> p9.ggplot:
    """Signed roots of the profile deviance, a panel a parameter: a straight line means that Wald
    intervals are right.

    fit: a fit, or the frame of its `profile()`. The marks are the ends of the interval of that
    `level`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.profile(fit.profile())
    """
    check_level(level)
    z = special.ndtri(0.5 + level / 2)
    curves = data.curves(_profile(fit))
    line, wald = pd.concat(c.line for c in curves), pd.concat(c.wald for c in curves)
    ends = pd.concat(c.at([-z, z]) for c in curves)
    return (
        p9.ggplot(line, p9.aes("value", "zeta"))
        + p9.geom_hline(yintercept=0, color=GREY, size=0.5)
        + p9.geom_line(data=wald, color=GREY, linetype="dashed", size=0.6)
        + p9.geom_line(color=BLUE, size=0.9)
        + p9.geom_segment(p9.aes(xend="value", yend=0), ends, color=ORANGE, size=0.5)
        + p9.geom_point(data=ends, color=ORANGE, size=1.8)
        + p9.facet_wrap("parameter", scales="free_x", ncol=3, labeller=_broken)
        + p9.labs(
            x="value of the parameter",
            y="zeta (signed root of the rise of the deviance)",
            title="Profiles of the parameters",
            subtitle=f"Orange: ends of the {level:.0%} intervals; dashed: what Wald intervals "
            "assume",
        )
        + _panels(len(curves))
    )


def _profile(fit: Fit | pd.DataFrame) -> pd.DataFrame:
    if isinstance(fit, pd.DataFrame) and {"parameter", "value", "zeta"} <= set(fit):
        return fit
    _check(fit, Fit)
    return fit.profile()


def density(fit: Fit | pd.DataFrame) -> p9.ggplot:
    """Densities that the profiles imply, a panel a parameter: normal density of zeta times its
    slope.

    fit: as in `profile`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.density(fit.profile())
    """
    curves = data.curves(_profile(fit))
    line = pd.concat(c.density for c in curves)
    return (
        p9.ggplot(line, p9.aes("value", "density"))
        + p9.geom_area(fill=BLUE, alpha=0.2)
        + p9.geom_line(color=BLUE, size=0.9)
        + p9.facet_wrap("parameter", scales="free", ncol=3, labeller=_broken)
        + p9.labs(
            x="value of the parameter",
            y="profile density",
            title="Profile densities of the parameters",
        )
        + _panels(len(curves))
    )


def coefficients(
    *fits: Fit,
    names: Sequence[str] | None = None,
    intercept: bool = False,
    level: float = 0.95,
    labels: Mapping[str, str] | None = None,
    exponentiate: bool = False,
) -> p9.ggplot:
    """Forest plot: the coefficients of one or several fits with their intervals, a row a term.

    fits: one or more. names: what the fits are called in the legend, by default (1), (2), ...
    intercept: whether it has a row. level: of the intervals, which are those of `tidy`. labels:
    other words for terms, as {"x": "a longer name"}. exponentiate: show exp(coefficient), odds
    ratios of a logit and ratios of a log link, on a logarithmic axis.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.coefficients(fit)
    """
    if not fits:
        raise TypeError("this plot takes one or more fits, as plot.coefficients(m1, m2)")
    for fit in fits:
        _check(fit, Fit)
    check_level(level)
    table = forest(fits, names, intercept, level, dict(labels or {}), exponentiate)
    aes = p9.aes("term", "estimate", ymin="conf_low", ymax="conf_high")
    rows = table["term"].nunique()
    if len(fits) > 1:
        dodge, crowd = p9.position_dodge(0.6), 0.6 + 0.3 * len(fits)
        layers = [
            p9.geom_pointrange(p9.aes(color="model"), position=dodge, size=0.5, na_rm=True),
            _legend_of_models(list(table["model"].cat.categories[::-1])),
        ]
    else:
        layers, crowd = [p9.geom_pointrange(color=BLUE, size=0.5, na_rm=True)], 1.0
    if exponentiate:
        layers.append(p9.scale_y_log10())
    return (
        p9.ggplot(table, aes)
        + p9.geom_hline(yintercept=1 if exponentiate else 0, color=GREY, size=0.5)
        + layers
        + p9.coord_flip()
        + p9.scale_x_discrete(labels=_names_in_lines)
        + p9.labs(
            x="",
            y=f"{_shown_coefficients(fits, exponentiate)}, with {level:.0%} interval",
            color="model",
            title="Coefficients",
        )
        + _theme(7.0, 1.3 + 0.3 * max(rows, 3) * crowd)
    )


def _legend_of_models(names: list[str]) -> p9.scale_color_manual:
    """Colours in the order of the models; their rows stand in that order from the top."""
    return p9.scale_color_manual(dict(zip(names, _colours(len(names)), strict=True)), breaks=names)


def _shown_coefficients(fits: Sequence[Fit], exponentiate: bool) -> str:
    """What the axis of a forest plot has, in words."""
    if exponentiate:
        return _one_of([ratio(fit) for fit in fits], "exp(coefficient)")
    return f"effect on {_one_of([link_scale(fit) for fit in fits], 'the response')}"


def _one_of(names: list[str], otherwise: str) -> str:
    """What all fits have, if it is the same."""
    return names[0] if len(set(names)) == 1 else otherwise


def _colours(count: int) -> list[str]:
    """Colours of so many models or levels; where the palette ends it begins again."""
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def effects(
    fit: Fit,
    x: str,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    level: float = 0.95,
    points: bool = False,
) -> p9.ggplot:
    """What the fixed part predicts over one variable, with intervals: a band over a number, points
    for a factor.

    x: a variable of the fixed part. by: one or two others, of which the first is the colour and the
        second makes panels. Numbers in `by` are shown at their quartiles unless `at` says where.
    at: values of variables, as {"dose": [0, 10]}; all other factors are averaged over, with equal
        weights, and other numbers are held at their means, as `interlace_jax.emmeans` does: the
        subtitle says so.
    level: of the intervals, pointwise, for the mean of an average group. points: whether to draw
    the rows beneath.

    Of generalised models the means are on the scale of the response, for a level whose random
    effects are 0 (of an ordinal response on that of the link); proportions where there are trials.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.effects(fit, "Days", points=True)
    """
    _check(fit, Fit)
    fit.model.engine.require("plots_of_rows")
    check_level(level)
    shown = over(fit, x, texts("by", by, "x"), at, level)
    means, others = shown.table, [*shown.by]
    colour, panel = (others + [None, None])[:2]
    numeric = means[x].dtype == float
    mapping = {"color": colour, "fill": colour, "group": colour} if colour else {"group": 1}
    plot = p9.ggplot(means, p9.aes(x, "emmean", **mapping))
    if points:
        plot = plot + _rows_beneath(fit, x, shown.data, colour)
    plot = (
        plot
        + _means_with_intervals(numeric, colour, 0.4)
        + p9.labs(
            y=f"{mean_name(fit)}, with {level:.0%} interval",
            title=f"Effect of {x}{' by ' * bool(others)}{' and '.join(others)}",
            subtitle=_fitting(shown.condition, 7.0 if panel else 5.5),
        )
        + _theme(8.0 if panel else 6.5, 4.3)
        + p9.theme(strip_text=p9.element_text(size=8))
        + _category_axis(means[x])
    )
    if shown.colours:
        colours = _colours(shown.colours)
        plot = plot + [p9.scale_color_manual(colours), p9.scale_fill_manual(colours)]
    if panel:
        plot = plot + p9.facet_wrap(panel, labeller="label_both")
    return plot


def _means_with_intervals(
    numeric: bool, colour: str | None, apart: float, band: bool = True
) -> list:
    """Means joined by a line, with their limits `lower` and `upper` as a band or as bars.

    numeric: whether they are over a number. apart: distance of the colours at one level.
    """
    limits = p9.aes(ymin="lower", ymax="upper")
    dodge = p9.position_dodge(0.0 if numeric or not colour else apart)
    look = {} if colour else {"color": BLUE}
    alpha = 1.0 if numeric else 0.5
    line = p9.geom_line(position=dodge, size=0.8, na_rm=True, alpha=alpha, **look)
    if numeric and band:
        fill = {} if colour else {"fill": BLUE}
        return [p9.geom_ribbon(limits, alpha=0.2, color="none", **fill), line]
    return [line, p9.geom_pointrange(limits, position=dodge, size=0.5, na_rm=True, **look)]


def _rows_beneath(fit: Fit, x: str, data: pd.DataFrame, colour: str | None) -> p9.geom_point:
    """The rows used, at most DRAWN of them."""
    rows = data.assign(emmean=observed(fit)).sample(min(DRAWN, len(data)), random_state=0)
    rows[x] = names_of(rows[x])
    same = colour is not None and colour in rows and rows[colour].dtype.kind not in "iuf"
    mapping = p9.aes(x, "emmean", color=colour) if same else p9.aes(x, "emmean")
    if same:
        rows[colour] = names_of(rows[colour])
    binary = 0.02 * bool(np.isin(rows["emmean"], (0.0, 1.0)).all())
    width = 0.0 if rows[x].dtype == float else 0.1
    jitter = p9.position_jitter(width, binary, 0) if width or binary else p9.position_identity()
    look = {} if same else {"color": GREY}
    return p9.geom_point(
        mapping, rows, position=jitter, size=1.2, alpha=0.5, stroke=0, inherit_aes=False, **look
    )


def _names_in_lines(names: Sequence[str]) -> list[str]:
    """Long names of terms, broken where they are joined."""
    parts = [
        textwrap.wrap(str(name).replace(":", ": "), 40, break_long_words=False) for name in names
    ]
    return ["\n".join(lines).replace(": ", ":") for lines in parts]


def variance_components(fit: Fit) -> p9.ggplot:
    """Standard deviations and correlations of the random effects with their 95% Wald intervals, as
    in `varcorr`.

    Standard deviations of the same unit share a panel. What is at the boundary has no interval.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.variance_components(fit)
    """
    _check(fit, Fit)
    shown = components(fit)
    spans = shown.dropna(subset="lower")
    return (
        p9.ggplot(shown, p9.aes("sdcor", "name"))
        + p9.geom_segment(p9.aes(x="lower", xend="upper", yend="name"), spans, color=BLUE, size=0.9)
        + p9.geom_point(color=BLUE, size=2.4)
        + p9.expand_limits(x=0)
        + p9.facet_wrap("panel", scales="free", ncol=1)
        + p9.labs(x="estimate with 95% interval", y="", title="Variance components")
        + _theme(6.5, 1.0 + 0.65 * shown["panel"].nunique() + 0.3 * len(shown))
    )


def emmeans(means: MarginalMeans) -> p9.ggplot:
    """Marginal means with their intervals.

    means: what `interlace_jax.emmeans` returns. The last of its variables is on the x axis, the one
    before it is the colour, those before make panels.

    >>> cake = interlace_jax.load_dataset("cake")
    >>> fit = interlace_jax.fit("angle ~ recipe * temp + (1 | recipe:replicate)", cake)
    >>> picture = plot.emmeans(interlace_jax.emmeans(fit, ["temp", "recipe"]))
    """
    _check(means, MarginalMeans)
    table = means.frame.rename(columns={"response": "emmean"})
    names = [means.columns[name] for name in (*means.by, *means.specs)]
    value, kind = ("emmean", "means") if means.trend is None else ("trend", "slopes")
    *panels, x = names or ["all"]
    table = table.assign(**{name: in_order(table[name]) for name in panels}, all="all")
    table[x] = names_of(table[x])
    colour = panels.pop() if panels else None
    numeric = table[x].dtype == float
    groups = {"color": colour, "group": colour} if colour else {"group": 1}
    plot = (
        p9.ggplot(table, p9.aes(x, value, **groups))
        + _means_with_intervals(numeric, colour, 0.5, band=False)
        + p9.labs(
            y=f"{_what(means)}, with {means.level:.0%} interval",
            title=f"Marginal {kind}{' by ' * bool(names)}{' and '.join(reversed(names))}",
        )
        + _theme(6.0, 4.0)
        + _category_axis(table[x])
    )
    if colour:
        plot = plot + p9.scale_color_manual(_colours(table[colour].nunique()))
    if panels:
        plot = plot + p9.facet_wrap(panels)
    return plot


def _what(means: MarginalMeans) -> str:
    if means.trend is not None:
        return f"slope of {means.response} by {means.trend}"
    is_share = means.scale is not None and means.scale.family.has_trials
    return f"{'probability of' if is_share else 'mean'} {means.response}"
