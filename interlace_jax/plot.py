"""Plots by plotnine: every function returns a ggplot, to which the user can add.

Import it as `from interlace_jax import plot`; it needs plotnine, an optional dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from . import plot_data
from .emmeans import MarginalMeans
from .errors import check_level, listed, one_of
from .many import Many
from .result import Fit

try:
    import plotnine as p9
    from mizani.breaks import breaks_extended
except ImportError as err:
    raise ImportError("interlace_jax.plot needs plotnine: pip install 'interlace_jax[plot]'") from err

NAMED = 60  # levels up to which their names are shown
DRAWN = 10_000  # points that a picture can show
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#9A9A9A", "#222222"  # Okabe & Ito's, apart for all kinds of eyes
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)

TAKEN = {
    Fit: "a fit, as interlace_jax.fit(...) gives it",
    Many: "many fits, as interlace_jax.fit_many(...) gives them",
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


# Random effects ------------------------------------------------------------------------------------------------------


def caterpillar(fit: Fit, factor: str | None = None, level: float = 0.95) -> p9.ggplot:
    """Random effects of one factor with their intervals, ordered, a panel a column.

    factor: a name of `fit.ngroups`, by default the first. Intervals are those of `random_effects_ci`; effects whose
    interval excludes 0 are darker.
    """
    _check(fit, Fit)
    g = plot_data.place(fit, factor)
    table = plot_data.effects(fit, g, level)
    table["clear"] = np.where((table["lower"] > 0) | (table["upper"] < 0), "yes", "no")
    f, m = fit.model.design.factors[g], len(fit.model.design.factors[g].levels)
    return (
        p9.ggplot(table, p9.aes("estimate", "key", color="clear"))
        + p9.geom_vline(xintercept=0, color=GREY, size=0.5)
        + p9.geom_segment(p9.aes(x="lower", xend="upper", yend="key"), size=0.9 if m <= NAMED else 0.25)
        + (p9.geom_point(size=1.8) if m <= NAMED else p9.geom_point(size=0.3, color=INK, stroke=0))
        + p9.facet_wrap("panel", scales="free", nrow=1)
        + p9.scale_color_manual({"yes": BLUE, "no": GREY}, guide=None)
        + p9.labs(
            x=f"difference from the average, with {level:.0%} interval",
            y=_level_axis(f.name, m),
            title=f"Random effects of {f.name}, ordered",
            subtitle=f"Blue: the {level:.0%} interval excludes 0",
        )
        + _theme(1.0 + 3.0 * max(len(f.columns), 1.5), _height(m))
        + _level_names(m)
    )


def shrinkage(fit: Fit, factor: str | None = None, terms: Sequence[str] | None = None) -> p9.ggplot:
    """Where each group's own least-squares estimates move to in the mixed model: arrows from the former to the latter.

    factor: as in `caterpillar`. terms: one or two random-effects columns of the factor, by default the first two; with
    one the groups stand below each other. Coefficients include the fixed effect of the same name; other effects are as
    in the fit. Groups whose rows do not determine their own estimates are left out.
    """
    _check(fit, Fit)
    g = plot_data.place(fit, factor)
    f = fit.model.design.factors[g]
    chosen = list(f.columns[:2] if terms is None else [terms] if isinstance(terms, str) else terms)
    if not 1 <= len(chosen) <= 2 or not set(chosen) <= set(f.columns):
        raise ValueError(f"terms must be one or two of {listed(f.columns)}, not {terms!r}")
    at = [f.columns.index(name) for name in chosen]
    own, shrunk, centre = plot_data.own_and_shrunk(fit, g)
    known = np.isfinite(own).all(1)
    columns = {f"{kind}{i}": values[known, j] for kind, values in (("a", own), ("b", shrunk)) for i, j in enumerate(at)}
    table = pd.DataFrame(columns | {"level": f.levels[known].astype(str)})
    left_out = f"; left out as too small for an own estimate: {(~known).sum()}" if not known.all() else ""
    words = p9.labs(
        title=f"Shrinkage of {f.name}",
        subtitle=f"From least squares in each group alone to the mixed model{left_out}",
    )
    names = [plot_data.label(fit, f, name) for name in chosen]
    draw = _arrows if len(at) == 2 else _dumbbells if len(table) <= NAMED else _against_own
    return draw(table, names, f.name, centre[at]) + words


def _arrows(table: pd.DataFrame, names: list[str], _: str, centre: np.ndarray) -> p9.ggplot:
    few = len(table) <= NAMED
    average = pd.DataFrame({"a0": [centre[0]], "a1": [centre[1]]})
    return (
        p9.ggplot(table, p9.aes("a0", "a1"))
        + p9.geom_point(color=GREY, size=1.8 if few else 0.8, stroke=0.5 if few else 0)
        + p9.geom_segment(
            p9.aes(xend="b0", yend="b1"),
            color=BLUE,
            alpha=0.8 if few else 0.15,
            size=0.5,
            arrow=p9.arrow(length=0.06, type="closed") if few else None,
        )
        + ([] if few else p9.geom_point(p9.aes("b0", "b1"), color=BLUE, size=0.8, stroke=0))
        + p9.geom_point(data=average, shape="+", size=6, stroke=1.2, color=ORANGE)
        + p9.labs(x=names[0], y=names[1], caption="Grey: alone; blue: mixed model; orange cross: the average group")
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
        + p9.labs(x=names[0], y=factor, caption="Grey: alone; blue: mixed model; orange line: the average group")
        + _theme(6.0, _height(len(table)))
        + _level_names(len(table))
    )


def _against_own(table: pd.DataFrame, names: list[str], factor: str, centre: np.ndarray) -> p9.ggplot:
    """One estimate of very many groups: the mixed model's against the group's own."""
    return (
        p9.ggplot(table, p9.aes("a0", "b0"))
        + p9.geom_abline(slope=1, intercept=0, color=GREY, linetype="dashed", size=0.5)
        + p9.geom_hline(yintercept=centre[0], color=ORANGE, size=0.5)
        + p9.geom_point(color=BLUE, size=1.0, alpha=0.5, stroke=0)
        + p9.labs(
            x=f"{names[0]}, least squares in the group alone",
            y=f"{names[0]}, mixed model",
            caption=f"{len(table):,} levels of {factor}; dashed: no shrinkage; orange line: the average group",
        )
        + _theme(6.0, 4.5)
    )


def fitted_lines(
    fit: Fit, x: str | None = None, factor: str | None = None, groups: Sequence[Any] | None = None, most: int = 30
) -> p9.ggplot:
    """The data of each group with its fitted line, and that of the average group, as small multiples.

    x: the predictor, by default the first with a random slope, else the first of the fixed part. factor: as in
    `caterpillar`. groups: levels to show; by default all, or `most` of them spread evenly over the levels as ordered by
    their first random effect. Other predictors are held at each group's middle (or most frequent) value, other random
    effects at 0.
    """
    _check(fit, Fit)
    g = plot_data.place(fit, factor)
    f, frame = fit.model.design.factors[g], plot_data.used_data(fit)
    x = plot_data.predictor(fit, g, frame, x)
    shown = plot_data.shown_levels(fit, g, groups, most)
    data, curves = plot_data.lines(fit, g, frame, x, shown)
    sampled = f"{len(shown)} of {len(f.levels):,} levels" if len(shown) < len(f.levels) else f"all {len(shown)} levels"
    columns = _columns(len(shown))
    return (
        p9.ggplot(data, p9.aes("x", "y"))
        + p9.geom_point(color=INK, size=1.2, alpha=0.6)
        + p9.geom_line(p9.aes(y="average", group="group"), curves, color=ORANGE, linetype="dashed", size=0.6)
        + p9.geom_line(p9.aes(y="fitted", group="group"), curves, color=BLUE, size=0.9)
        + p9.facet_wrap("group", ncol=columns)
        + p9.labs(
            x=x,
            y=fit.model.design.response,
            title=f"Data and fitted lines, {sampled} of {f.name}",
            subtitle="Blue: the group's own line; dashed: the average group",
        )
        + _theme(max(1.3 * columns, 6.0), 1.0 + 1.25 * np.ceil(len(shown) / columns))
        + p9.theme(strip_text=p9.element_text(size=8), panel_spacing=0.01)
        + (
            p9.scale_x_continuous(breaks=breaks_extended(4))
            if data["x"].dtype == float
            else p9.theme(axis_text_x=p9.element_text(rotation=45, ha="right"))
        )
    )


def _columns(panels: int) -> int:
    """Of small multiples: wider than high, with as few empty places as can be."""
    wanted = int(np.ceil(np.sqrt(1.2 * panels)))
    return min(range(wanted, wanted + 3), key=lambda c: -panels % c) if panels > 3 else panels


# Residuals and checks ------------------------------------------------------------------------------------------------


def residuals(fit: Fit) -> p9.ggplot:
    """Residuals against fitted values, with a local average: without a bend if the model has the mean right.

    A slight rise is no trouble: shrinkage leaves a part of the random effects in the residuals. Of very many rows a
    random sample is drawn as points; the average is that of all.
    """
    _check(fit, Fit)
    design, x, y = fit.model.design, fit.fittedvalues.to_numpy(), fit.residuals("pearson").to_numpy()
    line, points = plot_data.smooth(x, y), pd.DataFrame({"x": x, "y": y})
    points = points.sample(min(DRAWN, len(x)), random_state=0).sort_index()
    n, weighted = len(points), "" if design.weights is None else " x sqrt(weight)"
    return (
        p9.ggplot(points, p9.aes("x", "y"))
        + p9.geom_hline(yintercept=0, color=GREY, size=0.5)
        + p9.geom_point(color=INK, size=1.5 if n <= 1000 else 0.9, alpha=min(0.6, max(0.15, 1000 / n)), stroke=0)
        + p9.geom_line(data=line, color=ORANGE, size=1.0)
        + p9.labs(
            x=f"fitted {design.response}",
            y=f"residual of {design.response}{weighted}",
            title=f"Residuals against fitted values, {f'{n:,} of ' * (n < len(x))}{len(x):,} rows",
            subtitle="Orange: local average",
        )
        + _theme(6.0, 4.0)
    )


def qq(fit: Fit, level: float = 0.95) -> p9.ggplot:
    """Quantiles of residuals and random effects against normal ones, a panel each, with pointwise bands.

    Residuals are in units of their own SD, random effects in units of what their predictions vary by under the model.
    """
    _check(fit, Fit)
    check_level(level)
    table = plot_data.quantiles(fit, level)
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

    table: `fit.influence(...)`. measure: a column, by default the first. label: how many names to write. Orange values
    lie more than three interquartile ranges outside the quartiles.
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
    base = 1.0 if measure == "covratio" else 0.0  # what a row without influence has
    draw = _named_influence if len(points) <= NAMED else _indexed_influence
    return (
        draw(points, base, measure, what, label)
        + p9.scale_color_manual({"yes": ORANGE, "no": BLUE}, guide=None)
        + p9.labs(
            title=f"Influence of each {what}: {measure}",
            subtitle="Orange: more than three interquartile ranges beyond the quartiles",
        )
    )


def _named_influence(points: pd.DataFrame, base: float, measure: str, what: str, _: int) -> p9.ggplot:
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


def _indexed_influence(points: pd.DataFrame, base: float, measure: str, what: str, label: int) -> p9.ggplot:
    points = points.assign(at=np.arange(1, len(points) + 1))
    named = _apart(points[points["rank"] <= label].sort_values("rank"), points, "at", "value")
    step = 0.03 * np.ptp(points["value"])
    named = named.assign(y=named["value"] + np.where(named["value"] >= base, step, -step))
    return (
        p9.ggplot(points, p9.aes("at", "value", color="outside"))
        + p9.geom_hline(yintercept=base, color=GREY, size=0.5)
        + p9.geom_segment(p9.aes(xend="at", y=base, yend="value"), size=0.3, alpha=0.5)
        + p9.geom_point(size=1.0, stroke=0)
        + p9.geom_text(p9.aes(y="y", label="name"), named, size=7, color=INK)
        + p9.scale_x_continuous(expand=(0.04, 0))
        + p9.scale_y_continuous(expand=(0.06, 0))
        + p9.labs(x=f"{what}, in order", y=measure)
        + _theme(7.0, 4.0)
    )


# Parameters ----------------------------------------------------------------------------------------------------------


def profile(fit: Fit | pd.DataFrame, level: float = 0.95) -> p9.ggplot:
    """Signed roots of the profile deviance, a panel a parameter: a straight line means that Wald intervals are right.

    fit: a fit, or the frame of its `profile()`. The marks are the ends of the interval of that `level`.
    """
    check_level(level)
    z = special.ndtri(0.5 + level / 2)
    curves = plot_data.curves(_profile(fit))
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
            subtitle=f"Orange: ends of the {level:.0%} intervals; dashed: what Wald intervals assume",
        )
        + _panels(len(curves))
    )


def _profile(fit: Fit | pd.DataFrame) -> pd.DataFrame:
    if isinstance(fit, pd.DataFrame) and {"parameter", "value", "zeta"} <= set(fit):
        return fit
    _check(fit, Fit)
    return fit.profile()


def density(fit: Fit | pd.DataFrame) -> p9.ggplot:
    """Densities that the profiles imply, a panel a parameter: normal density of zeta times its slope.

    fit: as in `profile`.
    """
    curves = plot_data.curves(_profile(fit))
    line = pd.concat(c.density for c in curves)
    return (
        p9.ggplot(line, p9.aes("value", "density"))
        + p9.geom_area(fill=BLUE, alpha=0.2)
        + p9.geom_line(color=BLUE, size=0.9)
        + p9.facet_wrap("parameter", scales="free", ncol=3, labeller=_broken)
        + p9.labs(x="value of the parameter", y="profile density", title="Profile densities of the parameters")
        + _panels(len(curves))
    )


def variance_components(fit: Fit) -> p9.ggplot:
    """Standard deviations and correlations of the random effects with their 95% Wald intervals, as in `varcorr`.

    Standard deviations of the same unit share a panel. What is at the boundary has no interval.
    """
    _check(fit, Fit)
    shown = plot_data.components(fit)
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

    means: what `interlace_jax.emmeans` returns. The last of its variables is on the x axis, the one before it is the
    colour, those before make panels.
    """
    _check(means, MarginalMeans)
    table, names = means.frame, [*means.by, *means.specs]
    table = table.assign(**{name: table[name].map(str) for name in names[:-1]}, all="all")
    *panels, x = names or ["all"]
    table[x] = plot_data.names_of(table[x])
    colour = panels.pop() if panels else None
    numeric = table[x].dtype == float
    dodge = p9.position_dodge(0.0 if numeric or not colour else 0.5)
    look = {} if colour else {"color": BLUE}
    groups = {"color": colour, "group": colour} if colour else {"group": 1}
    return (
        p9.ggplot(table, p9.aes(x, "emmean", **groups))
        + ([p9.geom_line(size=0.8, na_rm=True, **look)] if numeric else [])
        + p9.geom_pointrange(p9.aes(ymin="lower", ymax="upper"), position=dodge, size=0.5, na_rm=True, **look)
        + ([p9.scale_color_manual(COLOURS)] if colour else [])
        + ([p9.facet_wrap(panels)] if panels else [])
        + p9.labs(
            y=f"mean {means.response}, with {means.level:.0%} interval",
            title=f"Marginal means{' by ' * bool(names)}{' and '.join(reversed(names))}",
        )
        + _theme(6.0, 4.0)
    )


# Many models ---------------------------------------------------------------------------------------------------------


def volcano(many: Many, coefficient: str, alpha: float = 0.05, label: int = 8) -> p9.ggplot:
    """Estimates of one coefficient against their p-values, a point a model; the smallest p-values are named.

    alpha: false discovery rate (Benjamini & Hochberg) at which a model is coloured.
    """
    _check(many, Many)
    _check_coefficient(many, coefficient)
    p = many.fe_pvalues[coefficient]
    found = many.adjusted_pvalues("bh")[coefficient] <= alpha
    table = pd.DataFrame({"x": many.fe_params[coefficient], "p": np.maximum(p, 1e-300), "found": found}).dropna()
    table = table.assign(name=table.index.map(str), y=-np.log10(table["p"]))
    table["found"] = np.where(table["found"], "yes", "no")
    named = _apart(table[table["found"] == "yes"].nsmallest(label, "p"), table, "x", "y")
    threshold = table.loc[table["found"] == "yes", "y"].min()
    line = [] if np.isnan(threshold) else p9.geom_hline(yintercept=threshold, color=GREY, linetype="dashed")
    n = len(table)
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_vline(xintercept=0, color=GREY, size=0.5)
        + line
        + p9.geom_point(p9.aes(color="found"), size=2.0 if n <= 500 else 1.3, alpha=0.7, stroke=0)
        + p9.geom_text(p9.aes(label="name"), named, size=7, va="bottom", nudge_y=0.015 * np.ptp(table["y"]))
        + p9.scale_color_manual({"yes": ORANGE, "no": GREY}, guide=None)
        + p9.scale_y_continuous(labels=_powers, expand=(0.06, 0))
        + p9.scale_x_continuous(expand=(0.08, 0))
        + p9.labs(
            x=f"estimate of {coefficient}",
            y="p-value",
            title=f"{coefficient} in {n:,} models",
            subtitle=f"Orange: {sum(table['found'] == 'yes'):,} models at a false discovery rate of {alpha:.0%}",
        )
        + _theme(6.0, 4.5)
    )


def _powers(values: Sequence[float]) -> list[str]:
    return [f"{10.0**-v:.2g}" for v in values]


def heatmap(
    many: Many, coefficient: str | None = None, where: pd.DataFrame | None = None, alpha: float = 0.05
) -> p9.ggplot:
    """The t values of many models as colours; dots mark those at a false discovery rate of `alpha`.

    coefficient: one of them; by default all but the intercept, models by coefficients. where: for one coefficient, a
    frame with a row for each model and two columns, the place of the model on the x and y axes (time and electrode).
    """
    _check(many, Many)
    if coefficient is not None:
        _check_coefficient(many, coefficient)
    t, adjusted = many.fe_tvalues, many.adjusted_pvalues("bh")
    if where is None:
        kept = [coefficient] if coefficient else [name for name in t if name != "Intercept"] or list(t)
        at = pd.DataFrame({"x": np.repeat(kept, len(t)), "y": np.tile(t.index.map(str), len(kept))})
        axes, order = ("", "model"), list(t.index.map(str))
        at = at.assign(x=pd.Categorical(at["x"], kept), y=pd.Categorical(at["y"], order[::-1]))
        width = min(2.5 + 0.8 * len(kept), 8.0)
        values, p = (table[kept].to_numpy().T.ravel() for table in (t, adjusted))
    else:
        if coefficient is None or len(where) != len(t) or where.shape[1] != 2:
            raise ValueError(f"where= needs a coefficient, one of {listed(t)}, and two columns with {len(t)} rows")
        axes = tuple(map(str, where.columns))
        x, y = (plot_data.names_of(where.iloc[:, i]).reset_index(drop=True) for i in range(2))
        y = y if y.dtype == float else y.cat.reorder_categories(y.cat.categories[::-1])
        at, width = pd.DataFrame({"x": x, "y": y}), 6.5
        values, p = t[coefficient].to_numpy(), adjusted[coefficient].to_numpy()
    table = at.assign(t=values, found=p <= alpha)
    largest, rows = float(np.nanmax(np.abs(values))), table["y"].nunique()
    return (
        p9.ggplot(table, p9.aes("x", "y"))
        + p9.geom_tile(p9.aes(fill="t"))
        + p9.geom_point(data=table[table["found"]], size=1.0 if rows <= NAMED else 0.5, color=INK, stroke=0)
        + p9.scale_fill_gradient2(
            low=BLUE, mid="#F7F7F7", high=ORANGE, limits=(-largest, largest), na_value="#CCCCCC", name="t"
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


# Pieces of plots -----------------------------------------------------------------------------------------------------


def _apart(named: pd.DataFrame, points: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Those of the named points, the first of them first, whose names do not run into each other."""
    place = np.column_stack([named[x] / max(np.ptp(points[x]), 1e-300), named[y] / max(np.ptp(points[y]), 1e-300)])
    kept: list[int] = []
    for i, at in enumerate(place):
        if not any(abs(at[0] - place[j, 0]) < 0.12 and abs(at[1] - place[j, 1]) < 0.04 for j in kept):
            kept.append(i)
    return named.iloc[kept]


def _broken(name: str) -> str:
    """A long name of a parameter in lines."""
    return name if len(name) <= 24 else name.replace(".(", "\n.(").replace("|", "\n|", ".(" not in name)


def _level_axis(name: str, m: int) -> str:
    return name if m <= NAMED else f"{m:,} levels of {name}"


def _level_names(m: int) -> Any:
    """The names of levels beside an axis, as long as they can be read."""
    names: Callable = lambda keys: [str(key).rpartition("\t")[2] for key in keys]  # noqa: E731
    if m <= NAMED:
        return [p9.scale_y_discrete(labels=names), p9.theme(axis_text_y=p9.element_text(size=7 if m > 25 else 8))]
    hidden = p9.theme(axis_text_y=p9.element_blank(), axis_ticks_major_y=p9.element_blank())
    return [hidden, p9.theme(panel_grid_major_y=p9.element_blank())]


def _height(m: int) -> float:
    """Inches for a row a level."""
    return 1.3 + 0.16 * max(m, 8) if m <= NAMED else 6.0


def _panels(count: int) -> p9.theme:
    size = p9.theme(strip_text=p9.element_text(size=8))
    return _theme(1.0 + 2.5 * min(count, 3), 1.2 + 2.0 * np.ceil(count / 3)) + size
