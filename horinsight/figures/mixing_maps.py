"""Figure 4: where a position of a picture looks, in several blocks."""

import numpy as np
from matplotlib.figure import Figure

from horinsight.figures.style import DIVERGING, OVERLAY_OPACITY, bare, light_grey, mark_cell, provenance_line
from horinsight.mixing.query_maps import QueryMaps

CELL_INCHES = 1.15
LABEL_INCHES = 0.17  # the line of limits below each map
MARGIN_INCHES = 0.38


def draw_mixing_maps(result: QueryMaps, *, colormap: str = DIVERGING) -> Figure:
    """A row per query, a column per block: (1/C) Σ_c h_ij^c over the picture, the query outlined.

    Each map has its own limits ± max|h|, printed below it: blocks differ by orders of magnitude, so that one scale for
    all would leave most of them blank. Red is positive, blue negative, white small; where a weight is exactly 0, beyond
    the kernel, the picture is uncovered.

    Args:
        result: maps of `query_maps`.
        colormap: a diverging one.

    Returns:
        A figure of its own (not pyplot's), about as wide as a page for six blocks.
    """
    num_rows, columns = len(result.picture_of_entry), list(result.maps)
    row_inches = CELL_INCHES + LABEL_INCHES
    width = CELL_INCHES * (len(columns) + 1) + 0.1 * (len(columns) + 2)
    height = row_inches * num_rows + 2 * MARGIN_INCHES
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        num_rows,
        len(columns) + 1,
        squeeze=False,
        gridspec_kw={
            "left": 0.012,
            "right": 0.988,
            "top": 1 - MARGIN_INCHES / height,
            "bottom": (MARGIN_INCHES + LABEL_INCHES / 2) / height,
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
            limit = float(np.abs(values).max()) or 1.0
            axes.imshow(light_grey(picture), extent=extent)
            axes.imshow(
                values,
                extent=extent,
                cmap=colormap,
                vmin=-limit,
                vmax=limit,
                alpha=np.where(values == 0, 0.0, OVERLAY_OPACITY),
                interpolation="nearest",
            )
            _mark(axes, result, block, entry)
            axes.set_xlabel(f"± {limit:.1e}", fontsize=6, labelpad=2)
            bare(axes)
    grid[0][0].set_title("picture and query", fontsize=8, pad=3)
    for axes, index in zip(grid[0][1:], result.block_indices, strict=True):
        axes.set_title(f"block {index}", fontsize=8, pad=3)
    model = result.provenance.model if result.provenance else "model"
    step = result.convention.get("step", "last")
    what = f"{model}: mixing weights $h_{{ij}}$, mean over channels" + (
        "" if step == "last" else f", recursion step {step}"
    )
    figure.text(0.012, 1 - 0.06 / height, what, fontsize=8, va="top", fontweight="bold")
    figure.text(
        0.988,
        1 - 0.06 / height,
        "red > 0, blue < 0, uncovered = 0; limits below",
        fontsize=7,
        va="top",
        ha="right",
        color="0.3",
    )
    worst = max(result.reconstruction_errors)
    provenance_line(figure, result.provenance, f"largest reconstruction error {worst:.0e} of |p$_n$|")
    return figure


def _mark(axes: "object", result: QueryMaps, block: str, entry: int) -> None:
    rows, columns = result.maps[block].shape[1:]
    height, width = result.pictures.shape[1] / rows, result.pictures.shape[2] / columns
    row, col = result.queries[block][entry]
    mark_cell(axes, row, col, height, width)  # type: ignore[arg-type]
