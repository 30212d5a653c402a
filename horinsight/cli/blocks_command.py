"""`horinsight blocks`: which blocks a model has, and what to call them."""

from pathlib import Path

import click

from horinsight.cli.model_options import model_option
from horinsight.cli.output import chosen_format, emit, format_options
from horinsight.report import Column, Format, Report


@click.command("blocks")
@model_option
@click.option(
    "--image-size", type=click.IntRange(min=1), metavar="S", help="Side of the image in pixels.  [default: the model's]"
)
@format_options
def command(model_name: str, image_size: int | None, fmt: Format | None, output: Path | None) -> None:
    """List the spatial-mixing blocks of a model: index (from 1), name, mixer, order, map size.

    The index is what --blocks takes; the name is the mixer's path in the model, path#2 for its second call.
    """
    from horinsight.mixers.blocks import block_map_sizes, chosen_blocks
    from horinsight.models.registry import input_size, model_without_weights

    fmt = chosen_format(fmt, output)
    model = model_without_weights(model_name)
    height, width = input_size(model)
    size = (image_size, image_size) if image_size is not None else (height, width)
    blocks = chosen_blocks(model, image_size=size)
    maps = block_map_sizes(model, size)
    rows = [
        {
            "index": block.index,
            "name": block.name,
            "mixer": block.mixer,
            "order": block.order,
            "height": (maps[block.name] or (None, None))[0],
            "width": (maps[block.name] or (None, None))[1],
        }
        for block in blocks
    ]
    report = Report(
        title=f"{model_name}, {len(rows)} blocks, image {size[0]}x{size[1]}",
        columns=[
            Column("block", "index"),
            Column("name", "name"),
            Column("mixer", "mixer"),
            Column("order", "order"),
            Column("map", lambda row: f"{row['height']}x{row['width']}" if row["height"] else "?"),
        ],
        rows=rows,
        notes=["order: neighbours that the design lets act jointly with a position (HorNet, section 3.1)."],
        head={"model": model_name, "image_size": list(size)},
        rows_key="blocks",
    )
    emit(report, fmt, output)
