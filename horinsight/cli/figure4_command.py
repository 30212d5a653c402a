"""`horinsight figure4`: the paper's Figure 4 for any model."""

from pathlib import Path

import click

from horinsight.cli.model_options import blocks_option, model_option, query_option, step_option
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.results import save_result
from horinsight.whole_file import check_writable

PICTURES = ("chelsea", "astronaut", "coffee", "rocket")
QUERIES_PER_PICTURE = 2


@click.command("figure4", cls=SpreadCommand)
@model_option
@picture_options("chelsea astronaut coffee rocket, or digits")
@weights_options
@query_option
@blocks_option("1,3,5,7,8,12")
@step_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Figure, .pdf, .png or .svg; the arrays go beside it as .npz.",
)
def command(
    model_name: str,
    pictures: Pictures,
    weights: Weights,
    queries: list[tuple[int, int]],
    blocks: list[int] | None,
    step: int | None,
    output: Path,
) -> None:
    """Draw Figure 4 of the paper: for each photograph two positions, and where they look in six blocks.

    Shown is the mean of the mixing weights h_ij over the channels, over the photograph, with limits of its own for each
    map. By default blocks 1, 3, 5, 7, 8, 12 as in the paper, or those of them that the model has, four photographs that
    come along, and positions by --seed.

    \b
    Examples:
      horinsight figure4 --model hornet_s_iso --output figure4.pdf
      horinsight figure4 --model vit_tiny_patch16_224 --images chelsea --query 5,3 --query 10,9 --output vit.png
    """
    from horinsight.figures.style import check_figure_path, save_figure

    check_figure_path(output)
    arrays = output.with_suffix(".npz")
    check_writable(arrays)
    from horinsight.capture import image_size_of
    from horinsight.figures.mixing_maps import draw_mixing_maps
    from horinsight.mixers.blocks import block_map_sizes, chosen_blocks, named_blocks
    from horinsight.mixing.query_maps import query_maps
    from horinsight.mixing.query_places import FIGURE_4_BLOCKS, random_queries
    from horinsight.models.provenance import model_provenance

    usual = default_samples(model_name)
    named = pictures.named(PICTURES if usual == [PICTURES[0]] else usual)
    model = model_with_weights(model_name, weights)
    batch = pictures.batch(model, named)
    shown = image_size_of(batch)
    if blocks is None:
        available = len(named_blocks(model, image_size=shown))
        blocks = [index for index in FIGURE_4_BLOCKS if index <= available]
    first = chosen_blocks(model, blocks, image_size=shown)[0]
    size = block_map_sizes(model, shown)[first.name]
    if queries:
        chosen = [queries] * len(batch)
    else:
        if size is None:
            raise ValueError(f"The tokens of {model_name} do not form a map whose rows and columns can be told.")
        chosen = random_queries(len(batch), QUERIES_PER_PICTURE, size, seed=weights.seed)
    origin = model_provenance(model, model_name=model_name, image_names=list(named), seed=weights.seed)
    maps = query_maps(model, batch, chosen, blocks=blocks, step=step, provenance=origin)
    save_figure(draw_mixing_maps(maps), output)
    save_result(maps, arrays)
    click.echo(f"written: {output}, {arrays}", err=True)
