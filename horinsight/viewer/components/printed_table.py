"""Rows of a table of the paper: what is printed, and our count beside it."""

from collections.abc import Sequence

import streamlit as st

from horinsight.complexity.cost_results import TableRowCount
from horinsight.complexity.printed_tables import PrintedRow
from horinsight.viewer.service.plain_text import plain

HEAD = (
    "<tr><th scope='col'>network</th><th scope='col'>image</th><th scope='col'>M params</th>"
    "<th scope='col'>ours</th><th scope='col'>G FLOPs</th><th scope='col'>ours</th><th scope='col'>same</th></tr>"
)


def printed_table(rows: Sequence[tuple[PrintedRow, TableRowCount | None]], chosen: str) -> None:
    """The rows; a dash where nobody counted yet.

    Args:
        rows: as printed, with our count.
        chosen: the model whose rows are marked.
    """
    lines = "".join(_line(row, count, here=row.model == chosen) for row, count in rows)
    st.html(f'<div class="printed" tabindex="0" role="region" aria-label="Table 1"><table>{HEAD}{lines}</table></div>')


def _line(row: PrintedRow, count: TableRowCount | None, *, here: bool) -> str:
    ours = ("–", "–", "")
    if count is not None:
        ours = (f"{count.params / 1e6:.2f}", f"{count.macs_counted / 1e9:.2f}", "yes" if count.reproduced else "no")
    printed = "–" if row.params_m is None else str(row.params_m)
    cells = (str(row.image_size[0]), printed, ours[0], f"{row.flops_g:.1f}", ours[1], ours[2])
    told = "".join(f"<td>{plain(cell)}</td>" for cell in cells)
    marked = " class='here'" if here else ""
    return f"<tr{marked}><th scope='row'>{plain(row.label)}</th>{told}</tr>"
