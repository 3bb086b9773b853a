"""Outlines of regions on a grid, and maps of sensors over a head: coordinates for the plots of
maps.
"""

from __future__ import annotations

import contourpy
import numpy as np
import pandas as pd
import scipy

FINE = 70  # points along a side of the map of a head
RIM = 0.92  # where the outermost sensor lies; the head has radius 1


def centres_to_edges(centres: np.ndarray) -> np.ndarray:
    """Edges (m + 1,) of cells around increasing centres (m,)."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    between = (centres[1:] + centres[:-1]) / 2.0
    return np.r_[2.0 * centres[0] - between[0], between, 2.0 * centres[-1] - between[-1]]


def outlines(region: np.ndarray, x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """Segments `x y xend yend` between cells of different regions.

    region (rows, columns): the number of each cell's region, -1 for none. x (columns + 1,), y
    (rows + 1,): edges of the cells.
    """
    padded = np.pad(region, 1, constant_values=-1)
    i, j = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = pd.DataFrame(dict(x=x[j], y=y[i], xend=x[j], yend=y[i + 1]))
    i, j = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = pd.DataFrame(dict(x=x[j], y=y[i], xend=x[j + 1], yend=y[i]))
    return pd.concat([upright, level], ignore_index=True)


def on_a_head(places: np.ndarray) -> np.ndarray:
    """Places of sensors (m, 2) seen from above, moved and scaled into a head of radius 1."""
    centred = places - (places.max(0) + places.min(0)) / 2.0
    return RIM * centred / np.hypot(*centred.T).max()


def surface(places: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Values (m,) of sensors interpolated over a head by a thin-plate spline: `x y value`."""
    x, y, found = _interpolated(places, values)
    inside = np.hypot(x, y) <= 1.0
    return pd.DataFrame(dict(x=x[inside], y=y[inside], value=found[inside]))


def border(places: np.ndarray, members: np.ndarray) -> pd.DataFrame:
    """Lines `x y line` around the sensors of a region, halfway to the others; members (m,) bool."""
    if not members.any():
        return pd.DataFrame(dict(x=[], y=[], line=[]))
    x, y, found = _interpolated(places, members.astype(float))
    found = np.where(np.hypot(x, y) <= 1.0, found, 0.0)
    lines = contourpy.contour_generator(x, y, found).lines(0.5)
    parts = [pd.DataFrame(line, columns=["x", "y"]).assign(line=k) for k, line in enumerate(lines)]
    return pd.concat(parts, ignore_index=True)


def _interpolated(places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    x, y = np.meshgrid(*2 * [np.linspace(-1.0, 1.0, FINE)])
    spline = scipy.interpolate.RBFInterpolator(places, values)
    return x, y, spline(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
