"""A report's table for people, as a page shows it: headings may repeat, and every cell is plain text."""

import pandas as pd
import streamlit as st

from horinsight.report import Report
from horinsight.viewer.service.plain_text import as_text, plain

TALLEST = 560  # pixels


def show_report(report: Report, *, marked: str = "") -> None:
    """The table with its notes below.

    Args:
        report: of the rows.
        marked: rows that have a cell which begins with this are shaded.
    """
    cells = [[as_text(column.text(row), longest=200) for column in report.columns] for row in report.rows]
    names: list[str] = []
    for column in report.columns:  # a data frame tells columns by their names
        names.append(column.heading + "\u200b" * sum(name.strip("\u200b") == column.heading for name in names))
    frame = pd.DataFrame(cells, columns=names)
    shaded = [bool(marked) and any(cell.startswith(marked) for cell in row) for row in cells]
    height = min(TALLEST, 38 + 35 * len(frame))
    st.dataframe(
        frame.style.apply(lambda row: ["background: #b7791f33" if shaded[int(row.name)] else ""] * len(row), axis=1),
        hide_index=True,
        height=height,
    )
    notes = "".join(f"<div>{plain(note)}</div>" for note in report.notes)
    st.html(f'<div class="small">{notes}</div>')
