"""Maps of several methods over pictures, side by side: red speaks for, blue against."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from horinsight.figures.style import DIVERGING, POSITIVE, bare, light_grey, mark_cell, provenance_lines
from horinsight.results import Provenance

PANEL_INCHES = 1.35
GAP_INCHES = 0.08
LABEL_INCHES = 0.34  # title above and numbers below a panel
TOP_INCHES, BOTTOM_INCHES = 0.44, 0.46  # title and key above, two lines of provenance below
MIN_WIDTH_INCHES = 5.2
MAX_COLUMNS = 6
PALEST = 0.25  # where the colours of maps start that are never negative
OPACITY = 0.9  # of the strongest
FULL = 99.5  # percentile of |value| that has the full colour: single pixels do not pale the others
MAX_LETTERS = 26


def draw_attribution_maps(
    maps: Mapping[str, np.ndarray],
    pictures: np.ndarray,
    *,
    title: str,
    names: Sequence[str] | None = None,
    query: tuple[int, int] | None = None,
    query_grid: tuple[int, int] | None = None,
    provenance: Provenance | None = None,
    remark: str = "",
) -> Figure:
    """A row of panels per picture: the picture, then the map of each method over it.

    Each map has limits of its own: symmetrical where it has negative values, else from its least one; below it stand
    its least and largest value. Colour and opacity are full at the 99.5th percentile.

    Args:
        maps: method → (images, rows, columns) on the grid of the picture or a coarser one; at least one.
        pictures: (images, height, width, 3) uint8, as the model sees them.
        title: what is explained.
        names: of the pictures.
        query: a position that is explained, marked in every panel.
        query_grid: rows and columns of its map.
        provenance: of model and weights.
        remark: along the bottom.

    Returns:
        A figure of its own (not pyplot's).

    Raises:
        ValueError: no map, or maps of another number of pictures.
    """
    if not maps:
        raise ValueError("draw_attribution_maps expects the map of at least one method.")
    for name, values in maps.items():
        if values.ndim != 3 or len(values) != len(pictures):
            raise ValueError(
                f"draw_attribution_maps expects maps ({len(pictures)}, rows, columns), got {values.shape} of {name}."
            )
    num_columns = min(MAX_COLUMNS, len(maps) + 1)
    rows_each = ceil((len(maps) + 1) / num_columns)
    shown = PANEL_INCHES * pictures.shape[1] / pictures.shape[2]
    width = max((PANEL_INCHES + GAP_INCHES) * num_columns + 0.1, MIN_WIDTH_INCHES)
    height = (shown + LABEL_INCHES) * rows_each * len(pictures) + TOP_INCHES + BOTTOM_INCHES
    figure = Figure(figsize=(width, height))
    for image, picture in enumerate(pictures):
        for panel, name in enumerate(["", *maps]):
            row, column = divmod(panel, num_columns)
            top = TOP_INCHES + (image * rows_each + row) * (shown + LABEL_INCHES) + 0.15
            left = 0.1 + column * (PANEL_INCHES + GAP_INCHES)
            axes = figure.add_axes((left / width, 1 - (top + shown) / height, PANEL_INCHES / width, shown / height))
            extent = (0, picture.shape[1], picture.shape[0], 0)
            if name:
                _draw_map(axes, maps[name][image], picture, extent)
            else:
                axes.imshow(picture, extent=extent)
                axes.set_xlabel(_called(names[image]) if names else "", fontsize=6, labelpad=2)
            axes.set_title(name.replace("_", " ")[:MAX_LETTERS] or "picture", fontsize=6.5, pad=2)
            if query is not None and query_grid is not None:
                cell = (picture.shape[0] / query_grid[0], picture.shape[1] / query_grid[1])
                mark_cell(axes, *query, *cell)
            axes.set_xlim(extent[0], extent[1])
            axes.set_ylim(extent[2], extent[3])
            bare(axes)
    figure.text(0.1 / width, 1 - 0.06 / height, title, fontsize=8, va="top", fontweight="bold")
    key = "red speaks for, blue against; limits of its own for each map, its least and largest value below"
    figure.text(0.1 / width, 1 - 0.24 / height, key, fontsize=6.5, va="top", color="0.3")
    provenance_lines(figure, provenance, remark)
    return figure


def _called(name: str) -> str:
    return str(name).split(" (")[0].rsplit("/", 1)[-1]


def map_over_picture(values: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """A map over a picture, as `draw_attribution_maps` shows it: (height, width, 3) uint8.

    Args:
        values: (rows, columns), on the picture's grid or a coarser one.
        picture: (height, width, 3) uint8.
    """
    colours = _colours(values)
    rows, columns = (
        np.minimum(np.arange(pixels) * cells // pixels, cells - 1)
        for pixels, cells in zip(picture.shape[:2], values.shape, strict=True)
    )
    over = colours[rows[:, None], columns]
    below = light_grey(picture)[..., :3].astype(np.float64)
    below = below / 255 if below.max() > 1 else below
    mixed = below * (1 - over[..., 3:]) + over[..., :3] * over[..., 3:]
    pixels: np.ndarray = (255 * np.clip(mixed, 0, 1)).round().astype(np.uint8)
    return pixels


def _colours(values: np.ndarray) -> np.ndarray:
    """(rows, columns, 4), the colour of each value and how much it covers."""
    signed = bool((values < 0).any())
    size = np.abs(values) if signed else values - values.min()
    full = float(np.percentile(size, FULL)) or float(size.max()) or 1.0
    strength = np.clip(size / full, 0, 1)
    shown = (np.clip(values / full, -1, 1) + 1) / 2 if signed else PALEST + (1 - PALEST) * strength
    colours: np.ndarray = colormaps[DIVERGING if signed else POSITIVE](shown)
    colours[..., 3] = OPACITY * strength
    return colours


def _draw_map(axes: Axes, values: np.ndarray, picture: np.ndarray, extent: tuple[int, int, int, int]) -> None:
    axes.imshow(light_grey(picture), extent=extent)
    axes.imshow(_colours(values), extent=extent, interpolation="nearest")
    least, largest = float(values.min()), float(values.max())
    axes.set_xlabel(f"{least:.2g} to {largest:.2g}" if values.any() else "zero everywhere", fontsize=6, labelpad=2)
