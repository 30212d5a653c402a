"""Cost curves: against the order, towards the bound of Eq. 3.6, and against the map, beside self-attention."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from horinsight.complexity.cost_results import OrderGrowth, SizeGrowth
from horinsight.figures.style import SERIES

ATTENTION = "#c2570c"
BOUND = "0.35"


def draw_complexity_curves(orders: Sequence[OrderGrowth], sizes: SizeGrowth) -> Figure:
    """Left: cost over bound against n, a curve per width. Right: multiply-accumulates against the side of the map.

    Args:
        orders: of `order_growth`, one per width.
        sizes: of `size_growth`.

    Raises:
        ValueError: no width.
    """
    if not orders:
        raise ValueError("draw_complexity_curves expects the growth of at least one width.")
    figure = Figure(figsize=(7.6, 3.5))
    left, right = figure.subplots(
        1, 2, gridspec_kw={"left": 0.085, "right": 0.985, "top": 0.83, "bottom": 0.21, "wspace": 0.27}
    )
    for growth, colour in zip(orders, SERIES * len(orders), strict=False):
        left.plot(
            growth.orders, growth.macs / growth.bound, "o-", color=colour, markersize=3, linewidth=1.1,
            label=f"C = {growth.dim}",
        )  # fmt: skip
    left.axhline(1, color=BOUND, linewidth=1, linestyle="--")
    left.annotate(
        "bound", (1, 1), xytext=(0, 3), textcoords="offset points", fontsize=7, color=BOUND, ha="left", va="bottom"
    )
    left.set_xlabel("order n", fontsize=8)
    left.set_ylabel("MACs / HWC(2K² + 11/3 C + 2)", fontsize=8)
    left.set_ylim(top=1.06)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(fontsize=7, frameon=False, loc="lower right")
    left.set_title(f"K = {orders[0].kernel_size}: towards the bound, never to it", fontsize=8, loc="left")
    gnconv, attention = sizes.gnconv / 1e9, sizes.attention / 1e9
    right.plot(sizes.sides, attention, "s-", color=ATTENTION, markersize=3, linewidth=1.1, label="self-attention")
    right.plot(sizes.sides, gnconv, "o-", color=SERIES[0], markersize=3, linewidth=2.2, label=f"g{sizes.order}Conv")
    right.plot(sizes.sides, sizes.bound / 1e9, "--", color="black", linewidth=0.9, label="bound of Eq. 3.6")
    right.set_xscale("log")
    right.set_yscale("log")
    right.xaxis.set_major_locator(FixedLocator(sizes.sides.tolist()))
    right.xaxis.set_major_formatter(FuncFormatter(lambda side, _: f"{side:g}"))
    right.xaxis.set_minor_locator(NullLocator())
    right.set_xlabel("side of the map, positions", fontsize=8)
    right.set_ylabel("G multiply-accumulates", fontsize=8)
    right.legend(fontsize=7, frameon=False, loc="upper left")
    right.set_title(f"C = {sizes.dim}: linear in the positions, and quadratic", fontsize=8, loc="left")
    for axes in (left, right):
        axes.tick_params(labelsize=7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.text(0.01, 0.975, "Cost of a gⁿConv (Eq. 3.6)", fontsize=9, va="top", fontweight="bold")
    figure.text(
        0.01, 0.02,
        "MACs: multiply-accumulates with gating products, without scale and biases; self-attention: 4HWC² + 2(HW)²C, "
        "without softmax",
        fontsize=6.5, color="0.25",
    )  # fmt: skip
    return figure
