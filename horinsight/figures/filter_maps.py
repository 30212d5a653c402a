"""The filters of a GF layer: frequency response above, kernel in space below."""

import numpy as np
from matplotlib.figure import Figure

from horinsight.figures.style import DIVERGING, SEQUENTIAL, bare, provenance_lines
from horinsight.mixing.mixing_results import FilterKernels


def draw_filters(result: FilterKernels, *, num_channels: int = 8) -> Figure:
    """The mean over channels and the first channels: |W| (zero frequency in the middle) and the circular kernel.

    Args:
        result: of `filter_kernels`.
        num_channels: how many single channels beside the mean.
    """
    shown = min(num_channels, len(result.kernel))
    figure = Figure(figsize=(max(1.15 * (shown + 1) + 0.6, 4.6), 3.5))
    grid = figure.subplots(
        2, shown + 1, squeeze=False,
        gridspec_kw={"left": 0.055, "right": 0.99, "top": 0.82, "bottom": 0.2, "wspace": 0.08, "hspace": 0.3},
    )  # fmt: skip
    magnitudes = [result.magnitude.mean(0), *result.magnitude[:shown]]
    kernels = [result.kernel.mean(0), *result.kernel[:shown]]
    for column, (magnitude, kernel) in enumerate(zip(magnitudes, kernels, strict=True)):
        top, bottom = grid[0][column], grid[1][column]
        top.imshow(magnitude, cmap=SEQUENTIAL, vmin=0, interpolation="nearest")
        top.set_xlabel(f"0 to {magnitude.max():.1e}", fontsize=6, labelpad=2)
        top.set_title("mean" if column == 0 else f"channel {2 * column - 1}", fontsize=8, pad=3)
        limit = float(np.abs(kernel).max()) or 1.0
        bottom.imshow(kernel, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        bottom.set_xlabel(f"± {limit:.1e}", fontsize=6, labelpad=2)
        bare(top)
        bare(bottom)
    grid[0][0].set_ylabel("frequency |W|", fontsize=8)
    grid[1][0].set_ylabel("space", fontsize=8)
    size = "x".join(map(str, result.kernel.shape[1:]))
    model = f"{result.provenance.model}, " if result.provenance else ""
    figure.text(
        0.01, 0.98, f"{model}{result.name}: global filters on a {size} map", fontsize=8, va="top", fontweight="bold"
    )
    provenance_lines(
        figure, result.provenance, "channel: output channel of the filter; zero frequency and offset 0 centred"
    )
    return figure
