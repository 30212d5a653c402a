"""Influence over pictures, block by block: the effective receptive field with the radii that hold it."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from horinsight.figures.style import POSITIVE, bare, light_grey, mark_cell, provenance_lines
from horinsight.mixing.reach_results import SHARES, Reach

PANEL_INCHES = 1.25
LABEL_INCHES = 0.32  # title above and numbers below a panel
TOP_INCHES, BOTTOM_INCHES = 0.44, 0.46  # title and key above, two lines of provenance below
MIN_WIDTH_INCHES = 5.2
MAX_COLUMNS = 7
CIRCLES = ("-", "--", ":")  # of the shares, from the least
CIRCLE = "#1f5a99"
PALEST = 0.3  # where the colours start: what is weak fades by its opacity
OPACITY = 0.9  # of the strongest
MAX_LETTERS = 26  # of a panel's title
ROOT = 0.5  # exponent of the colours: fields fall off over orders of magnitude


def draw_reach_maps(
    reaches: Mapping[str, Reach],
    pictures: np.ndarray,
    *,
    titles: Mapping[str, str] | None = None,
    image_names: Sequence[str] | None = None,
) -> Figure:
    """A group of panels per picture and query: the picture, then I_ij of each block over it, with its three circles.

    Each map has its own limits, from 0 to its largest value; colour and opacity go by the root of I_ij. Circles around
    the middle of the query's cell hold 50, 90 and 99 % of Σ_j I_ij².

    Args:
        reaches: by block name, at least one, on the same pictures; of any scope.
        pictures: (images, height, width, 3) uint8, as the model sees them: those that are shown.
        titles: what to call each block; its name when None.
        image_names: of the pictures.

    Returns:
        A figure of its own (not pyplot's).

    Raises:
        ValueError: no block, or other pictures than the reach is of.
    """
    if not reaches:
        raise ValueError("draw_reach_maps expects the reach of at least one block.")
    first = next(iter(reaches.values()))
    num_pictures, num_queries = first.influence.squares.shape[:2]
    if len(pictures) != num_pictures:
        raise ValueError(f"draw_reach_maps expects {num_pictures} pictures, got {len(pictures)}.")
    entries = [(image, place) for image in range(num_pictures) for place in range(num_queries)]
    num_columns = min(MAX_COLUMNS, len(reaches) + 1)
    rows_each = ceil((len(reaches) + 1) / num_columns)
    panel_height = PANEL_INCHES * pictures.shape[1] / pictures.shape[2] + LABEL_INCHES
    panels_width = (PANEL_INCHES + 0.08) * num_columns + 0.1
    width = max(panels_width, MIN_WIDTH_INCHES)
    height = panel_height * rows_each * len(entries) + TOP_INCHES + BOTTOM_INCHES
    figure = Figure(figsize=(width, height))
    for number, (image, place) in enumerate(entries):
        for panel, name in enumerate(["", *reaches]):
            row, column = divmod(panel, num_columns)
            top = TOP_INCHES + (number * rows_each + row) * panel_height + 0.14
            left = 0.1 + column * (PANEL_INCHES + 0.08)
            shown = panel_height - LABEL_INCHES
            axes = figure.add_axes((left / width, 1 - (top + shown) / height, PANEL_INCHES / width, shown / height))
            if panel:
                _draw_field(axes, reaches[name], pictures[image], image, place)
                axes.set_title(_shortened((titles or {}).get(name, name)), fontsize=6, pad=2)
            else:
                _draw_picture(axes, first, pictures[image], place)
                called = f"{image_names[image]}".split(" (")[0].rsplit("/", 1)[-1] if image_names else "picture"
                axes.set_title(called, fontsize=6, pad=2)
    scope = {"image": "effective receptive field", "block": "influence within each block"}.get(
        first.convention.get("scope", ""), "influence within each mixer"
    )
    model = f"{first.provenance.model}: " if first.provenance else ""
    figure.text(0.1 / width, 1 - 0.06 / height, model + scope, fontsize=8, va="top", fontweight="bold")
    circles = ", ".join(
        f"{line} {100 * share:.0f} %" for line, share in zip(("solid", "dashed", "dotted"), SHARES, strict=True)
    )
    key = f"colours: root of I_ij, from 0 to its largest; circles hold of the sum of I_ij²: {circles}"
    figure.text(0.1 / width, 1 - 0.24 / height, key, fontsize=6.5, va="top", color="0.3")
    text = first.convention.get("estimator", "")
    provenance_lines(figure, first.provenance, f"below: radii of 50, 90, 99 % in pixels; {text}")
    return figure


def _shortened(title: str) -> str:
    return title if len(title) <= MAX_LETTERS else f"…{title[1 - MAX_LETTERS :]}"


def _query(reach: Reach, picture: np.ndarray, place: int) -> tuple[float, float, float, float]:
    """Row and column of a query, and the height and width of a cell in pixels."""
    rows, columns = reach.influence.output_shape
    row, col = reach.influence.queries[place]
    return row, col, picture.shape[0] / rows, picture.shape[1] / columns


def _draw_picture(axes: Axes, reach: Reach, picture: np.ndarray, place: int) -> None:
    axes.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0))
    mark_cell(axes, *_query(reach, picture, place))
    row, col = reach.influence.queries[place]
    axes.set_xlabel(f"query {row}, {col}", fontsize=6, labelpad=2)
    bare(axes)


def _draw_field(axes: Axes, reach: Reach, picture: np.ndarray, image: int, place: int) -> None:
    extent = (0, picture.shape[1], picture.shape[0], 0)
    axes.imshow(light_grey(picture), extent=extent)
    values = reach.influence.maps[image, place]
    largest = float(values.max()) or 1.0
    strength = (values / largest) ** ROOT
    axes.imshow(
        PALEST + (1 - PALEST) * strength,
        extent=extent,
        cmap=POSITIVE,
        vmin=0,
        vmax=1,
        alpha=OPACITY * strength,
        interpolation="nearest",
    )
    row, col, cell_height, cell_width = _query(reach, picture, place)
    mark_cell(axes, row, col, cell_height, cell_width)
    centre = ((col + 0.5) * cell_width, (row + 0.5) * cell_height)
    radii = reach.radii_pixels[reach.number_of(image), place]
    for radius, line in zip(radii, CIRCLES, strict=True):
        if radius > 0:  # also of a NaN: nothing to draw
            axes.add_patch(Circle(centre, radius, fill=False, edgecolor=CIRCLE, linewidth=0.8, linestyle=line))
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    numbers = ", ".join(f"{radius:.3g}" for radius in radii)
    axes.set_xlabel(numbers if values.max() else "no influence", fontsize=6, labelpad=2)
    bare(axes)
