"""What `horinsight flops --table` prints: each row of a table of the paper, counted, beside what is printed."""

from typing import Any

from horinsight.cli.progress import step_progress
from horinsight.complexity.counted_tables import counted_table, row_name
from horinsight.complexity.printed_tables import chosen_rows
from horinsight.report import Report


def table_report(table: int, *, model: str | None, fft: Any) -> Report:
    """The rows of a table, or those of one model, counted with progress on standard error."""
    from horinsight.complexity.table_counts import table_counts

    num_rows = len(chosen_rows(table, model))
    with step_progress(f"Table {table}", num_rows) as show:
        counts = table_counts(table, model=model, fft=fft, counted=lambda row: show(row_name(row)))
    return counted_table(table, counts)
