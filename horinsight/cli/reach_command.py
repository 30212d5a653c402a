"""`horinsight reach`: how far each block sees, and the effective receptive field over the picture."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from horinsight.cli.model_options import blocks_option, model_option, query_option
from horinsight.cli.output import Output, output_options
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.progress import block_progress, stream_progress
from horinsight.cli.reach_report import query_choice, reach_report
from horinsight.cli.shown_pictures import MOST_SHOWN, say_how_many_are_shown, shown_numbers
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.mixing.influence_options import InfluenceOptions

if TYPE_CHECKING:
    from torch import nn

    from horinsight.data.picture_stream import PictureStream
    from horinsight.mixers.blocks import MixingBlock
    from horinsight.mixing.block_influence import ReachScope
    from horinsight.mixing.reach_results import Reach

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Asked:
    """What `asked_options` gives the command: from where, at which positions, by how many random signs."""

    scope: "ReachScope"
    queries: int | list[tuple[int, int]] | None
    probes: int | None


def asked_options(*, argument: str = "asked") -> Callable[[C], C]:
    """`--scope`, `--query`, `--queries`, `--probes` and `--exact` as one argument of the command."""
    return lambda command: _asked_options(command, argument)


def _asked_options(command: C, argument: str) -> C:
    @functools.wraps(command)
    def with_asked(
        *arguments: Any,
        scope: "ReachScope",
        queries: list[tuple[int, int]],
        num_queries: int | None,
        probes: int,
        exact: bool,
        **options: Any,
    ) -> Any:
        asked = Asked(scope, query_choice(queries, num_queries), None if exact else probes)
        return command(*arguments, **{argument: asked}, **options)

    decorated: Any = with_asked
    for option in (
        click.option("--exact", is_flag=True, help="A backward pass for every output channel instead of random signs."),
        click.option(
            "--probes",
            type=click.IntRange(min=1),
            default=16,
            show_default=True,
            metavar="N",
            help="Random sign vectors per image and query: each is a backward pass.",
        ),
        click.option(
            "--queries",
            "num_queries",
            type=click.IntRange(min=1),
            metavar="N",
            help="Draw N positions by --seed instead.  [default: the middle of the map]",
        ),
        query_option,
        click.option(
            "--scope",
            type=click.Choice(["image", "block", "mixer"]),
            default="image",
            show_default=True,
            help="Influence on a block's output of the image (the effective receptive field), of what enters the "
            "residual block, or of what enters its mixer.",
        ),
    ):  # click shows the last one first
        decorated = option(decorated)
    return cast(C, decorated)


@click.command("reach", cls=SpreadCommand)
@model_option
@picture_options("what the model is made for, chelsea or digits")
@weights_options
@blocks_option("all")
@asked_options()
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the maps over the pictures, block by block: .pdf, .png or .svg.",
)
@click.option(
    "--show",
    metavar="N|NAMES",
    help=f"Pictures that are drawn: how many of the first, or names; numbers are of all.  [default: {MOST_SHOWN}]",
)
@output_options
def command(
    model_name: str,
    pictures: Pictures,
    weights: Weights,
    blocks: list[int] | None,
    asked: Asked,
    plot: Path | None,
    show: str | None,
    output: Output,
) -> None:
    """Measure how far each block of a model sees, on photographs.

    For a position of a block's output the influence of position j is the root mean square, over pairs of channels, of
    the derivatives there: whatever the block computes, it needs no mixing weights. The table shows the radii that hold
    50, 90 and 99 % of the sum of its squares, and the root of that sum.

    \b
    Examples:
      horinsight reach --model hornet_s_iso --plot reach.png
      horinsight reach --model hornet_tiny_gf --images coffee rocket --blocks 1,6,24 --queries 4
      horinsight reach --model seresnet18 --scope block --query 3,3 --output reach.json
    """
    if show is not None and plot is None:
        raise click.UsageError("--show is of what is drawn: give --plot too.")
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)

    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.mixing.reach import model_influence
    from horinsight.models.provenance import model_provenance

    model = model_with_weights(model_name, weights)
    stream = pictures.stream(model, default_samples(model_name))
    shown = shown_numbers(show, stream.names) if plot is not None else []
    chosen = chosen_blocks(model, blocks, image_size=stream.image_size)
    origin = model_provenance(model, model_name=model_name, image_names=stream.names, seed=weights.seed)
    with ExitStack() as stack:
        stack.enter_context(stream_progress("reach", stream))
        done = None
        if stream.one_batch() is not None:  # of more, all blocks are finished together
            done = stack.enter_context(block_progress("reach", len(chosen)))

        def on_block(block: "MixingBlock", _: "Reach") -> None:
            if done is not None:
                done(block)

        found = model_influence(
            model,
            stream,
            blocks=blocks,
            queries=asked.queries,
            scope=asked.scope,
            options=InfluenceOptions(probes=asked.probes, seed=weights.seed),
            provenance=origin,
            on_block=on_block,
            shown=shown,
        )
    settings = {
        **dataclasses.asdict(asked),
        "image_size": list(stream.image_size),
        "blocks": [block.index for block in chosen],
    }
    in_order = {block: found[block.name] for block in chosen}
    output.emit(reach_report(in_order, settings=settings, skipped=stream.broken))
    if plot is not None:
        _draw(in_order, model, stream, shown, plot)


def _draw(
    found: "Mapping[MixingBlock, Reach]", model: "nn.Module", stream: "PictureStream", shown: Sequence[int], plot: Path
) -> None:
    """The figure of the pictures that are shown, and how many are not."""
    from horinsight.data.preprocess import model_view
    from horinsight.figures.reach_maps import draw_reach_maps
    from horinsight.figures.style import save_figure

    few = stream.some(shown)
    titles = {block.name: f"{block.index}: {block.name}" for block in found}
    reaches = {block.name: reach for block, reach in found.items()}
    figure = draw_reach_maps(reaches, model_view(model, few.images), titles=titles, image_names=few.names)
    save_figure(figure, plot)
    click.echo(f"written: {plot}", err=True)
    say_how_many_are_shown(len(shown), len(stream))
