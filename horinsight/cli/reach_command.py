"""`horinsight reach`: how far each block sees, and the effective receptive field over the picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from horinsight.cli.model_options import (
    SpreadCommand,
    Weights,
    blocks_option,
    image_options,
    model_option,
    model_with_weights,
    named_images,
    query_option,
    square,
    weights_options,
)
from horinsight.cli.output import chosen_format, emit, format_options
from horinsight.cli.progress import block_progress
from horinsight.cli.reach_report import query_choice, reach_report
from horinsight.data.images import default_samples
from horinsight.report import Format

if TYPE_CHECKING:
    from horinsight.mixing.block_influence import ReachScope
    from horinsight.mixing.reach_results import Reach
    from horinsight.models.blocks import MixingBlock


@click.command("reach", cls=SpreadCommand)
@model_option
@image_options("what the model is made for, chelsea or digits")
@weights_options
@blocks_option("all")
@click.option(
    "--scope",
    type=click.Choice(["image", "block", "mixer"]),
    default="image",
    show_default=True,
    help="Influence on a block's output of the image (the effective receptive field), of what enters the residual "
    "block, or of what enters its mixer.",
)
@query_option
@click.option(
    "--queries",
    "num_queries",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draw N positions by --seed instead.  [default: the middle of the map]",
)
@click.option(
    "--probes",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Random sign vectors per image and query: each is a backward pass.",
)
@click.option("--exact", is_flag=True, help="A backward pass for every output channel instead of random signs.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the maps over the pictures, block by block: .pdf, .png or .svg.",
)
@format_options
def command(
    model_name: str,
    images: tuple[str, ...],
    image_size: int | None,
    weights: Weights,
    blocks: list[int] | None,
    scope: "ReachScope",
    queries: list[tuple[int, int]],
    num_queries: int | None,
    probes: int,
    exact: bool,
    plot: Path | None,
    fmt: Format | None,
    output: Path | None,
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
    fmt = chosen_format(fmt, output)
    wanted = query_choice(queries, num_queries)
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)

    from horinsight.capture import image_size_of
    from horinsight.data.preprocess import image_batch, model_view
    from horinsight.mixing.reach import model_influence
    from horinsight.models.blocks import chosen_blocks

    pictures = named_images(images or default_samples(model_name))
    model = model_with_weights(model_name, weights)
    batch = image_batch(model, list(pictures.values()), image_size=square(image_size))
    chosen = chosen_blocks(model, blocks, image_size=image_size_of(batch))
    with block_progress("reach", len(chosen)) as show:

        def on_block(block: "MixingBlock", _: "Reach") -> None:
            show(block)

        found = model_influence(
            model,
            batch,
            blocks=blocks,
            queries=wanted,
            scope=scope,
            probes=None if exact else probes,
            seed=weights.seed,
            model_name=model_name,
            image_names=list(pictures),
            on_block=on_block,
        )
    settings = {
        "scope": scope,
        "queries": wanted,
        "probes": None if exact else probes,
        "image_size": list(batch.shape[2:]),
        "blocks": [block.index for block in chosen],
    }
    emit(reach_report({block: found[block.name] for block in chosen}, settings=settings), fmt, output)
    if plot is not None:
        from horinsight.figures.reach_maps import draw_reach_maps
        from horinsight.figures.style import save_figure

        titles = {block.name: f"{block.index}: {block.name}" for block in chosen}
        figure = draw_reach_maps(found, model_view(model, batch), titles=titles, image_names=list(pictures))
        save_figure(figure, plot)
        click.echo(f"written: {plot}", err=True)
