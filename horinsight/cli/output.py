"""How commands print: a table for people, JSON and CSV for programs, to standard output or whole into a file."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click

from horinsight.cli.streams import check_output, output_encoding
from horinsight.report import Format, Report
from horinsight.whole_file import check_writable, whole_file

_FORMAT_OF_SUFFIX: dict[str, Format] = {
    "json": "json",
    "csv": "csv",
    **dict.fromkeys(("", "txt", "md", "log"), "table"),
}

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
        "--format", "fmt", type=click.Choice(get_args(Format)), help="How to print the result.  [default: table]"
    )(command)


@dataclass(frozen=True)
class Output:
    """What `output_options` gives a command.

    Attributes:
        fmt: how to print; told by the path's suffix where nobody says.
        path: the file; standard output when None.
    """

    fmt: Format
    path: Path | None

    def emit(self, report: Report) -> None:
        """Print the report, or write it whole, see `emit`."""
        emit(report, self.fmt, self.path)


def output_options(command: C) -> C:
    """`format_options` as one argument `output` of the command, checked before any work."""

    @functools.wraps(command)
    def with_output(*arguments: Any, fmt: Format | None, output: Path | None, **options: Any) -> Any:
        return command(*arguments, output=Output(chosen_format(fmt, output), output), **options)

    decorated: Any = format_options(with_output)
    return cast(C, decorated)


def chosen_format(fmt: Format | None, output: Path | None) -> Format:
    """The format asked for, or the one that the output's suffix tells; refuses an output that cannot be written."""
    if output is not None:
        check_writable(output)
        suffix = output.suffix.removeprefix(".").lower()
        by_suffix = _FORMAT_OF_SUFFIX.get(suffix)
        if by_suffix is None or (suffix and fmt not in (None, by_suffix)):
            raise ValueError(
                f"--output {output.name} with --format {fmt or 'by suffix'}: expected .json, .csv, or .txt for a table."
            )
        return fmt or by_suffix
    check_output()
    return fmt or "table"


def emit(report: Report, fmt: Format, output: Path | None = None) -> None:
    """Print a report, or write it whole to a file and say so on standard error."""
    if output is None:
        text = report.rendered(fmt, encoding=output_encoding(), terminal=sys.stdout.isatty())
        click.echo(text, nl=False)
        return
    with whole_file(output) as file:
        file.write(report.rendered(fmt))
    click.echo(f"written: {output}", err=True)


SHOWN_REFUSALS = 3  # the others are in the JSON


def refusal_notes(refused: Mapping[str, str]) -> list[str]:
    """What to say below a table that goes without some blocks.

    Args:
        refused: block name → why it is left out.
    """
    lines = [f"left out: {reason}" for reason in list(refused.values())[:SHOWN_REFUSALS]]
    return lines + [f"and {len(refused) - SHOWN_REFUSALS} more left out"] * (len(refused) > SHOWN_REFUSALS)


SHOWN_IMAGES = 8


def images_note(names: Sequence[str]) -> str:
    """Which pictures numbers are of: all of them where they are few.

    Example:
        >>> images_note(["a", "b"]), images_note([f"photos/{number}.png (sha256 0)" for number in range(100)])
        ('images: a, b', 'images: 100, from 0.png, 1.png, 2.png to 99.png; the JSON names them all')
    """
    if len(names) <= SHOWN_IMAGES:
        return f"images: {', '.join(names)}"
    *first, last = (Path(name.split(" (sha256")[0]).name for name in (*names[:3], names[-1]))
    return f"images: {len(names)}, from {', '.join(first)} to {last}; the JSON names them all"


def skipped_notes(skipped: Mapping[str, str]) -> list[str]:
    """What to say below a table of pictures some of which cannot be read.

    Args:
        skipped: name of the picture → why.
    """
    if not skipped:
        return []
    shown = ", ".join(list(skipped)[:SHOWN_REFUSALS]) + ", ..." * (len(skipped) > SHOWN_REFUSALS)
    number = (
        "1 picture that cannot be read is" if len(skipped) == 1 else f"{len(skipped)} pictures that cannot be read are"
    )
    return [f"{number} left out: {shown}"]


def untrained_note(trained: bool | None, source: str) -> str:
    """How a table announces its weights."""
    if trained:
        return f"weights: {source}"
    if trained is None:
        return f"weights: {source} (whether they are trained is not known)"
    return f"weights: {source} - UNTRAINED: the numbers describe the architecture and its initial weights"
