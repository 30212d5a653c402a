"""`horinsight mixing`: where one position looks, as maps and as numbers."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import click

from horinsight.cli.model_options import blocks_option, model_option, query_option, step_option
from horinsight.cli.output import emit, refusal_notes, untrained_note
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.reach_report import reach_report
from horinsight.cli.streams import check_output
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.mixing.mixing_results import Adaptivity, QueryMaps
from horinsight.report import Column, Format, Report, Row
from horinsight.results import Provenance, save_result
from horinsight.stats import Estimate
from horinsight.whole_file import check_writable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from horinsight.mixers.blocks import MixingBlock

C = TypeVar("C", bound=Callable[..., Any])

COLUMNS = {
    "input_adaptivity": "adapts to input",
    "location_adaptivity": "to location",
    "mean_distance": "distance (cells)",
    "mean_distance_pixels": "(pixels)",
    "effective_positions": "positions",
    "negative_share": "negative",
}


@dataclass(frozen=True)
class Shown:
    """What of each block is shown: mixing weights, of the last recursion step where `step` is None, or influence."""

    step: int | None
    influence: bool


def shown_options(command: C) -> C:
    """`--step` and `--influence` as one argument `shown` of the command."""

    @functools.wraps(command)
    def with_shown(*arguments: Any, step: int | None, influence: bool, **options: Any) -> Any:
        if influence and step is not None:
            raise click.UsageError(
                "--step is of mixing weights, which --influence does without: leave one of them out."
            )
        return command(*arguments, shown=Shown(step, influence), **options)

    decorated: Any = click.option(
        "--influence",
        is_flag=True,
        help="Influence (root mean square derivatives) instead of mixing weights: for mixers of any kind.",
    )(with_shown)
    return cast(C, step_option(decorated))


@click.command("mixing", cls=SpreadCommand)
@model_option
@picture_options("what the model is made for, chelsea or digits")
@weights_options
@query_option
@blocks_option("all")
@shown_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for mixing.npz (arrays) and mixing.png (maps); needs --query. Made if missing.",
)
@click.option("--format", "fmt", type=click.Choice(get_args(Format)), default="table", show_default=True)
def command(
    model_name: str,
    pictures: Pictures,
    weights: Weights,
    queries: list[tuple[int, int]],
    blocks: list[int] | None,
    shown: Shown,
    output: Path | None,
    fmt: Format,
) -> None:
    """Show where a position of a picture looks in each block.

    The mixing weights h_ij (HorNet Eq. 3.8; for ViT and Swin the attention, Eq. 3.7) are exact. With --query and
    --output the maps of that position are written. The table says how much the weights adapt to the image and to the
    location (shares of their variance, 0 for a convolution), how far they reach, and how many positions they use.
    Where a mixer has no such weights, --influence shows how strongly its output there answers to each position.

    \b
    Examples:
      horinsight mixing --model hornet_s_iso --query 7,7 --output maps
      horinsight mixing --model hornet_tiny_gf --images chelsea coffee rocket --blocks 6-23
      horinsight mixing --model deit_small_patch16_224 --images astronaut --query 3,8 --output maps
      horinsight mixing --model seresnet18 --influence --query 20,30 --output maps
    """
    if bool(queries) != (output is not None):
        raise click.UsageError("--query ROW,COL and --output DIR go together: which position, and where its maps go.")
    from horinsight.capture import image_size_of
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.mixing.adaptivity import model_adaptivity
    from horinsight.mixing.query_maps import query_maps
    from horinsight.models.provenance import model_provenance

    check_output()
    named = pictures.named(default_samples(model_name))
    model = model_with_weights(model_name, weights)
    batch = pictures.batch(model, named)
    if shown.influence:
        _show_influence(model, batch, blocks, queries, output, fmt, seed=weights.seed, model_name=model_name)
        return
    origin = model_provenance(model, model_name=model_name, image_names=list(named), seed=weights.seed)
    refused: dict[str, str] = {}

    def refuse(block: "MixingBlock", reason: ValueError) -> None:
        refused[block.name] = str(reason)

    go_on = refuse if blocks is None else None  # what nobody asked for by its number may be left out
    if output is not None:
        asked = [queries] * len(batch)
        maps = query_maps(model, batch, asked, blocks=blocks, step=shown.step, provenance=origin, on_refusal=go_on)
    found = model_adaptivity(model, batch, blocks=blocks, step=shown.step, on_refusal=go_on)
    if not found:
        raise ValueError(next(iter(refused.values())))
    if output is not None:  # all that can fail has not
        _write_maps(maps, output)
    rows = [
        {"index": block.index, "name": block.name, "mixer": block.mixer, **_numbers(found[block.name])}
        for block in chosen_blocks(model, blocks, image_size=image_size_of(batch))
        if block.name in found
    ]
    emit(_report(found, rows, origin, step=shown.step, refused=refused), fmt)


def _report(
    found: Mapping[str, Adaptivity],
    rows: Sequence[Row],
    origin: Provenance,
    *,
    step: int | None,
    refused: Mapping[str, str],
) -> Report:
    source = {"source": origin.weights, "trained": origin.trained}
    return Report(
        title=f"Mixing weights of {origin.model}",
        columns=[
            Column("block", "index"),
            Column("name", "name"),
            *(Column(heading, functools.partial(_estimate, found, key)) for key, heading in COLUMNS.items()),
        ],
        rows=rows,
        notes=[
            untrained_note(origin.trained, origin.weights),
            f"images: {', '.join(origin.images)}",
            "adapts to input, to location: shares of the variance of the weights; 0 for a plain convolution."
            + (" One image cannot tell the first: give two or more." if len(origin.images) < 2 else ""),
            "± standard error over images. distance: mean over |h|. positions: (Σ|h|)² / Σh². negative: share of |h|.",
            f"held fixed: {'; '.join(dict.fromkeys(one.convention['held'] for one in found.values()))}.",
            *refusal_notes(refused),
        ],
        head={
            "model": origin.model,
            "weights": source,
            "images": list(origin.images),
            "seed": origin.seed,
            "step": step,
            "declared": {name: {key: one.convention[key] for key in ("value", "held")} for name, one in found.items()},
            "not_measured": dict(refused),
        },
        rows_key="blocks",
        lines=[{"model": origin.model, "trained": origin.trained, **row} for row in rows],
    )


def _write_maps(maps: QueryMaps, output: Path) -> None:
    from horinsight.figures.mixing_maps import draw_mixing_maps
    from horinsight.figures.style import save_figure

    arrays, picture = output / "mixing.npz", output / "mixing.png"
    output.mkdir(parents=True, exist_ok=True)
    check_writable(arrays)
    check_writable(picture)
    figure = draw_mixing_maps(maps)
    save_result(maps, arrays)
    save_figure(figure, picture)
    click.echo(f"written: {arrays}, {picture}", err=True)


def _show_influence(
    model: "nn.Module",
    batch: "Tensor",
    blocks: list[int] | None,
    queries: list[tuple[int, int]],
    output: Path | None,
    fmt: Format,
    *,
    seed: int,
    model_name: str,
) -> None:
    """Influence within each mixer: the table of `horinsight reach --scope mixer`, and maps in place of weights."""
    from horinsight.capture import image_size_of
    from horinsight.data.preprocess import model_view
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.mixing.reach import PROBES, influence_maps, model_influence

    chosen = chosen_blocks(model, blocks, image_size=image_size_of(batch))
    found = model_influence(model, batch, blocks=blocks, queries=queries or None, seed=seed, model_name=model_name)
    if output is not None:
        origin = next(iter(found.values())).provenance
        assert origin is not None
        indices = [block.index for block in chosen]
        pictures = model_view(model, batch)
        maps = influence_maps(found, pictures=pictures, image_names=origin.images, block_indices=indices)
        _write_maps(maps, output)
    settings = {"scope": "mixer", "queries": queries or None, "probes": PROBES}
    emit(reach_report({block: found[block.name] for block in chosen}, settings=settings), fmt)


def _numbers(found: Adaptivity) -> dict[str, Any]:
    numbers: dict[str, Any] = {"num_images": found.num_images}
    for key in (*COLUMNS, "static_share", "input_deviation", "location_deviation"):
        estimate = getattr(found, key)
        numbers |= {key: estimate.value, f"{key}_se": estimate.standard_error}
    return numbers


def _estimate(found: Mapping[str, Adaptivity], key: str, row: Row) -> Estimate | None:
    estimate: Estimate = getattr(found[row["name"]], key)
    return None if isnan(estimate.value) else estimate
