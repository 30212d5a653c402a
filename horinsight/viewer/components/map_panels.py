"""How a map looks in the browser: its colours, its limits, and the words beside it."""

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import streamlit as st

from horinsight.figures.mixing_maps import covered_cells, map_limits

SIGNED_COLOURS = ("RdBu_r", "PuOr_r", "BrBG_r")
POSITIVE_COLOURS = "viridis"
UNIFORM = 0.5  # (largest - least) / mean below which a map without negative values is nearly uniform
SCALE = '<div class="scale {kind}"><span class="low"></span><canvas></canvas><span class="high"></span></div>'
SCALES = SCALE.format(kind="signed") + SCALE.format(kind="positive")


@dataclass(frozen=True)
class Display:
    """How maps look.

    Attributes:
        colour_map: a diverging one, for maps with negative values; the others are viridis.
        opacity: of the maps over the picture, which is seen where a map is 0 and the less of it where it is not.
        one_scale: the same limits for all blocks.
        smooth: interpolate between cells.
        grey: show the picture light and grey.
        tables: the stamp of those that `followed` sends for the maps, which then follow a pointer.
    """

    colour_map: str = SIGNED_COLOURS[0]
    opacity: float = 1.0
    one_scale: bool = False
    smooth: bool = False
    grey: bool = True
    tables: str = ""


@dataclass(frozen=True)
class MapScale:
    """What the colours of a map stand for.

    Attributes:
        low: value of the first colour.
        high: of the last.
        note: the limits in words that cannot be taken for an error bar.
        uniform: whether the map has hardly any structure, and the colours begin at 0 so that it shows none.
    """

    low: float
    high: float
    note: str
    uniform: bool = False


@st.cache_data(show_spinner=False)
def colours(name: str) -> list[int]:
    """256 colours of a colour map, as red, green, blue from 0 to 255."""
    return (mpl.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(int).ravel().tolist()


def map_scale(values: np.ndarray) -> MapScale:
    """Symmetric around 0 where there are negative values, from least to most where not; from 0 where nearly uniform.

    Nearly uniform is a map without negative values whose largest exceeds its least by less than half of their mean.

    Example:
        >>> map_scale(np.array([4.7e-3, 5.2e-3, 5.6e-3]))
        MapScale(low=0.0, high=0.0056, note='nearly uniform, 4.7e-03 to 5.6e-03', uniform=True)
        >>> map_scale(np.array([0.0, 0.5, -0.25])).note, map_scale(np.array([0.0, 0.5, 0.25])).note
        ('max |h| 5.0e-01', '2.5e-01 to 5.0e-01')
    """
    seen = values[covered_cells(values)]
    if not seen.size:
        return MapScale(-1.0, 1.0, "all 0")
    if seen.min() < 0:
        low, high, _ = map_limits(values)
        return MapScale(low, high, f"max |h| {high:.1e}")
    low, high = float(seen.min()), float(seen.max())
    if high - low < UNIFORM * float(seen.mean()):
        note = f"{high:.1e}" if seen.size == 1 else f"nearly uniform, {low:.1e} to {high:.1e}"
        return MapScale(0.0, high, note, seen.size > 1)
    return MapScale(low, high, f"{low:.1e} to {high:.1e}")


def map_scales(maps: list[np.ndarray], *, one_scale: bool) -> list[MapScale]:
    """Of each map, or of all together."""
    if one_scale:
        return [map_scale(np.concatenate([values.ravel() for values in maps]))] * len(maps)
    return [map_scale(values) for values in maps]


def map_panel(title: str, name: str, values: np.ndarray, query: tuple[int, int], scale: MapScale) -> dict[str, Any]:
    """What the browser draws a map from.

    Args:
        title: above it.
        name: of the table of `tables_message` that says it for other queries.
        values: (rows, columns).
        query: (row, col) on it.
        scale: of its colours.
    """
    covered = covered_cells(values)
    return {
        "title": title,
        "name": name,
        "note": scale.note,
        "signed": scale.low < 0,
        "low": scale.low,
        "high": scale.high,
        "uniform": scale.uniform,
        "rows": values.shape[0],
        "cols": values.shape[1],
        "query": [int(part) for part in query],
        "values": [float(f"{value:.5g}") if on else None for value, on in zip(values.flat, covered.flat, strict=True)],
    }


def look(display: Display) -> dict[str, Any]:
    """What the browser needs to know of a display."""
    return {
        "colours": {"signed": colours(display.colour_map), "positive": colours(POSITIVE_COLOURS)},
        "opacity": display.opacity,
        "smooth": display.smooth,
        "oneScale": display.one_scale,
        "tables": display.tables,
        "grey": display.grey,
    }
