"""`horinsight mixing`: where one position looks, as maps and as numbers."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import click

from horinsight.cli.mixing_report import mixing_numbers, mixing_report
from horinsight.cli.model_options import blocks_option, model_option, query_option, step_option
from horinsight.cli.output import emit
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.progress import stream_progress
from horinsight.cli.reach_report import reach_report
from horinsight.cli.shown_pictures import MOST_SHOWN, shown_numbers, some_of, write_maps
from horinsight.cli.streams import check_output
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.mixing.mixing_results import QueryMaps
from horinsight.report import Format
from horinsight.results import Provenance

if TYPE_CHECKING:
    from torch import nn

    from horinsight.data.picture_stream import PictureStream
    from horinsight.mixers.blocks import MixingBlock

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Shown:
    """What is shown.

    Attributes:
        step: of each block the mixing weights of this recursion step; the last when None.
        influence: influence instead of mixing weights.
        pictures: whose maps are drawn, see `shown_numbers`.
    """

    step: int | None
    influence: bool
    pictures: str | None


def shown_options(command: C) -> C:
    """`--step`, `--influence` and `--show` as one argument `shown` of the command."""

    @functools.wraps(command)
    def with_shown(*arguments: Any, step: int | None, influence: bool, show: str | None, **options: Any) -> Any:
        if show is not None and options.get("output") is None:
            raise click.UsageError("--show is of maps: give --query and --output too.")
        if show is not None and show.strip() == "0":
            raise click.UsageError("--show expects how many of the first pictures, at least 1, or names, got 0.")
        if influence and step is not None:
            raise click.UsageError(
                "--step is of mixing weights, which --influence does without: leave one of them out."
            )
        return command(*arguments, shown=Shown(step, influence, show), **options)

    with_show: Any = click.option(
        "--show",
        metavar="N|NAMES",
        help=f"Pictures whose maps are drawn and kept: how many of the first, or names.  [default: {MOST_SHOWN}]",
    )(with_shown)
    decorated: Any = click.option(
        "--influence",
        is_flag=True,
        help="Influence (root mean square derivatives) instead of mixing weights: for mixers of any kind.",
    )(with_show)
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
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.mixing.model_adaptivity import model_adaptivity
    from horinsight.models.provenance import model_provenance

    check_output()
    model = model_with_weights(model_name, weights)
    stream = pictures.stream(model, default_samples(model_name))
    numbers = shown_numbers(shown.pictures, stream.names)
    if shown.influence:
        some = numbers if output is not None else []
        _show_influence(model, stream, some, blocks, queries, output, fmt, origin=(model_name, weights.seed))
        return
    origin = model_provenance(model, model_name=model_name, image_names=stream.names, seed=weights.seed)
    refused: dict[str, str] = {}

    def refuse(block: "MixingBlock", reason: ValueError) -> None:
        refused[block.name] = str(reason)

    go_on = refuse if blocks is None else None  # what nobody asked for by its number may be left out
    if output is not None:
        maps = _maps(model, stream, numbers, queries, origin, blocks=blocks, step=shown.step, on_refusal=go_on)
    with stream_progress("mixing weights", stream):
        found = model_adaptivity(model, stream, blocks=blocks, step=shown.step, on_refusal=go_on)
    if not found:
        raise ValueError(next(iter(refused.values())))
    if output is not None:  # all that can fail has not
        write_maps(maps, output, len(stream))
    rows = [
        {"index": block.index, "name": block.name, "mixer": block.mixer, **mixing_numbers(found[block.name])}
        for block in chosen_blocks(model, blocks, image_size=stream.image_size)
        if block.name in found
    ]
    emit(mixing_report(found, rows, origin, step=shown.step, refused=refused, skipped=stream.broken), fmt)


def _maps(
    model: "nn.Module",
    stream: "PictureStream",
    numbers: Sequence[int],
    queries: list[tuple[int, int]],
    origin: Provenance,
    **asked: Any,
) -> QueryMaps:
    """Of the pictures that are shown; `asked` as `query_maps` takes it."""
    from horinsight.mixing.query_maps import query_maps

    few = stream.some(numbers)
    of_these = replace(origin, images=few.names)
    maps = query_maps(model, few.images, [queries] * len(few.names), provenance=of_these, **asked)
    return replace(maps, convention={**maps.convention, **some_of(len(few.names), len(stream))})


def _show_influence(
    model: "nn.Module",
    stream: "PictureStream",
    numbers: Sequence[int],
    blocks: list[int] | None,
    queries: list[tuple[int, int]],
    output: Path | None,
    fmt: Format,
    *,
    origin: tuple[str, int],
) -> None:
    """Influence within each mixer: the table of `horinsight reach --scope mixer`, and maps in place of weights.

    Args:
        model: the network.
        stream: all pictures.
        numbers: of those whose maps are drawn.
        blocks: indices; all when None.
        queries: positions; the middle of the map where there are none.
        output: folder of the maps.
        fmt: of the table.
        origin: name of the model and seed.
    """
    from horinsight.data.preprocess import model_view
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.mixing.reach import PROBES, influence_maps, model_influence

    name, seed = origin
    chosen = chosen_blocks(model, blocks, image_size=stream.image_size)
    with stream_progress("influence", stream):
        found = model_influence(
            model,
            stream,
            blocks=blocks,
            queries=queries or None,
            seed=seed,
            model_name=name,
            image_names=stream.names,
            shown=numbers,
        )
    if output is not None:
        few = stream.some(numbers)
        indices = [block.index for block in chosen]
        maps = influence_maps(
            found, pictures=model_view(model, few.images), image_names=few.names, block_indices=indices
        )
        origins = None if maps.provenance is None else replace(maps.provenance, images=few.names)
        told = {**maps.convention, **some_of(len(few.names), len(stream))}
        write_maps(replace(maps, convention=told, provenance=origins), output, len(stream))
    settings = {"scope": "mixer", "queries": queries or None, "probes": PROBES}
    in_order = {block: found[block.name] for block in chosen}
    emit(reach_report(in_order, settings=settings, skipped=stream.broken), fmt)
