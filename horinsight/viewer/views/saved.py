"""Results: what was saved before, dropped in or chosen from a folder; of two of them also their difference."""

from collections.abc import Callable
from pathlib import PurePath

import numpy as np
import pandas as pd
import streamlit as st
from matplotlib.figure import Figure

from horinsight.figures.style import figure_bytes
from horinsight.result_fields import fields_of
from horinsight.results import result_bytes
from horinsight.viewer.components.number_table import show_table
from horinsight.viewer.components.provenance_card import show_provenance
from horinsight.viewer.service import page
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.result_differences import result_difference
from horinsight.viewer.service.result_figures import result_figure, what_is_left_out
from horinsight.viewer.service.result_folder import result_in_folder, result_names
from horinsight.viewer.service.saved_results import MAX_UPLOAD_MB, TYPES, Saved, fitting, saved_result
from horinsight.viewer.service.settings import settings

UPLOAD, FOLDER = "Upload", "On this server"
NONE = "none"
MOST_NUMBERS = 100_000  # of a result whose table is made


def chosen_results() -> list[Saved]:
    """One or two of them, or none yet."""
    names = result_names(settings().results)
    where = page.segments("From", "results_from", [UPLOAD, FOLDER], FOLDER) if names else UPLOAD
    if where == FOLDER:
        left, middle, right = st.columns(3, vertical_alignment="bottom")
        with left:
            first = page.select("Result", "result", names)
        with middle:
            second = page.select("Beside it", "result_b", [NONE, *names])
        by = None
        if first.endswith("/"):
            with right:
                by = "class" if page.switch("By class", "by_class") else None
        chosen = [first] if second == NONE else [first, second]
        with page.explained():
            return [result_in_folder(settings().results, name, by=by) for name in chosen]  # type: ignore[arg-type]
    files = st.file_uploader(
        "One result or two, to look at or to compare",
        type=list(TYPES),
        accept_multiple_files=True,
        key="result_files",
        max_upload_size=MAX_UPLOAD_MB,
        help="What save_result wrote (.npz, .json); of a survey what `horinsight survey report` wrote (.json, .csv) or "
        "a .zip of its folder. Files stay in this server's memory and are not part of the address.",
    )
    if len(files) > 2:
        page.told("info", "Two at most are looked at: these are the first two.")
    with page.explained():
        return [saved_result(file.name, file.getvalue()) for file in files[:2]]


def drawn(saved: Saved) -> Figure | None:
    """The figure, or one line that says why there is none."""
    with page.explained(), GATE.slot(), fitting(saved.name):
        return result_figure(saved.parts)


def shown_figure(figure: Figure, words: str) -> None:
    """A figure as wide as its place."""
    with page.explained(), GATE.slot(), fitting(words):
        st.image(figure_bytes(figure, ".png"), width="stretch", alt=words)


def table_of(saved: Saved) -> pd.DataFrame | None:
    """The table; None where it would be too long."""
    if sum(_numbers(value) for one in saved.parts.values() for value in fields_of(one).values()) > MOST_NUMBERS:
        return None
    with page.explained(), fitting(saved.name):
        found: pd.DataFrame = saved.result.to_frame()
        return found


def _numbers(value: object) -> int:
    if isinstance(value, np.ndarray):
        return 0 if value.dtype == np.uint8 else int(value.size)  # pictures are in no table
    if isinstance(value, dict):
        return sum(map(_numbers, value.values()))
    return sum(_numbers(getattr(value, name)) for name in ("squares", "standard_errors") if hasattr(value, name))


def show(saved: Saved, *, offered: bool) -> None:
    """One result: where it comes from, its figure and its table; and its downloads."""
    page.heading(saved.name, after=f" · {page.plain(saved.words)}")
    top = st.container()
    show_provenance(next(iter(saved.parts.values())))
    frame = table_of(saved)
    figure = drawn(saved)
    if offered:
        with top:
            offer(saved, figure, frame)
    if figure is not None:
        shown_figure(figure, f"Figure of {saved.words} in {saved.name}")
        page.small(what_is_left_out(saved.parts))
    if frame is None:
        page.told("info", "Its table has too many rows to show; the downloads and the file have all numbers.")
    else:
        show_table(frame)


def offer(saved: Saved, figure: Figure | None, frame: pd.DataFrame | None) -> None:
    """Downloads of one result."""
    files = [page.npz(_content(saved, ".npz")), page.json(_content(saved, ".json"))]
    if frame is not None:
        files = [page.csv(lambda: frame.to_csv(index=False)), *files]
    if figure is not None:
        files = [page.png(lambda: figure_bytes(figure, ".png")), page.pdf(lambda: figure_bytes(figure, ".pdf")), *files]
    page.downloads(PurePath(saved.name.strip("/")).stem or "result", files)


def _content(saved: Saved, suffix: str) -> Callable[[], bytes]:
    return lambda: result_bytes(saved.result, suffix)


def show_difference(first: Saved, second: Saved) -> None:
    """What two differ by, or why that cannot be said."""
    page.heading(f"{first.name} against {second.name}")
    try:
        with fitting(f"{first.name} and {second.name}"):
            found = result_difference(first.parts, second.parts)
    except ValueError as error:
        cause = error.__cause__
        page.told("info", str(cause) if isinstance(cause, ValueError) and _ours(cause) else str(error))
        return
    if found.figure is not None:
        shown_figure(found.figure, f"Difference of {first.name} and {second.name}")
    show_table(found.frame)
    page.small(found.words)
    files = [page.csv(lambda: found.frame.to_csv(index=False))]
    if found.figure is not None:
        figure = found.figure
        files += [page.png(lambda: figure_bytes(figure, ".png")), page.pdf(lambda: figure_bytes(figure, ".pdf"))]
    page.downloads("difference", files)


def _ours(error: ValueError) -> bool:
    """Whether an error says itself why two do not fit."""
    return str(error).startswith(("No difference", "compare_spectra"))


def results_page() -> None:
    """The page."""
    results = chosen_results()
    page.settled()
    if not results:
        page.told("info", "Nothing yet. Drop a file that save_result wrote, or a survey's report or zipped folder.")
        return
    if len(results) == 1:
        show(results[0], offered=True)
        return
    show_difference(*results)
    for column, saved in zip(st.columns(2, gap="medium"), results, strict=True):
        with column:
            show(saved, offered=False)
