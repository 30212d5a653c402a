"""`horinsight blocks`: which blocks a model has, and what to call them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horinsight.cli.model_options import model_option
from horinsight.cli.output import chosen_format, emit, format_options
from horinsight.report import Column, Format, Report

if TYPE_CHECKING:
    from horinsight.mixers.blocks import MixingBlock


@click.command("blocks")
@model_option
@click.option(
    "--image-size", type=click.IntRange(min=1), metavar="S", help="Side of the image in pixels.  [default: the model's]"
)
@click.option("--all", "everywhere", is_flag=True, help="Also mixers of the stem, of downsampling and of the head.")
@format_options
def command(model_name: str, image_size: int | None, everywhere: bool, fmt: Format | None, output: Path | None) -> None:
    """List the spatial-mixing blocks of a model, found by what it computes: modules in which positions meet.

    The index, from 1, is what --blocks takes; the name is the mixer's path in the model, path#2 for its second call.

    \b
    Examples:
      horinsight blocks --model resnet18
      horinsight blocks --model swinv2_tiny_window8_256 --all
    """
    from horinsight.mixers.blocks import chosen_blocks, named_blocks
    from horinsight.models.registry import input_size, model_without_weights

    fmt = chosen_format(fmt, output)
    model = model_without_weights(model_name)
    height, width = input_size(model)
    size = (image_size, image_size) if image_size is not None else (height, width)
    numbers = {block.name: block.index for block in chosen_blocks(model, image_size=size)}
    blocks = named_blocks(model, image_size=size, everywhere=everywhere)
    rows = [_row(block, numbers.get(block.name)) for block in blocks]
    report = Report(
        title=f"{model_name}, {len(numbers)} blocks, image {size[0]}x{size[1]}",
        columns=[
            Column("block", lambda row: "-" if row["index"] is None else str(row["index"])),
            Column("name", lambda row: row["name"] or "(the network)"),
            Column("mixer", lambda row: row["mixer"] + ("" if row["known"] else " *")),
            Column("class", "class"),
            Column("order", lambda row: "open" if row["order"] is None else str(row["order"])),
            Column("stride", "stride"),
            Column("map", lambda row: f"{row['height']}x{row['width']}" if row["height"] else "?"),
            *([Column("place", "place")] if everywhere else []),
        ],
        rows=rows,
        notes=[
            "order: neighbours that the design lets act jointly with a position (HorNet, section 3.1).",
            *(["*: told by what it does, its class is in no list."] if not all(row["known"] for row in rows) else []),
            *(["-: not listed without --all; --blocks does not take it."] if len(rows) > len(numbers) else []),
        ],
        head={"model": model_name, "image_size": list(size)},
        rows_key="blocks",
    )
    emit(report, fmt, output)


def _row(block: "MixingBlock", index: int | None) -> dict[str, Any]:
    from horinsight.mixers.blocks import map_size_of

    assert block.found is not None
    rows, columns = map_size_of(block) or (None, None)
    return {
        "index": index,
        "name": block.name,
        "mixer": block.mixer,
        "class": block.found.class_name,
        "known": block.found.kind_known,
        "order": block.order,
        "stride": block.found.stride,
        "place": block.found.place,
        "height": rows,
        "width": columns,
    }
