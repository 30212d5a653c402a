"""Options of `horinsight attribute`: what is asked, and how."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from horinsight.attribution.attribution_methods import ATTRIBUTION_METHODS, attribution_method
from horinsight.cli.model_options import query_option
from horinsight.cli.shown_pictures import MOST_SHOWN

C = TypeVar("C", bound=Callable[..., Any])

OF_A_PREDICTION = ("saliency", "integrated_gradients", "deep_lift", "mixing_rollout")
OF_A_POSITION = ("influence", "integrated_gradients", "deep_lift")
IN_THE_MIXER = ("mixing_weights", "influence", "deep_lift")
BASELINES = ("black", "mean", "blur", "others")


@dataclass(frozen=True)
class Asked:
    """What `asked_options` gives the command.

    Attributes:
        methods: names; the defaults when None.
        target: a class; the predicted one when None.
        block: number of a block whose positions are explained instead.
        queries: its positions; its middle when empty.
        of: what positions are explained in.
        baseline: what stands for nothing.
    """

    methods: tuple[str, ...] | None
    target: int | None
    block: int | None
    queries: list[tuple[int, int]]
    of: str
    baseline: str

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods to run."""
        of_a_position = IN_THE_MIXER if self.of == "mixer_input" else OF_A_POSITION
        return self.methods or (OF_A_PREDICTION if self.block is None else of_a_position)


def asked_options(command: C) -> C:
    """`--methods`, `--target`, `--block`, `--query`, `--of` and `--baseline` as one argument `asked`."""

    @functools.wraps(command)
    def with_asked(*arguments: Any, methods: tuple[str, ...] | None, block: int | None, **options: Any) -> Any:
        given = {name: options.pop(name) for name in ("target", "queries", "of", "baseline")}
        if block is None and (given["queries"] or given["of"] is not None):
            raise click.UsageError("--query and --of ask about a position of a block: say which with --block N.")
        if block is not None and given["target"] is not None:
            raise click.UsageError("--target asks about a class and --block about a position: take one of them.")
        given["of"] = given["of"] or "image"
        for name in methods or ():
            try:
                attribution_method(name, "prediction" if block is None else "position")
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="'--methods'") from error
        return command(*arguments, asked=Asked(methods, block=block, **given), **options)

    decorated: Any = with_asked
    for option in (
        click.option(
            "--baseline",
            type=click.Choice(BASELINES),
            default="black",
            show_default=True,
            help="What stands for nothing in a picture, for methods that compare.",
        ),
        click.option(
            "--of",
            type=click.Choice(["image", "block_input", "mixer_input"]),
            help="What a position is explained in.  [default: image]",
        ),
        query_option,
        click.option(
            "--block", type=click.IntRange(min=1), metavar="N", help="Explain positions of this block's output instead."
        ),
        click.option(
            "--target", type=click.IntRange(min=0), metavar="CLASS", help="Class.  [default: the predicted one]"
        ),
        click.option(
            "--methods",
            metavar="A,B,...",
            callback=_names,
            help=f"Of {', '.join(ATTRIBUTION_METHODS)}.  [default: {','.join(OF_A_PREDICTION)}; with --block "
            f"{','.join(OF_A_POSITION)}, within a mixer {','.join(IN_THE_MIXER)}]",
        ),
    ):  # click shows the last one first
        decorated = option(decorated)
    return cast(C, decorated)


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if not names:
        raise click.BadParameter("expected names such as saliency,deep_lift, got none.", ctx, parameter)
    return names


def how_options(command: C) -> C:
    """`--steps`, `--samples` and `--layer` as one argument `how`, an `AttributionOptions` but for the seed."""

    @functools.wraps(command)
    def with_how(*arguments: Any, steps: int | None, samples: int | None, layer: str | None, **options: Any) -> Any:
        how = {"steps": steps, "samples": samples, "layer": layer}
        return command(*arguments, how=how, **options)

    decorated: Any = with_how
    for option in (
        click.option("--layer", metavar="NAME", help="Block (number or name) or module that layer methods tell of."),
        click.option(
            "--samples", type=click.IntRange(min=1), metavar="N", help="Random draws of methods that draw.  [by method]"
        ),
        click.option(
            "--steps",
            type=click.IntRange(min=1),
            metavar="N",
            help="Steps of the path from the baseline.  [default: doubled until the gap is 1 %]",
        ),
    ):
        decorated = option(decorated)
    return cast(C, decorated)


@dataclass(frozen=True)
class MapFiles:
    """Where maps go, and of which pictures.

    Attributes:
        plot: the figure.
        arrays: the arrays.
        show: of which pictures, see `shown_numbers`.
    """

    plot: Path | None
    arrays: Path | None
    show: str | None

    @property
    def wanted(self) -> bool:
        """Whether any are asked for."""
        return self.plot is not None or self.arrays is not None


def map_options(command: C) -> C:
    """`--plot`, `--arrays` and `--show` as one argument `files`."""

    @functools.wraps(command)
    def with_files(*arguments: Any, plot: Path | None, arrays: Path | None, show: str | None, **options: Any) -> Any:
        files = MapFiles(plot, arrays, show)
        if show is not None and not files.wanted:
            raise click.UsageError("--show is of maps: give --plot or --arrays too.")
        return command(*arguments, files=files, **options)

    decorated: Any = with_files
    for option in (
        click.option(
            "--show",
            metavar="N|NAMES",
            help=f"Pictures whose maps are drawn and kept: how many of the first, or names.  [default: {MOST_SHOWN}]",
        ),
        click.option("--arrays", type=click.Path(path_type=Path), metavar="FILE", help="Keep the maps: .npz."),
        click.option(
            "--plot",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Draw the maps over the pictures: .pdf, .png, .svg.",
        ),
    ):  # click shows the last one first
        decorated = option(decorated)
    return cast(C, decorated)
