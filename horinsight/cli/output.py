"""How commands print: a table for people, JSON and CSV for programs, to standard output or whole into a file."""

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

from horinsight.results import plain
from horinsight.whole_file import check_writable, whole_file

FORMATS = ("table", "json", "csv")
PIPE_WIDTH = 200  # columns of a table that does not go to a terminal

C = TypeVar("C", bound=Callable[..., Any])


def format_options(command: C) -> C:
    """The options `--format` and `--output`, the same for every command."""
    command = click.option(
        "--output",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the result to FILE instead of standard output; .json and .csv choose the format.",
    )(command)
    return click.option(
        "--format", "fmt", type=click.Choice(FORMATS), help="How to print the result.  [default: table]"
    )(command)


def chosen_format(fmt: str | None, output: Path | None) -> str:
    """The format asked for, or the one that the output's suffix tells; refuses an output that cannot be written."""
    if output is not None:
        check_writable(output)
        suffix = output.suffix.removeprefix(".").lower()
        by_suffix = suffix if suffix in ("json", "csv") else "table" if suffix in ("", "txt", "md", "log") else None
        if by_suffix is None or (suffix and fmt not in (None, by_suffix)):
            raise ValueError(
                f"--output {output.name} with --format {fmt or 'by suffix'}: expected .json, .csv, or .txt for a table."
            )
        return fmt or by_suffix
    return fmt or "table"


def text_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], *, to_file: bool = False
) -> str:
    """A table with a title above and notes below; numbers (every column but text) align to the right."""
    terminal = sys.stdout.isatty() and not to_file
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold" if terminal else "")
    for position, column in enumerate(columns):
        numeric = all(row[position][:1] in "0123456789-≥·" for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    stream = io.StringIO()
    console = Console(
        file=stream, width=None if terminal else PIPE_WIDTH, force_terminal=terminal, highlight=False, emoji=False
    )
    console.print(title, style="bold" if terminal else None, markup=False)
    console.print(table)
    for note in notes:
        console.print(note, markup=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def json_text(content: Any) -> str:
    """JSON, indented; NaN never appears."""
    return json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def emit(text: str, output: Path | None) -> None:
    """Print, or write whole to a file and say so on standard error."""
    if output is None:
        click.echo(text, nl=False)
        return
    with whole_file(output) as file:
        file.write(text)
    click.echo(f"written: {output}", err=True)


def untrained_note(trained: bool | None, source: str) -> str:
    """How a table announces its weights."""
    if trained:
        return f"weights: {source}"
    if trained is None:
        return f"weights: {source} (whether they are trained is not known)"
    return f"weights: {source} - UNTRAINED: the numbers describe the architecture and its initial weights"
