"""What a survey found, by depth: orders, effects, adaptivity, distances; of classes, or of two models."""

from collections.abc import Iterator, Sequence
from math import ceil, floor

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from horinsight.figures.style import SERIES, UNTRAINED
from horinsight.stats import Estimate
from horinsight.survey.survey_results import ALL, SurveyLine, SurveyTable

PANEL = (2.5, 1.75)  # inches
COLUMNS = 3
KEY, LETTER, LEGEND_ROW = 0.5, 0.062, 0.16  # inches, of the legend
LONGEST = 40  # letters of a class in it
MOST_CLASSES = 10  # lines that can be told apart
PANELS = {  # of each question, what is drawn, with its words
    "ie": {"order_at_least": "order"},
    "mixing": {
        "input_adaptivity": "adaptivity to input",
        "location_adaptivity": "adaptivity to location",
        "mean_distance_pixels": "mixing distance, pixels",
        "effective_positions": "effective positions",
        "negative_share": "negative share",
    },
    "reach": {
        "radius_50_pixels": "radius of 50 %, pixels",
        "radius_90_pixels": "radius of 90 %, pixels",
        "radius_99_pixels": "radius of 99 %, pixels",
        "total": "total",
    },
}


def draw_survey_depths(table: SurveyTable) -> Figure:
    """A panel for each quantity: its mean over pictures at each block, with 95 % intervals.

    Lines are the classes (the first `MOST_CLASSES`), or all pictures; of two surveys the first is solid and the other
    dashed. Effects that are exactly zero have no place on their logarithmic scale and are left out.

    Args:
        table: of `survey_table`, with at least one line.

    Returns:
        A figure of its own (not pyplot's).

    Raises:
        ValueError: no line.
    """
    if not table.lines:
        raise ValueError("draw_survey_depths expects a survey with at least one number.")
    panels = list(_panels(table))
    groups = list(dict.fromkeys(line.group for line in table.lines))
    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    width = max(PANEL[0] * columns + 0.4, 5.2)
    named = min(len(groups), MOST_CLASSES) if groups != [ALL] else 0
    longest = min(max(map(len, groups)), LONGEST)
    in_row = max(1, min(named, int((width - 0.1) / (KEY + LETTER * longest))))
    top = 0.66 + LEGEND_ROW * ceil(named / in_row)
    height = PANEL[1] * rows + 0.58 + top
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.5 / width, right=1 - 0.12 / width, top=1 - top / height, bottom=0.56 / height, hspace=0.5, wspace=0.3
    )
    flat = [axes for row in grid for axes in row]
    for axes, (title, lines) in zip(flat, panels, strict=False):
        _draw_panel(axes, lines, groups[:MOST_CLASSES])
        axes.set_title(title, fontsize=7.5, pad=3)
    for axes in flat[len(panels) :]:
        axes.set_visible(False)
    for axes in flat[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("block", fontsize=7, labelpad=1)
    _draw_words(figure, table, groups)
    if named:
        figure.legend(
            *flat[0].get_legend_handles_labels(),
            loc="upper left",
            bbox_to_anchor=(0.1 / width, 1 - 0.42 / height),
            ncols=in_row,
            fontsize=7,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
        )
    return figure


def _draw_words(figure: Figure, table: SurveyTable, groups: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    title = {"ie": "orders and interaction effects", "mixing": "mixing weights", "reach": "reach"}[table.question]
    figure.text(
        0.1 / width, 1 - 0.08 / height, f"{table.model}: {title} by depth", fontsize=8.5, va="top", weight="bold"
    )
    against = f"solid: {table.model}; dashed: {table.other}; " if table.other else ""
    more = f"the first {MOST_CLASSES} of {len(groups)} classes; " if len(groups) > MOST_CLASSES else ""
    said = f"{against}{more}means over {table.num_pictures} pictures, bars: 95 % over pictures"
    figure.text(0.1 / width, 1 - 0.27 / height, said, fontsize=6.5, va="top", color="0.3")
    untrained = table.trained is False
    figure.text(
        0.1 / width,
        0.06 / height,
        ("UNTRAINED WEIGHTS: " if untrained else "weights: ") + table.weights,
        fontsize=7,
        color=UNTRAINED if untrained else "0.25",
        fontweight="bold" if untrained else "normal",
    )


def _legend_name(label: str) -> str:
    """Of a class, whatever its folder is called: matplotlib reads $ as mathematics and drops what starts with _."""
    short = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def _panels(table: SurveyTable) -> Iterator[tuple[str, list[SurveyLine]]]:
    for quantity, words in PANELS[table.question].items():
        lines = [line for line in table.lines if line.quantity == quantity]
        if any(np.isfinite(line.estimate.value) for line in lines):
            yield words, lines
    effects = [line for line in table.lines if line.quantity == "effect"]
    for k in sorted({line.k for line in effects if line.k is not None}):
        lines = [line for line in effects if line.k == k]
        if any(line.estimate.value > 0 for line in lines):
            yield f"effect$_{{{k}}}$ / std(F)", lines


def _draw_panel(axes: Axes, lines: Sequence[SurveyLine], groups: Sequence[str]) -> None:
    colours = [SERIES[0]] if len(groups) == 1 else [colormaps["tab10"](place) for place in range(len(groups))]
    for place, (label, colour) in enumerate(zip(groups, colours, strict=True)):
        mine = [line for line in lines if line.group == label]
        shift = 0.0 if len(groups) == 1 else 0.24 * (place / (len(groups) - 1) - 0.5)
        _draw_line(axes, mine, [line.estimate for line in mine], colour, "-", shift, _legend_name(label))
        if any(line.other is not None for line in mine):
            others = [line.other or Estimate(np.nan, np.nan) for line in mine]
            _draw_line(axes, mine, others, SERIES[1] if len(groups) == 1 else colour, "--", shift + 0.06, None)
    if lines[0].quantity == "effect":
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.tick_params(labelsize=6, length=2, width=0.4, pad=1.5, which="both")
    axes.margins(y=0.15)
    if lines[0].quantity.startswith("order"):  # often the same of all pictures: no scale of hundredths
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, floor(low) + 0.4), max(high, ceil(high) - 0.4))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.5)


def _draw_line(
    axes: Axes,
    lines: Sequence[SurveyLine],
    estimates: Sequence[Estimate],
    colour: object,
    style: str,
    shift: float,
    label: str | None,
) -> None:
    log = bool(lines) and lines[0].quantity == "effect"
    there = [
        (line.block + shift, one.value, *one.interval)
        for line, one in zip(lines, estimates, strict=True)
        if np.isfinite(one.value) and not (log and one.value == 0)
    ]
    if not there:
        return
    x, y, low, high = (np.array(values) for values in zip(*there, strict=True))
    bars = np.nan_to_num([np.maximum(y - low, 0), np.maximum(high - y, 0)])
    axes.errorbar(
        x, y, bars, color=colour, linestyle=style, linewidth=0.9, marker="o", markersize=2.4, elinewidth=0.8,
        capsize=1.4, label=label,
    )  # fmt: skip
