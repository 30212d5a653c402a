"""`horinsight models`: what can be analysed."""

from pathlib import Path
from typing import Any

import click

from horinsight.cli.model_options import matching_models
from horinsight.cli.output import chosen_format, emit, format_options, json_text, text_table
from horinsight.complexity.cost_results import CONVENTION
from horinsight.results import csv_text


@click.command("models")
@click.argument("pattern", default="*")
@format_options
def command(pattern: str, fmt: str | None, output: Path | None) -> None:
    """List the models with their parameters, multiply-accumulates, orders and input size.

    PATTERN is a name or a shell pattern such as 'hornet_*_gf'. Every other model of timm can be used by its name too.
    """
    fmt = chosen_format(fmt, output)
    rows = [_row(name) for name in matching_models(pattern)]
    if fmt == "json":
        emit(json_text({"convention": CONVENTION, "models": rows}), output)
    elif fmt == "csv":
        emit(csv_text([{**row, "orders": " ".join(map(str, row["orders"]))} for row in rows]), output)
    else:
        cells = [
            [
                str(row["name"]),
                f"{row['params'] / 1e6:.1f}" if row["params"] > 1e6 else f"{row['params'] / 1e6:.2g}",
                f"{row['macs'] / 1e9:.2f}" if row["macs"] > 1e8 else f"{row['macs'] / 1e9:.2g}",
                ",".join(map(str, row["orders"])),
                str(row["num_blocks"]),
                str(row["input_size"]),
            ]
            for row in rows
        ]
        title = f"{len(rows)} model{'s' if len(rows) > 1 else ''}"
        headings = ["name", "parameters (M)", "MACs (G)", "orders", "blocks", "input size"]
        notes = [f"MACs: {CONVENTION}, one image.", "Weights are random unless a checkpoint is given."]
        emit(text_table(title, headings, cells, notes, to_file=output is not None), output)


def _row(name: str) -> dict[str, Any]:
    from horinsight.complexity.counted import count_macs
    from horinsight.models.blocks import named_blocks
    from horinsight.models.registry import input_size, model_without_weights

    model = model_without_weights(name)
    height, width = input_size(model)
    count = count_macs(model, (height, width))
    blocks = named_blocks(model)
    orders = list(dict.fromkeys(block.order for block in blocks))
    return {
        "name": name,
        "params": count.params,
        "macs": count.macs,
        "orders": orders,
        "num_blocks": len(blocks),
        "input_size": height if height == width else [height, width],
    }
