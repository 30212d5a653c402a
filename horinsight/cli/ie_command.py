"""`horinsight ie`: interaction effects and orders of a model's blocks."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from horinsight.cli.model_options import (
    SpreadCommand,
    Weights,
    blocks_option,
    image_options,
    model_option,
    model_with_weights,
    named_images,
    square,
    weights_options,
)
from horinsight.cli.output import chosen_format, csv_text, emit, format_options, json_text, text_table, untrained_note
from horinsight.data.preprocess import image_batch
from horinsight.interaction.interaction_effect import InteractionSpectrum, Method
from horinsight.interaction.model_spectra import model_interaction_spectra
from horinsight.models.blocks import MixingBlock, chosen_blocks
from horinsight.models.checkpoints import weights_origin


@click.command("ie", cls=SpreadCommand)
@model_option
@image_options("chelsea")
@weights_options
@blocks_option("every gnConv")
@click.option(
    "--functional",
    is_flag=True,
    help="Leave non-linearities as they are, instead of replacing each by its tangent at the image.",
)
@click.option(
    "--max-order", type=click.IntRange(min=0), metavar="K", help="Highest order measured.  [default: the design's + 2]"
)
@click.option(
    "--tuples",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="T",
    help="Chains of positions drawn per image and block.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "nested", "closed_form"]),
    default="auto",
    show_default=True,
    help="Derivatives: nested reverse mode, or the closed form of gnConv, which auto takes where there is one.",
)
@format_options
def command(
    model_name: str,
    images: tuple[str, ...],
    image_size: int | None,
    weights: Weights,
    blocks: list[int] | None,
    functional: bool,
    max_order: int | None,
    tuples: int,
    method: Method,
    fmt: str | None,
    output: Path | None,
) -> None:
    """Measure how many positions act together in each gnConv of a model, on photographs.

    For k = 0, 1, 2, ... the table shows effect_k: how strongly k neighbours act jointly with a position on the block's
    output there (root mean square of a mixed derivative of order k + 1, relative to the spread of the output). The
    order of a block is the largest k whose effect is not exactly zero; an exact zero is printed as "0".

    \b
    Examples:
      horinsight ie --model hornet_s_iso
      horinsight ie --model hornet_tiny_gf --images coffee rocket --blocks 1,6,24
      horinsight ie --model hornet_tiny_7x7 --checkpoint hornet_tiny_7x7.pth --images cat.jpg --format json
    """
    fmt = chosen_format(fmt, output)
    pictures = named_images(images)
    model = model_with_weights(model_name, weights)
    chosen = [block for block in chosen_blocks(model, blocks) if blocks is not None or block.mixer == "gnconv"]
    batch = image_batch(model, list(pictures.values()), image_size=square(image_size))
    with _progress(len(chosen)) as on_block:
        spectra = model_interaction_spectra(
            model,
            batch,
            blocks=blocks,
            max_order=max_order,
            num_tuples=tuples,
            method=method,
            explicit=not functional,
            seed=weights.seed,
            model_name=model_name,
            image_names=list(pictures),
            on_block=on_block,
        )

    origin = weights_origin(model)
    rows = [_row(block, spectra[block.name]) for block in chosen]
    any_spectrum = next(iter(spectra.values()))
    if fmt == "json":
        provenance = any_spectrum.provenance
        content = {
            "model": model_name,
            "weights": {
                "source": origin.source,
                "trained": origin.trained,
                "sha256": provenance.weights_sha256 if provenance else None,
            },
            "images": list(pictures),
            "convention": any_spectrum.convention,
            "seed": weights.seed,
            "versions": provenance.versions if provenance else None,
            "blocks": rows,
        }
        emit(json_text(content), output)
    elif fmt == "csv":
        emit(csv_text([line for row in rows for line in _csv_lines(model_name, origin.trained, row)]), output)
    else:
        notes = [
            untrained_note(origin.trained, origin.source),
            f"images: {', '.join(pictures)}; {any_spectrum.num_draws} draws a block, seed {weights.seed}",
            f"effect_k: {any_spectrum.convention['effect']}",
            f"non-linearities: {any_spectrum.convention['non_linearities']}; "
            f"derivatives: {any_spectrum.convention['estimator']}",
            '"0" is an exact zero: every draw is 0.0 bit for bit. "≥K": not zero at the highest order measured.',
        ]
        title = f"Interaction orders of {model_name}, {any_spectrum.convention['kind']}, by gnConv"
        emit(_table(title, rows, notes, to_file=output is not None), output)


def _row(block: MixingBlock, spectrum: InteractionSpectrum) -> dict[str, Any]:
    return {
        "index": block.index,
        "name": block.name,
        "mixer": block.mixer,
        "declared_order": block.order,
        "location_order": spectrum.location_order,
        "degree_order": spectrum.degree_order,
        "at_least": spectrum.at_least,
        "effects": spectrum.effects.tolist(),
        "ci_low": spectrum.ci_low.tolist(),
        "ci_high": spectrum.ci_high.tolist(),
        "exact_zero": spectrum.exact_zero.tolist(),
        "max_share": spectrum.max_share.tolist(),
        "num_draws": spectrum.num_draws,
    }


def _csv_lines(model: str, trained: bool | None, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    per_order = ("effects", "ci_low", "ci_high", "exact_zero", "max_share")
    for k in range(len(row["effects"])):
        yield {
            "model": model,
            "trained": trained,
            **{key: value for key, value in row.items() if key not in per_order},
            "k": k,
            "effect": row["effects"][k],
            **{key: row[key][k] for key in per_order[1:]},
        }


def _table(title: str, rows: list[dict[str, Any]], notes: list[str], *, to_file: bool) -> str:
    num_orders = max(len(row["effects"]) for row in rows)
    columns = ["block", "name", "design", "order", "degree", *(f"k={k}" for k in range(num_orders))]
    cells = []
    for row in rows:
        effects = [
            "0" if zero else f"{e:#.2g}".rstrip(".") for e, zero in zip(row["effects"], row["exact_zero"], strict=True)
        ]
        top = len(effects) - 1
        orders = [f"≥{top}" if order is None else str(order) for order in (row["location_order"], row["degree_order"])]
        effects += ["·"] * (num_orders - len(effects))
        cells.append([str(row["index"]), row["name"], str(row["declared_order"]), *orders, *effects])
    return text_table(title, columns, cells, notes, to_file=to_file)


@contextmanager
def _progress(num_blocks: int) -> Iterator[Any]:
    """A bar on a terminal, a line per block elsewhere; on standard error."""
    console = Console(stderr=True)
    start = time.monotonic()
    if not console.is_terminal:
        done = 0

        def line(block: MixingBlock, spectrum: InteractionSpectrum) -> None:
            nonlocal done
            done += 1
            print(f"[{done}/{num_blocks}] {block.name} {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("interaction effects", total=num_blocks)
        yield lambda block, spectrum: progress.update(task, advance=1, description=block.name)
