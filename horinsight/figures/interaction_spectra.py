"""Interaction spectra of many blocks, as small multiples on one logarithmic scale."""

from collections.abc import Mapping
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from horinsight.figures.style import provenance_lines
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.report import shown_order

EFFECT = "#1f5a99"
INTERVAL = "#c2570c"
ZERO = "0.45"
MAX_COLUMNS = 7
PANEL = (1.55, 1.5)  # inches


def draw_interaction_spectra(
    spectra: Mapping[str, InteractionSpectrum] | InteractionSpectrum, *, titles: Mapping[str, str] | None = None
) -> Figure:
    """Effects by order, a panel per block: dots with their intervals, and exact zeros as open squares on a line below.

    Args:
        spectra: by block name, at least one; or a single one.
        titles: what to call each block; its name when None.

    Returns:
        A figure; the order of each block stands above its panel.

    Raises:
        ValueError: no spectrum.
    """
    if isinstance(spectra, InteractionSpectrum):
        spectra = {"operator": spectra}
    if not spectra:
        raise ValueError("draw_interaction_spectra expects at least one spectrum.")
    columns = min(MAX_COLUMNS, len(spectra), max(3, ceil(len(spectra) ** 0.5 * 1.3)))
    rows = ceil(len(spectra) / columns)
    width, height = max(PANEL[0] * columns + 0.75, 6.4), PANEL[1] * rows + 1.35
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharey=True,
        gridspec_kw={
            "left": 0.68 / width,
            "right": 1 - 0.1 / width,
            "top": 1 - 0.78 / height,
            "bottom": 0.78 / height,
            "wspace": 0.1,
            "hspace": 0.62,
        },
    )
    exponents = _exponents(spectra)
    top_order = max(len(spectrum.effects) for spectrum in spectra.values()) - 1
    panels = [axes for row in grid for axes in row]
    for (name, spectrum), axes in zip(spectra.items(), panels, strict=False):
        _draw_panel(axes, spectrum, exponents, top_order)
        axes.set_title(f"{(titles or {}).get(name, name)}\norder {_order(spectrum)}", fontsize=6.5, pad=3)
    for axes in panels[len(spectra) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(spectra) - columns) : len(spectra)]:
        axes.set_xlabel("k", fontsize=7, labelpad=1)
    figure.supylabel("effect$_k$ / std(F)", fontsize=8, x=0.08 / width)
    first = next(iter(spectra.values()))
    figure.text(0.1 / width, 1 - 0.1 / height, _heading(first), fontsize=8, va="top", fontweight="bold")
    interval = first.convention.get("interval", "interval")
    provenance_lines(
        figure,
        first.provenance,
        f"k neighbours jointly with a position; {first.num_draws} chains a block, bars: {interval}, "
        f"for {first.target}; "
        "open square: exactly 0 in every draw",
    )
    return figure


def _heading(spectrum: InteractionSpectrum) -> str:
    model = f"{spectrum.provenance.model}: " if spectrum.provenance else ""
    options = spectrum.options
    if options is None:
        return f"{model}interaction effects"
    of = {"mixer": "of each mixer", "block": "of each whole block"}[options.scope] if spectrum.provenance else ""
    return f"{model}{options.kind} interaction effects {of}".rstrip()


def _order(spectrum: InteractionSpectrum) -> str:
    return shown_order(spectrum.location_order, len(spectrum.effects) - 1)


def _exponents(spectra: Mapping[str, InteractionSpectrum]) -> tuple[int, int]:
    """Powers of ten below and above everything that is not zero."""
    shown = [v for s in spectra.values() for v in (*s.effects, *s.ci_low, *s.ci_high) if v > 0]
    if not shown:
        return -1, 0
    low, high = int(np.floor(np.log10(min(shown)))), int(np.ceil(np.log10(max(shown))))
    return low, max(high, low + 1)


def _draw_panel(axes: Axes, spectrum: InteractionSpectrum, exponents: tuple[int, int], top_order: int) -> None:
    low, high = exponents
    step = max(1, ceil((high - low) / 5))
    zero_line = low - 0.18 * (high - low) - 0.3
    k = np.arange(len(spectrum.effects))
    alive = ~spectrum.exact_zero & (spectrum.effects > 0)
    logarithm = np.log10(np.where(alive, spectrum.effects, 1.0))
    ends = [np.log10(np.where(alive & (end > 0), end, spectrum.effects + ~alive)) for end in _interval(spectrum)]
    axes.vlines(k[alive], low, logarithm[alive], color=EFFECT, linewidth=0.8, alpha=0.35)
    axes.plot(k[alive], logarithm[alive], "o", color=EFFECT, markersize=2.6)
    bars = [logarithm[alive] - ends[0][alive], ends[1][alive] - logarithm[alive]]
    axes.errorbar(
        k[alive], logarithm[alive], np.maximum(bars, 0), fmt="none", ecolor=INTERVAL, elinewidth=1.1, capsize=1.8
    )
    axes.axhline(zero_line, color=ZERO, linewidth=0.5, linestyle=":")
    zeros = k[spectrum.exact_zero]
    axes.plot(zeros, np.full(len(zeros), zero_line), "s", mfc="white", mec=ZERO, mew=0.9, markersize=4)
    axes.set_xlim(-0.5, top_order + 0.5)
    axes.set_ylim(zero_line - 0.12 * (high - low) - 0.1, high + 0.08 * (high - low))
    decades = list(range(high, low - 1, -step))
    axes.yaxis.set_major_locator(FixedLocator([*decades, zero_line]))
    axes.set_yticklabels([*(f"$10^{{{decade}}}$" for decade in decades), "0"])
    axes.xaxis.set_major_locator(FixedLocator(range(0, top_order + 1, 1 if top_order < 10 else 2)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=6, length=2, pad=1.5, width=0.4)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.5)


def _interval(spectrum: InteractionSpectrum) -> tuple[np.ndarray, np.ndarray]:
    return spectrum.ci_low, spectrum.ci_high
