"""Plots of parameters: profiles, bootstrap densities, variance components, marginal means."""

from __future__ import annotations

import pandas as pd
import plotnine as p9
from scipy import special

from ..inference.marginal_means import MarginalMeans
from ..result import Fit
from ..support.arguments import check_level
from . import data
from .data import components, names_of
from .many import _broken
from .style import BLUE, COLOURS, GREY, ORANGE, _check, _panels, _theme


def profile(fit: Fit | pd.DataFrame, level: float = 0.95) -> p9.ggplot:
    """Signed roots of the profile deviance, a panel a parameter: a straight line means that Wald intervals are right.

    fit: a fit, or the frame of its `profile()`. The marks are the ends of the interval of that `level`.
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
    curves = data.curves(_profile(fit))
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

    means: what `interlace_jax.emmeans` returns. The last of its variables is on the x axis, the one before it is the
    colour, those before make panels.
    """
    _check(means, MarginalMeans)
    table, names = means.frame, [*means.by, *means.specs]
    table = table.assign(**{name: table[name].map(str) for name in names[:-1]}, all="all")
    *panels, x = names or ["all"]
    table[x] = names_of(table[x])
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
