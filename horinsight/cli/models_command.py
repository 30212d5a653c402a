"""`horinsight models`: what can be analysed."""

from pathlib import Path
from typing import Any

import click

from horinsight.cli.model_options import matching_models
from horinsight.cli.output import chosen_format, emit, format_options
from horinsight.complexity.cost_results import CONVENTION
from horinsight.report import Column, Format, Report


@click.command("models")
@click.argument("pattern", default="*")
@format_options
def command(pattern: str, fmt: Format | None, output: Path | None) -> None:
    """List the models with their parameters, multiply-accumulates, orders and input size.

    PATTERN is a name or a shell pattern such as 'hornet_*_gf'. Every other model of timm can be used by its name too.
    """
    fmt = chosen_format(fmt, output)
    rows = [_row(name) for name in matching_models(pattern)]
    report = Report(
        title=f"{len(rows)} model{'s' if len(rows) > 1 else ''}",
        columns=[
            Column("name", "name"),
            Column("parameters (M)", lambda row: format(row["params"] / 1e6, ".1f" if row["params"] > 1e6 else ".2g")),
            Column("MACs (G)", lambda row: format(row["macs"] / 1e9, ".2f" if row["macs"] > 1e8 else ".2g")),
            Column("orders", lambda row: ",".join(map(str, row["orders"]))),
            Column("blocks", "num_blocks"),
            Column("input size", "input_size"),
        ],
        rows=rows,
        notes=[f"MACs: {CONVENTION}, one image.", "Weights are random unless a checkpoint is given."],
        head={"convention": CONVENTION},
        rows_key="models",
        lines=[{**row, "orders": " ".join(map(str, row["orders"]))} for row in rows],
    )
    emit(report, fmt, output)


def _row(name: str) -> dict[str, Any]:
    from horinsight.complexity.counted import count_macs
    from horinsight.mixers.blocks import named_blocks
    from horinsight.models.registry import input_size, model_without_weights

    model = model_without_weights(name)
    height, width = input_size(model)
    count = count_macs(model, (height, width))
    blocks = named_blocks(model)
    orders = list(dict.fromkeys(block.order for block in blocks if block.order is not None))
    return {
        "name": name,
        "params": count.params,
        "macs": count.macs,
        "orders": orders,
        "num_blocks": len(blocks),
        "input_size": height if height == width else [height, width],
    }
