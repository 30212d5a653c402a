"""One look for all figures, and how they are written."""

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from horinsight.report import spelled
from horinsight.results import Provenance
from horinsight.whole_file import check_writable, whole_file

SUFFIXES = (".pdf", ".png", ".svg")
DIVERGING = "RdBu_r"  # safe for red-green blindness; PuOr_r is safer still
SEQUENTIAL = "cividis"
POSITIVE = "Reds"  # over a picture, for weights that are never negative
SERIES = ("#1f5a99", "#2f8f5b", "#8a4fa3", "#b8860b", "#5b6670")  # lines of one figure, dark enough on white
UNTRAINED = "#b00020"
OVERLAY_OPACITY = 0.72
DPI = 200


def check_figure_path(path: str | os.PathLike[str]) -> None:
    """Refuse a figure that could not be written, before any work is done for it.

    Raises:
        ValueError: an unknown suffix.
        OSError: the place is not writable.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"A figure expects a path that ends in {', '.join(SUFFIXES)}, got {Path(path).name}.")
    check_writable(path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PDF, PNG or SVG, by the suffix; whole or not at all.

    Raises:
        ValueError: an unknown suffix.
        OSError: the place is not writable.
    """
    check_figure_path(path)
    content = figure_bytes(figure, Path(path).suffix)
    with whole_file(path, "wb") as file:
        file.write(content)


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """What `save_figure` writes into a file that ends in `suffix`: ".pdf", ".png" or ".svg"."""
    kind = suffix.lower().removeprefix(".")
    date = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)  # the same figure, the same bytes
    for text in figure.findobj(Text):  # names of files may hold bytes that no font has
        text.set_text(spelled(text.get_text(), "utf-8"))
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=DPI, metadata=date)
    return stream.getvalue()


def provenance_lines(figure: Figure, provenance: Provenance | None, text: str) -> None:
    """Two lines along the bottom: with which weights (untrained ones in red), and a remark."""
    width, height = figure.get_size_inches()
    if provenance is not None:
        untrained = provenance.trained is False
        figure.text(
            0.1 / width,
            0.22 / height,
            ("UNTRAINED WEIGHTS: " if untrained else "weights: ") + provenance.weights,
            fontsize=7,
            va="bottom",
            color=UNTRAINED if untrained else "0.25",
            fontweight="bold" if untrained else "normal",
        )
    figure.text(0.1 / width, 0.06 / height, text, fontsize=6.5, va="bottom", color="0.25")


def light_grey(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 as a light grey background, (H, W, 3) float in 0..1."""
    grey = picture.astype(float) @ np.array([0.299, 0.587, 0.114]) / 255
    return np.repeat((0.35 + 0.65 * grey)[..., None], 3, axis=2)


def mark_cell(axes: Axes, row: float, col: float, height: float, width: float) -> None:
    """Outline a cell: white over black, so that it shows on everything."""
    for colour, line in (("black", 2.4), ("white", 1.0)):
        axes.add_patch(
            Rectangle((col * width, row * height), width, height, fill=False, edgecolor=colour, linewidth=line)
        )


def bare(axes: Axes) -> None:
    """No ticks, a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
        spine.set_color("0.6")
