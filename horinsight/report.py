"""A report is a table with columns, rows and notes, as text for people and as JSON and CSV for programs."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from horinsight.result_files import plain

Format = Literal["table", "json", "csv"]
Row = Mapping[str, Any]

PIPE_WIDTH = 200  # columns of a table that does not go to a terminal
NOTHING = "·"  # the cell of what does not apply or is not known
AT_LEAST = '"≥K": not zero at the highest order measured.'
SPELLINGS = (
    dict.fromkeys("─━╌╍┄┅┈┉╴╶╸╺═–—−‐", "-")
    | dict.fromkeys("│┃║", "|")
    | {"≥": ">=", "≤": "<=", "·": ".", "±": "+-", "Σ": "sum ", "²": "^2", "³": "^3", "→": "->", "×": "x", "√": "sqrt "}
    | {"‘": "'", "’": "'", "“": '"', "”": '"', "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ł": "l", "Ł": "L"}
)


@dataclass(frozen=True)
class Column:
    """One column of a table for people.

    Attributes:
        heading: above it.
        cell: the key of a row's value, or what makes the cell from the row. None and NaN are shown as "·".
    """

    heading: str
    cell: str | Callable[[Row], Any]

    def text(self, row: Row) -> str:
        """The cell of a row."""
        value = row[self.cell] if isinstance(self.cell, str) else self.cell(row)
        return NOTHING if value is None or value != value else str(value)


@dataclass(frozen=True)
class Report:
    """A table value, which every command prints and the viewer offers.

    Attributes:
        title: above the table.
        columns: of the table for people, from left to right.
        rows: one mapping a line, as JSON has them.
        notes: below the table.
        head: what JSON says besides the rows, in its order, which come last.
        rows_key: the key of the rows in JSON; none when None, because the head says it all.
        lines: the lines of CSV, where they are not the rows.

    Example:
        >>> rows = [{"name": "a", "order": 2}, {"name": "b", "order": None}]
        >>> report = Report("Orders", [Column("block", "name"), Column("order", "order")], rows)
        >>> print(report.text(), end="")
        Orders
        <BLANKLINE>
         block   order
         ─────────────
         a           2
         b           ·
        <BLANKLINE>
        >>> report.csv()
        'name,order\\na,2\\nb,\\n'
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    head: Mapping[str, Any] = field(default_factory=dict)
    rows_key: str | None = "rows"
    lines: Sequence[Row] | None = None

    @classmethod
    def of_cells(
        cls, title: str, headings: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str] = ()
    ) -> "Report":
        """A report of texts that are laid out already; the headings are the keys of the rows."""
        rows = [dict(zip(headings, row, strict=True)) for row in cells]
        return cls(title, [Column(heading, heading) for heading in headings], rows, notes)

    def rendered(self, fmt: Format, *, encoding: str = "utf-8", terminal: bool = False) -> str:
        """The report in a format, in characters that an encoding has.

        Args:
            fmt: "table", "json" or "csv".
            encoding: of where it goes. JSON escapes what it lacks, the others spell it (`spelled`).
            terminal: whether a table goes to a terminal: in its width, with bold headings.
        """
        if fmt == "json":
            return self.json(encoding=encoding)
        return spelled(self.csv(), encoding) if fmt == "csv" else self.text(encoding=encoding, terminal=terminal)

    def text(self, *, encoding: str = "utf-8", terminal: bool = False) -> str:
        """A table with the title above and the notes below; numbers (every column but text) align to the right."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        cells = [[spelled(column.text(row), encoding) for column in self.columns] for row in self.rows]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold" if terminal else "")
        for position, column in enumerate(self.columns):
            numeric = all(row[position][:1] in [*"0123456789-≥·>."] for row in cells)
            heading = spelled(column.heading, encoding)
            table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
        for row in cells:
            table.add_row(*row)
        stream = io.StringIO()
        width = None if terminal else PIPE_WIDTH
        console = Console(file=stream, width=width, force_terminal=terminal, highlight=False, emoji=False, markup=False)
        console.print(spelled(self.title, encoding), style="bold" if terminal else None)
        console.print(table)
        for note in self.notes:
            console.print(spelled(note, encoding))
        text = "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
        return spelled(text, encoding)  # the rules

    def json(self, *, encoding: str = "utf-8") -> str:
        """The head and the rows, indented; NaN never appears."""
        content = {**self.head, **({self.rows_key: self.rows} if self.rows_key else {})}
        return json_text(content, encoding=encoding)

    def csv(self) -> str:
        """A header line and a line per row, or per line where there are others."""
        return csv_text(self.rows if self.lines is None else self.lines)


def json_text(content: Any, *, encoding: str = "utf-8") -> str:
    r"""JSON, indented; NaN never appears, and what an encoding lacks is escaped.

    Example:
        >>> json_text(["é", float("nan")], encoding="ascii")
        '[\n  "\\u00e9",\n  null\n]\n'
    """
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text if _has(encoding, text) else json.dumps(plain(content), indent=2, allow_nan=False) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    r"""CSV with a header line; None is an empty cell.

    Example:
        >>> csv_text([{"k": 0, "effect": 0.5}, {"k": 1, "effect": None}])
        'k,effect\n0,0.5\n1,\n'
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows([plain(row) for row in rows])
    return stream.getvalue()


def shown_order(order: int | None, at_least: int) -> str:
    """An order as tables, figures and pages word it: "≥K" where it is open.

    Args:
        order: the order, None where it is open.
        at_least: the highest order measured.

    Example:
        >>> shown_order(4, 7), shown_order(None, 3)
        ('4', '≥3')
    """
    return f"≥{at_least}" if order is None else str(order)


def spelled(text: str, encoding: str) -> str:
    """The text in characters that an encoding has: ">=" for "≥", "e" for "é", an escape for what has no spelling.

    Args:
        text: any text, also with the surrogates of file names that are no UTF-8.
        encoding: its name; one that Python does not know counts as ASCII.

    Example:
        >>> spelled("≥3, café, (Σ|h|)² ± σ", "ascii"), spelled("±", "latin-1"), spelled("\\udcff", "utf-8")
        ('>=3, cafe, (sum |h|)^2 +- sigma', '±', '\\\\xff')
    """
    if _has(encoding, text):
        return text
    return "".join(character if _has(encoding, character) else _spelling(character) for character in text)


def _has(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    except LookupError:
        return text.isascii()
    return True


def _spelling(character: str) -> str:
    """In ASCII."""
    if character in SPELLINGS:
        return SPELLINGS[character]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name
        return f"\\x{ord(character) - 0xDC00:02x}"
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if letters:
        return letters
    name = unicodedata.name(character, "")
    if name.startswith("GREEK ") and " LETTER " in name:
        return name.split(" LETTER ")[1].split()[0].lower()
    return "+" if name.startswith("BOX DRAWINGS") else character.encode("ascii", "backslashreplace").decode()
