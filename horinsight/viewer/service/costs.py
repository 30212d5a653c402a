"""Cost of models, each from one pass on shapes, and Table 1 of the paper, row by row; kept for everybody."""

import streamlit as st

from horinsight.complexity.bound import count_and_bounds
from horinsight.complexity.cost_results import GnConvBound, MacCount, TableRowCount
from horinsight.complexity.parts import CostPart, cost_parts
from horinsight.complexity.printed_tables import PrintedRow, chosen_rows
from horinsight.complexity.table_counts import row_count
from horinsight.models.registry import model_without_weights
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept

Counted = tuple[MacCount, list[GnConvBound], list[CostPart]]
ROW_SECONDS = 0.6  # about, of one core
ROWS: Kept[tuple[str, tuple[int, int]], TableRowCount] = Kept(100)


@st.cache_data(max_entries=64, show_spinner="Counting …")
def counted(name: str, image_size: int) -> Counted:
    """What a model costs on square images, Eq. 3.6 for each of its gⁿConvs, and the parts that it is spent on.

    Raises:
        ValueError: the model does not take images of this size.
        BusyError: the gate was taken for too long.
    """
    with GATE.slot():
        model = model_without_weights(name)
        count, bounds = count_and_bounds(model, image_size)
        return count, bounds, cost_parts(model, count)


def first_table() -> list[PrintedRow]:
    """Table 1, as printed."""
    return chosen_rows(1, None)


def known_row(row: PrintedRow) -> TableRowCount | None:
    """Our count of a row; None where nobody asked yet."""
    return ROWS.get((row.model, row.image_size))


def count_row(row: PrintedRow) -> None:
    """Count a row, and keep it.

    Raises:
        BusyError: the gate was taken for too long.
    """
    if known_row(row) is None:
        with GATE.slot():
            ROWS.put((row.model, row.image_size), row_count(row))
