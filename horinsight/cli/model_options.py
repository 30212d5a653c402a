"""Options that name a model and its blocks, the same for every command; those beside them are asked for here, too."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from horinsight.cli.picture_options import SpreadCommand, image_options, named_images, square
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options

__all__ = [
    "SpreadCommand",
    "Weights",
    "blocks_option",
    "image_options",
    "matching_models",
    "model_option",
    "model_with_weights",
    "named_images",
    "query_option",
    "required_model_option",
    "square",
    "step_option",
    "weights_options",
]

MAX_BLOCK_INDEX = 9999  # keeps `--blocks 1-99999999999` from filling the memory

TRAINED_MODEL = "hornet_digits_iso"

MAX_LISTED = 40  # models of timm, each of which is built to be counted

C = TypeVar("C", bound=Callable[..., Any])


def model_option(command: C) -> C:
    """`--model`, by default the one that comes trained."""
    return click.option(
        "--model",
        "model_name",
        default=TRAINED_MODEL,
        show_default=True,
        metavar="NAME",
        callback=_model_name,
        help="See `horinsight models`.",
    )(command)


def required_model_option(command: C) -> C:
    """`--model`, which must be given."""
    return click.option(
        "--model", "model_name", required=True, metavar="NAME", callback=_model_name, help="See `horinsight models`."
    )(command)


def blocks_option(default: str) -> Callable[[C], C]:
    """`--blocks`; the default in words."""
    return click.option(
        "--blocks",
        metavar="1,3-5",
        callback=_block_indices,
        help=f"Indices from `horinsight blocks`.  [default: {default}]",
    )


def step_option(command: C) -> C:
    """`--step`, of gnConv's recursion."""
    return click.option(
        "--step", type=click.IntRange(min=0), metavar="k", help="Recursion step of gnConvs.  [default: the last]"
    )(command)


def query_option(command: C) -> C:
    """`--query`, repeatable."""
    return click.option(
        "--query",
        "queries",
        multiple=True,
        metavar="ROW,COL",
        callback=_queries,
        help="A position, in cells of the map of the first block shown, from 0,0 at the top left. Repeatable.",
    )(command)


def _queries(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]]:
    queries = []
    for value in values:
        row, comma, col = value.partition(",")
        if not comma or not row.strip().isdecimal() or not col.strip().isdecimal():
            raise click.BadParameter(f"expected a row and a column such as 7,7, got {value!r}.", ctx, parameter)
        queries.append((int(row), int(col)))
    return queries


def _model_name(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from horinsight.models.registry import check_model_name

    check_model_name(value)
    return value


def _block_indices(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    indices: list[int] = []
    for part in value.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        numbers = first.strip().isdecimal() and last.strip().isdecimal()
        if not numbers or not int(first) <= int(last) <= MAX_BLOCK_INDEX:
            raise click.BadParameter(f"expected numbers and ranges such as 1,3-5, got {value!r}.", ctx, parameter)
        indices.extend(range(int(first), int(last) + 1))
    return indices


def matching_models(pattern: str) -> list[str]:
    """Names of ours that match, then names of timm's where a pattern was given, or a clear refusal.

    Raises:
        click.BadParameter: nothing matches.
    """
    import timm

    from horinsight.models.registry import list_models

    own = list_models(pattern)
    others = [] if pattern == "*" else timm.list_models(pattern)
    names = [*own, *(name for name in others if name not in own)]
    if not names:
        raise click.BadParameter(
            f"no model of horinsight or timm matches {pattern!r}: expected a name or a pattern such as 'hornet_*_gf'."
        )
    if len(names) > MAX_LISTED:
        raise click.BadParameter(f"{len(names)} models match {pattern!r}: narrow it to {MAX_LISTED} or fewer.")
    return names
