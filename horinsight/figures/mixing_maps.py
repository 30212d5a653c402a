"""Figure 4: where a position of a picture looks, in several blocks."""

import numpy as np
from matplotlib.figure import Figure

from horinsight.figures.style import DIVERGING, OVERLAY_OPACITY, POSITIVE, bare, light_grey, mark_cell, provenance_lines
from horinsight.mixing.mixing_results import QueryMaps

CELL_INCHES = 1.15
NEGLIGIBLE = 1e-20  # of the largest: beyond the kernel, or what Swin's mask leaves of a wrapped window (e^-100)
LABEL_INCHES = 0.17  # the line of limits below each map
TOP_INCHES, BOTTOM_INCHES = 0.62, 0.5  # title and key above, two lines of provenance below
MIN_WIDTH_INCHES = 5.2  # so that the text fits beside few maps


def draw_mixing_maps(result: QueryMaps, *, colormap: str = DIVERGING) -> Figure:
    """A row per query, a column per block: (1/C) Σ_c h_ij^c (or influence) over the picture, the query outlined.

    Each map has its own limits ± max|h|, printed below it: blocks differ by orders of magnitude, so that one scale for
    all would leave most of them blank. Red is positive, blue negative, white small; where a weight is 0, beyond the
    kernel or the window, the picture is uncovered.

    Args:
        result: maps of `query_maps`.
        colormap: a diverging one.

    Returns:
        A figure of its own (not pyplot's), about as wide as a page for six blocks.
    """
    num_rows, columns = len(result.picture_of_entry), list(result.maps)
    row_inches = CELL_INCHES + LABEL_INCHES
    maps_width = CELL_INCHES * (len(columns) + 1) + 0.1 * (len(columns) + 2)
    width = max(maps_width, MIN_WIDTH_INCHES)
    height = row_inches * num_rows + TOP_INCHES + BOTTOM_INCHES
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        num_rows,
        len(columns) + 1,
        squeeze=False,
        gridspec_kw={
            "left": 0.1 / width,
            "right": (maps_width - 0.1) / width,
            "top": 1 - TOP_INCHES / height,
            "bottom": (BOTTOM_INCHES + LABEL_INCHES / 2) / height,
            "wspace": 0.07,
            "hspace": 0.2,
        },
    )
    for entry, row in enumerate(grid):
        picture = result.pictures[result.picture_of_entry[entry]]
        extent = (0, picture.shape[1], picture.shape[0], 0)
        row[0].imshow(picture, extent=extent)
        first = columns[0]
        _mark(row[0], result, first, entry)
        name = result.image_names[result.picture_of_entry[entry]].split(" (")[0].rsplit("/", 1)[-1]
        query = ", ".join(str(part) for part in result.queries[first][entry])
        row[0].set_xlabel(f"{name}, query {query}", fontsize=6, labelpad=2)
        bare(row[0])
        for axes, block in zip(row[1:], columns, strict=True):
            values = result.maps[block][entry]
            covered = covered_cells(values)
            low, high, label = map_limits(values)
            axes.imshow(light_grey(picture), extent=extent)
            axes.imshow(
                values,
                extent=extent,
                cmap=colormap if low < 0 else POSITIVE,
                vmin=low,
                vmax=high,
                alpha=np.where(covered, OVERLAY_OPACITY, 0.0),
                interpolation="nearest",
            )
            _mark(axes, result, block, entry)
            axes.set_xlabel(label, fontsize=6, labelpad=2)
            bare(axes)
    grid[0][0].set_title("picture and query", fontsize=8, pad=3)
    for axes, index in zip(grid[0][1:], result.block_indices, strict=True):
        axes.set_title(f"block {index}", fontsize=8, pad=3)
    figure.text(0.1 / width, 1 - 0.06 / height, _title(result), fontsize=8, va="top", fontweight="bold")
    figure.text(0.1 / width, 1 - 0.24 / height, _key(result), fontsize=6.5, va="top", color="0.3")
    text = result.convention.get("estimator", "")  # of influence, which has no identity
    if result.reconstruction_errors:
        worst = max(result.reconstruction_errors)
        text = f"identity with the forward pass holds to {worst:.0e} of its largest value"
    parts = [part for part in (result.convention.get("shown", ""), text) if part]
    provenance_lines(figure, result.provenance, "; ".join(parts))
    return figure


def _title(result: QueryMaps) -> str:
    model = result.provenance.model if result.provenance else "model"
    step = result.convention.get("step", "last")
    over, channel = result.convention.get("mean_over", "channels"), result.convention.get("channel", "mean")
    title = f"{model}: {result.convention.get('weights', 'mixing weights')}, "
    title += f"mean over {over}" if channel == "mean" else f"{over[:-1]} {channel}"
    return title if step == "last" else f"{title}, recursion step {step}"


def _key(result: QueryMaps) -> str:
    signed = any(values.min() < 0 for values in result.maps.values())
    colours = "red > 0, blue < 0, limits ± below each map" if signed else "pale to red: limits below each map"
    return f"{colours}; uncovered: 0. Query: row, column on the map of block {result.block_indices[0]}."


def covered_cells(values: np.ndarray) -> np.ndarray:
    """Where a map is not 0: the cells within the kernel or the window, as booleans of its shape."""
    covered: np.ndarray = np.abs(values) > NEGLIGIBLE * np.abs(values).max()
    return covered


def map_limits(values: np.ndarray) -> tuple[float, float, str]:
    """Colour limits of a map and their label: symmetric around 0, or from least to most where nothing is negative.

    Example:
        >>> map_limits(np.array([[0.0, 0.5], [-0.25, 0.0]])), map_limits(np.array([[0.0, 0.5], [0.25, 0.0]]))
        ((-0.5, 0.5, '± 5.0e-01'), (0.25, 0.5, '2.5e-01 to 5.0e-01'))
    """
    shown = values[covered_cells(values)]
    if not shown.size:
        return -1.0, 1.0, "all 0"
    low, high = float(shown.min()), float(shown.max())
    if low < 0 or high == low:
        limit = max(abs(low), abs(high)) or 1.0
        return -limit, limit, f"± {limit:.1e}"
    return low, high, f"{low:.1e} to {high:.1e}"


def _mark(axes: "object", result: QueryMaps, block: str, entry: int) -> None:
    rows, columns = result.maps[block].shape[1:]
    height, width = result.pictures.shape[1] / rows, result.pictures.shape[2] / columns
    row, col = result.queries[block][entry]
    mark_cell(axes, row, col, height, width)  # type: ignore[arg-type]
