"""`horinsight reach`: how far each block sees, and the effective receptive field over the picture."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from horinsight.cli.model_options import blocks_option, model_option, query_option
from horinsight.cli.output import Output, output_options
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.progress import block_progress
from horinsight.cli.reach_report import query_choice, reach_report
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.mixing.influence_options import InfluenceOptions

if TYPE_CHECKING:
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
@output_options
def command(
    model_name: str,
    pictures: Pictures,
    weights: Weights,
    blocks: list[int] | None,
    asked: Asked,
    plot: Path | None,
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
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)

    from horinsight.capture import image_size_of
    from horinsight.data.preprocess import model_view
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.mixing.reach import model_influence
    from horinsight.models.provenance import model_provenance

    named = pictures.named(default_samples(model_name))
    model = model_with_weights(model_name, weights)
    batch = pictures.batch(model, named)
    chosen = chosen_blocks(model, blocks, image_size=image_size_of(batch))
    origin = model_provenance(model, model_name=model_name, image_names=list(named), seed=weights.seed)
    with block_progress("reach", len(chosen)) as show:

        def on_block(block: "MixingBlock", _: "Reach") -> None:
            show(block)

        found = model_influence(
            model,
            batch,
            blocks=blocks,
            queries=asked.queries,
            scope=asked.scope,
            options=InfluenceOptions(probes=asked.probes, seed=weights.seed),
            provenance=origin,
            on_block=on_block,
        )
    settings = {
        **dataclasses.asdict(asked),
        "image_size": list(batch.shape[2:]),
        "blocks": [block.index for block in chosen],
    }
    output.emit(reach_report({block: found[block.name] for block in chosen}, settings=settings))
    if plot is not None:
        from horinsight.figures.reach_maps import draw_reach_maps
        from horinsight.figures.style import save_figure

        titles = {block.name: f"{block.index}: {block.name}" for block in chosen}
        figure = draw_reach_maps(found, model_view(model, batch), titles=titles, image_names=list(named))
        save_figure(figure, plot)
        click.echo(f"written: {plot}", err=True)
