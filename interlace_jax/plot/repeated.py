"""Plots of repeated measurements: correlations by distance in time, and SDs by visit."""

from __future__ import annotations

import pandas as pd
import plotnine as p9

from ..result import Fit
from .data import in_order
from .repeated_data import correlations_by_lag, sds_by_visit
from .style import BLUE, GREY, ORANGE, _check, _theme

LEGEND = "Points: data; orange: model; grey: 95% of data simulated from it"


def correlation_by_lag(fit: Fit, seed: int = 0) -> p9.ggplot:
    """Correlations of the rows of one subject by how far apart they are, of the data and of the
    model.

    Both are of the response around its mean, so that random effects count too. Points far from the
    line, outside of the band, speak for another structure. seed: of the simulations.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> residual = "ar1(Days | Subject)"
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 | Subject)", sleep, residual=residual)
    >>> picture = plot.correlation_by_lag(fit)
    """
    _check(fit, Fit)
    table = correlations_by_lag(fit, seed)
    time = ", ".join(fit.design.residual.residual.time)
    lags = table["lag"].unique()
    whole = {"breaks": lags} if len(lags) <= 10 and not (lags % 1).any() else {}
    return (
        _drawn(table, p9.aes("lag", "correlation"), p9.aes("lag", "model", group=1))
        + p9.scale_x_continuous(**whole)
        + p9.geom_hline(yintercept=0, color=GREY, size=0.4, linetype="dashed")
        + p9.labs(
            x=f"distance in {time}",
            y=f"correlation of {fit.design.response}",
            title=f"Correlation within {fit.design.residual.residual.subject}",
            subtitle=LEGEND,
        )
    )


def sd_by_visit(fit: Fit, seed: int = 0) -> p9.ggplot:
    """Standard deviations of the response around its mean by visit, of the data and of the model.

    seed: of the simulations.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> residual = "ar1(Days | Subject)"
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 | Subject)", sleep, residual=residual)
    >>> picture = plot.sd_by_visit(fit)
    """
    _check(fit, Fit)
    table = sds_by_visit(fit, seed)
    table["visit"] = in_order(table["visit"])
    return (
        _drawn(table, p9.aes("visit", "sd"), p9.aes("visit", "model", group=1))
        + p9.scale_y_continuous(limits=(0, None))
        + p9.labs(
            x=fit.design.residual.residual.time[0],
            y=f"SD of {fit.design.response}",
            title="Standard deviation by visit",
            subtitle=LEGEND,
        )
    )


def _drawn(table: pd.DataFrame, data: p9.aes, model: p9.aes) -> p9.ggplot:
    groups = table["group"].nunique()
    picture = (
        p9.ggplot(table, data)
        + p9.geom_ribbon(p9.aes(ymin="lower", ymax="upper", group=1), fill=GREY, alpha=0.3)
        + p9.geom_line(model, color=ORANGE, size=1.0)
        + p9.geom_point(color=BLUE, size=2.0)
        + _theme(2.5 + 2.8 * min(groups, 3), 3.6)
    )
    return picture + p9.facet_wrap("group") if groups > 1 else picture
