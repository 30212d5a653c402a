"""Figure 3: accuracy against parameters, multiply-accumulates and latency, a line per family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from horinsight.figures.style import SERIES
from horinsight.results import Result

MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True, eq=False, repr=False)
class Tradeoff(Result):
    """One model of a family.

    Attributes:
        label: short name, such as "T".
        top1: ImageNet accuracy in percent, given data.
        params_m: parameters in millions.
        macs_g: multiply-accumulates in units of 10⁹.
        latency_ms: measured time per image in milliseconds, median; NaN where it was not measured.
        latency_low: first quartile of the runs.
        latency_high: third quartile.
    """

    label: str
    top1: float
    params_m: float
    macs_g: float
    latency_ms: float
    latency_low: float
    latency_high: float


def draw_tradeoffs(families: Mapping[str, Sequence[Tradeoff]], *, machine: str = "") -> Figure:
    """Three panels of accuracy: against parameters, multiply-accumulates, and measured latency with its quartiles.

    Args:
        families: name → models from small to large.
        machine: on which the latency was measured, with batch and precision; where no latency was, there is no panel.

    Raises:
        ValueError: no family.
    """
    if not families:
        raise ValueError("draw_tradeoffs expects at least one family.")
    measured = any(model.latency_ms == model.latency_ms for models in families.values() for model in models)
    quantities = [("params_m", "parameters (M)"), ("macs_g", "multiply-accumulates (G)")]
    quantities += [("latency_ms", "latency (ms)")] * measured
    figure = Figure(figsize=(9.2 if measured else 6.6, 3.4))
    panels = figure.subplots(
        1, len(quantities), sharey=True,
        gridspec_kw={
            "left": 0.065 if measured else 0.09, "right": 0.99, "top": 0.85, "bottom": 0.235, "wspace": 0.08,
        },
    )  # fmt: skip
    for axes, (key, words) in zip(panels, quantities, strict=True):
        for (name, models), colour, marker in zip(families.items(), SERIES, MARKERS, strict=False):
            x, y = [getattr(model, key) for model in models], [model.top1 for model in models]
            axes.plot(x, y, marker + "-", color=colour, markersize=4.5, linewidth=1.2, label=name)
            if key == "latency_ms":
                low = [model.latency_ms - model.latency_low for model in models]
                high = [model.latency_high - model.latency_ms for model in models]
                axes.errorbar(x, y, xerr=[low, high], fmt="none", ecolor=colour, elinewidth=0.9, capsize=2)
            for model in models:
                axes.annotate(
                    model.label, (getattr(model, key), model.top1), xytext=(0, -9), textcoords="offset points",
                    fontsize=6.5, color=colour, ha="center",
                )  # fmt: skip
        axes.set_xlabel(words, fontsize=8)
        axes.set_xlim(left=0)
        axes.margins(y=0.14)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25, linewidth=0.5)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("ImageNet top-1 (%), as published", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False, loc="lower right")
    figure.text(0.01, 0.975, "Trade-offs of Figure 3", fontsize=9, va="top", fontweight="bold")
    remark = f"latency: median and quartiles, {machine}" if measured else "parameters and multiply-accumulates: counted"
    figure.text(0.01, 0.02, remark, fontsize=6.5, color="0.25")
    return figure
