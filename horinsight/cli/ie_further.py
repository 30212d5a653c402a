"""Options of `horinsight ie` beside what is measured: a plot, going on, a comparison."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Further:
    """What `further_options` gives the command.

    Attributes:
        plot: where to draw spectra.
        resume: whether to go on with an interrupted report.
        compare: what to compare with.
    """

    plot: Path | None
    resume: bool
    compare: str | None


def further_options(command: C) -> C:
    """`--plot`, `--resume` and `--compare` as one argument `further` of the command."""

    @functools.wraps(command)
    def with_further(*arguments: Any, plot: Path | None, resume: bool, compare: str | None, **options: Any) -> Any:
        for flag, given in (("--plot", plot is not None), ("--resume", resume)):
            if compare is not None and given:
                raise click.UsageError(f"{flag} is of spectra, and --compare shows ratios of them: leave one out.")
        return command(*arguments, further=Further(plot, resume, compare), **options)

    decorated: Any = with_further
    for option in (
        click.option(
            "--compare",
            metavar="OTHER",
            help="Effects over those of OTHER instead: a model's name, a checkpoint of the same model, the index of "
            "one of its blocks, or a result in .json or .npz.",
        ),
        click.option(
            "--resume", is_flag=True, help="Go on with the run that was interrupted while it wrote --output F.json."
        ),
        click.option(
            "--plot",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Draw the spectra of all blocks: .pdf, .png or .svg.",
        ),
    ):
        decorated = option(decorated)
    with_options: C = decorated
    return with_options
