"""Plots of residuals, quantiles and influence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotnine as p9

from ..result import Fit
from ..support.arguments import check_level, listed
from .data import quantiles, smooth
from .generalized import covary, frequencies, independent_residuals, is_generalized, link_scale
from .style import (
    BLUE,
    DRAWN,
    GREY,
    INK,
    NAMED,
    ORANGE,
    _check,
    _fitting,
    _height,
    _level_names,
    _name_width,
    _shortened,
    _theme,
)

NAME = (0.18, 0.04)  # width and height of a name, in parts of the plot
MEASURES = {"cooksd": "Cook's distance"}


def residuals(fit: Fit) -> p9.ggplot:
    """Residuals against fitted values, with a local average: without a bend if the model has the
    mean right.

    Of generalised models quantile residuals, which are standard normal under the model, against the
    linear predictor. Where residuals covary the normalized ones, which the model has independent
    and of SD 1, against means without random effects. A slight rise is no trouble: shrinkage leaves
    a part of the random effects in the residuals. Of very many rows a random sample is drawn as
    points; the average is that of all.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.residuals(fit)
    """
    _check(fit, Fit)
    fit.model.engine.require("plots_of_rows")
    y, kind = independent_residuals(fit)
    x = _centre(fit).to_numpy()
    line, points = smooth(x, y), pd.DataFrame({"x": x, "y": y})
    points = points.sample(min(DRAWN, len(x)), random_state=0).sort_index()
    n, response = len(points), fit.design.response
    is_weighted = kind == "residual" and fit.design.weights is not None
    weighted = " x sqrt(weight)" if is_weighted else ""
    rows = f"{len(x):,} rows" if n == len(x) else f"{n:,} of {len(x):,} rows"
    size, alpha = 1.5 if n <= 1000 else 0.9, min(0.6, max(0.15, 1000 / n))
    return (
        p9.ggplot(points, p9.aes("x", "y"))
        + p9.geom_hline(yintercept=0, color=GREY, size=0.5)
        + p9.geom_point(color=INK, size=size, alpha=alpha, stroke=0)
        + p9.geom_line(data=line, color=ORANGE, size=1.0)
        + p9.labs(
            x=f"{'mean of' if covary(fit) else 'fitted'} {link_scale(fit)}",
            y=f"{kind} of {response}{weighted}",
            title=f"Residuals against fitted values, {rows}",
            subtitle="Orange: local average",
        )
        + _theme(6.0, 4.0)
    )


def _centre(fit: Fit) -> pd.Series:
    """What residuals are independent of under the model."""
    if is_generalized(fit):
        return fit.linear_predictor
    return fit.predict(include_re=False) if covary(fit) else fit.fittedvalues


def rootogram(fit: Fit, nsim: int = 250, level: float = 0.95, seed: int | None = 0) -> p9.ggplot:
    """How often each count occurs, hanging from how often the model expects it (Kleiber & Zeileis
    2016, Am. Stat. 70).

    Heights are square roots of frequencies. Bars that do not reach the line at 0 are counts of
    which there are too few, bars below it those of which there are too many: at 0, excess zeros.
    The expected frequencies and the band about 0, in which an end should be with probability
    `level`, are those of `nsim` responses simulated with new random effects. fit: of counts,
    successes out of trials too.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> picture = plot.rootogram(fit)
    """
    _check(fit, Fit)
    check_level(level)
    if not (is_generalized(fit) and fit.family.is_count):
        raise ValueError("a rootogram is for counts: fit(..., family='poisson') and the like")
    table = _hanging(frequencies(fit, nsim, level, seed))
    return (
        p9.ggplot(table, p9.aes("value"))
        + p9.geom_ribbon(p9.aes(ymin="low", ymax="high"), fill=ORANGE, alpha=0.25)
        + p9.geom_rect(
            p9.aes(xmin="left", xmax="right", ymin="bottom", ymax="expected"),
            fill=BLUE,
            alpha=0.45,
        )
        + p9.geom_hline(yintercept=0, color=INK, size=0.5)
        + p9.geom_line(p9.aes(y="expected"), color=ORANGE, size=0.9)
        + p9.geom_point(p9.aes(y="expected"), color=ORANGE, size=1.2)
        + p9.labs(
            x=f"{fit.design.response}{_bars(table)}",
            y="square root of the number of rows",
            title=f"Rootogram of {fit.design.response}, {fit.nobs:,} rows",
            subtitle=f"Orange: expected; about 0, where {level:.0%} of the ends would lie",
        )
        + _theme(6.5, 4.2)
    )


def _hanging(table: pd.DataFrame) -> pd.DataFrame:
    """Frequencies as bars that hang from the expected ones, on the scale of square roots."""
    width = table["last"].iloc[0] + 1.0
    value = table["first"] + 0.5 * (width - 1.0)
    expected, observed = np.sqrt(table["expected"]), np.sqrt(table["observed"])
    places = dict(value=value, left=value - 0.42 * width, right=value + 0.42 * width)
    ends = dict(expected=expected, bottom=expected - observed)
    band = dict(low=expected - np.sqrt(table["upper"]), high=expected - np.sqrt(table["lower"]))
    return table.assign(**places, **ends, **band)


def _bars(table: pd.DataFrame) -> str:
    """What the bars of a rootogram stand for, where they are not single values."""
    width, tail = int(table["last"].iloc[0]) + 1, table.iloc[-1]
    together = f", {width} values a bar" if width > 1 else ""
    if tail["last"] - tail["first"] >= width:
        return f"{together}, the last bar: {tail['first']:.0f} and more"
    return together


def qq(fit: Fit, level: float = 0.95) -> p9.ggplot:
    """Quantiles of residuals and random effects against normal ones, a panel each, with pointwise
    bands.

    Residuals are in units of their own SD (of generalised models quantile residuals, as they are),
    random effects in units of what their predictions vary by under the model. Of generalised models
    random effects are left out whose levels say little: they have the shape of the responses.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.qq(fit)
    """
    _check(fit, Fit)
    fit.model.engine.require("plots_of_rows")
    check_level(level)
    table = quantiles(fit, level)
    panels = table["panel"].nunique()
    size = np.where(table.groupby("panel", observed=True)["x"].transform("size") <= 1000, 1.4, 0.5)
    return (
        p9.ggplot(table.assign(size=size), p9.aes("x", "y"))
        + p9.geom_ribbon(p9.aes(ymin="lower", ymax="upper"), fill=GREY, alpha=0.3)
        + p9.geom_abline(slope=1, intercept=0, color=GREY, size=0.5)
        + p9.geom_point(p9.aes(size="size"), color=BLUE, stroke=0)
        + p9.scale_size_identity()
        + p9.facet_wrap("panel", scales="free", ncol=3)
        + p9.labs(
            x="normal quantile",
            y="observed quantile (standardised)",
            title="Are residuals and random effects normal?",
            subtitle=f"Grey: where {level:.0%} of normal values would lie, point by point",
        )
        + _theme(1.0 + 2.8 * max(min(panels, 3), 1.5), 0.8 + 2.8 * np.ceil(panels / 3))
    )


def influence(table: pd.DataFrame, measure: str | None = None, label: int = 5) -> p9.ggplot:
    """One measure of influence, a row each, with the largest named.

    table: `fit.influence(...)`. measure: a column, by default the first. label: how many names to
    write. Orange values lie more than three interquartile ranges outside the quartiles.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> picture = plot.influence(fit.influence("Subject"), "cooksd")
    """
    _check(table, pd.DataFrame)
    measures = list(table.select_dtypes("number"))
    measure = measures[0] if measure is None else measure
    if measure not in measures:
        raise ValueError(f"measure must be one of {listed(measures, 20)}, not {measure!r}")
    values = table[measure].dropna()
    low, centre, high = values.quantile([0.25, 0.5, 0.75])
    outside = (values > high + 3 * (high - low)) | (values < low - 3 * (high - low))
    points = pd.DataFrame(
        {
            "value": values.to_numpy(),
            "name": values.index.map(str),
            "outside": np.where(outside, "yes", "no"),
            "rank": (values - centre).abs().rank(ascending=False, method="first").to_numpy(),
        }
    )
    what = table.index.name or "observation"
    named = MEASURES.get(measure, measure)
    room = 6.0 - _name_width(points["name"]) - 0.6
    base = 1.0 if measure == "covratio" else 0.0  # what a row without influence has
    draw = _named_influence if len(points) <= NAMED else _indexed_influence
    return (
        draw(points, base, named, what, label)
        + p9.scale_color_manual({"yes": ORANGE, "no": BLUE}, guide=None)
        + p9.labs(
            title=_fitting(f"Influence of each {what}: {named}", room, 12),
            subtitle=_fitting(
                "Orange: more than three interquartile ranges beyond the quartiles", room
            ),
        )
    )


def _named_influence(
    points: pd.DataFrame, base: float, measure: str, what: str, _: int
) -> p9.ggplot:
    points = points.sort_values("value", ignore_index=True)
    keys = points.index.map(str) + "\t" + points["name"]  # names may repeat
    points["key"] = pd.Categorical(keys, keys)
    return (
        p9.ggplot(points, p9.aes("value", "key", color="outside"))
        + p9.geom_vline(xintercept=base, color=GREY, size=0.5)
        + p9.geom_segment(p9.aes(x=base, xend="value", yend="key"), size=0.5)
        + p9.geom_point(size=2)
        + p9.labs(x=measure, y=what)
        + _theme(6.0, _height(len(points)))
        + _level_names(len(points))
    )


def _indexed_influence(
    points: pd.DataFrame, base: float, measure: str, what: str, label: int
) -> p9.ggplot:
    points = points.assign(at=np.arange(1, len(points) + 1))
    named = _apart(points[points["rank"] <= label].sort_values("rank"), points, "at", "value")
    step = 0.03 * np.ptp(points["value"])
    above = named["value"] >= base
    named = named.assign(
        y=named["value"] + np.where(above, step, -step),
        name=_shortened(named["name"].tolist(), 8),
        side=np.where(named["at"] > 0.8 * len(points), "right", "left"),
    )
    return (
        p9.ggplot(points, p9.aes("at", "value", color="outside"))
        + p9.geom_hline(yintercept=base, color=GREY, size=0.5)
        + p9.geom_segment(p9.aes(xend="at", y=base, yend="value"), size=0.3, alpha=0.5)
        + p9.geom_point(size=1.0, stroke=0)
        + p9.geom_text(p9.aes(y="y", label="name", ha="side"), named, size=7, color=INK)
        + p9.scale_x_continuous(expand=(0.04, 0))
        + p9.scale_y_continuous(expand=(0.06, 0))
        + p9.labs(x=f"{what}, in order", y=measure)
        + _theme(7.0, 4.0)
    )


def _apart(named: pd.DataFrame, points: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The points whose names can be shown without overlap, chosen in the order given."""
    spans = [max(np.ptp(points[axis]), 1e-300) for axis in (x, y)]
    place = named[[x, y]].to_numpy(float) / spans
    kept: list[int] = []
    for i, at in enumerate(place):
        overlaps = np.abs(place[kept] - at) < NAME
        if not overlaps.all(axis=1).any():
            kept.append(i)
    return named.iloc[kept]
