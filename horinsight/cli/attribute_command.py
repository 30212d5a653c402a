"""`horinsight attribute`: captum's methods and ours, asked about a prediction or about a position of a block."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.cli.attribute_options import Asked, asked_options, how_options
from horinsight.cli.attribute_report import Attributions, attribute_report, shown_maps
from horinsight.cli.model_options import model_option
from horinsight.cli.output import Output, output_options
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.progress import step_progress
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.results import Provenance, ResultSet, save_result
from horinsight.whole_file import check_writable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from horinsight.attribution.attributions_by_method import AttributionQuestion


@click.command("attribute", cls=SpreadCommand)
@model_option
@picture_options("what the model is made for, chelsea or digits")
@weights_options
@asked_options
@how_options
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the maps over the pictures: .pdf, .png, .svg."
)
@click.option("--arrays", type=click.Path(path_type=Path), metavar="FILE", help="Keep the maps: .npz.")
@output_options
def command(
    model_name: str,
    pictures: Pictures,
    weights: Weights,
    asked: Asked,
    how: Mapping[str, Any],
    plot: Path | None,
    arrays: Path | None,
    output: Output,
) -> None:
    """Attribute a prediction, or what a block computes at a position, to the picture: by captum's methods and ours.

    Whether such a map shows what the model goes by is another question, which `horinsight.faithfulness` measures.
    Ctrl-C keeps the methods that are finished.

    \b
    Examples:
      horinsight attribute --plot maps.png
      horinsight attribute --methods deep_lift,kernel_shap --baseline mean --target 3
      horinsight attribute --model hornet_s_iso --block 8 --query 7,7 --of mixer_input --arrays position.npz
    """
    _check_paths(plot, arrays)
    from horinsight.attribution.attributions_by_method import AttributionQuestion
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.models.provenance import model_provenance

    named = pictures.named(default_samples(model_name))
    model = model_with_weights(model_name, weights)
    batch = pictures.batch(model, named)
    block = None
    if asked.block is not None:
        (block,) = chosen_blocks(model, [asked.block], image_size=(batch.shape[2], batch.shape[3]))
    question = AttributionQuestion(
        target=asked.target,
        block=None if block is None else block.index,
        queries=None if block is None else _queries(model, batch, asked),
        of=asked.of,  # type: ignore[arg-type]
        baseline=asked.baseline,
    )
    origin = model_provenance(model, model_name=model_name, image_names=list(named), seed=weights.seed)
    options = AttributionOptions(seed=weights.seed, **how)
    found, seconds, refused, unfinished = _run(model, batch, asked, question, options, origin)
    if not found:
        if unfinished:
            raise KeyboardInterrupt
        raise ValueError(next(iter(refused.values())))
    settings = {**asdict(asked), **how, "methods": list(asked.chosen), "image_size": list(batch.shape[2:])}
    output.emit(
        attribute_report(found, origin, seconds=seconds, refused=refused, unfinished=unfinished, settings=settings)
    )
    _write(found, model, batch, (plot, arrays), asked.target)
    if unfinished:
        raise KeyboardInterrupt


def _check_paths(plot: Path | None, arrays: Path | None) -> None:
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)
    if arrays is not None:
        if arrays.suffix != ".npz":
            raise ValueError(f"--arrays expects a path that ends in .npz, got {arrays.name}.")
        check_writable(arrays)


def _queries(model: "nn.Module", batch: "Tensor", asked: Asked) -> list[tuple[int, int]]:
    """Those that were asked for, or the middle of the block's map."""
    if asked.queries:
        return asked.queries
    from horinsight.attribution.position_forward import model_at_positions

    assert asked.block is not None
    rows, columns = model_at_positions(model, batch[:1], block=asked.block).output_size
    return [(rows // 2, columns // 2)]


def _run(
    model: "nn.Module",
    batch: "Tensor",
    asked: Asked,
    question: "AttributionQuestion",
    options: AttributionOptions,
    origin: Provenance,
) -> tuple[dict[str, Attributions], dict[str, float], dict[str, str], list[str]]:
    """What each method says, seconds, why methods are left out, and those that an interruption left."""
    from horinsight.attribution.attributions_by_method import attributions_by_method

    found: dict[str, Attributions] = {}
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}

    def refuse(method: str, reason: ValueError) -> None:
        refused[method] = f"{method}: {reason}"

    with step_progress("attribute", len(asked.chosen)) as show:
        running = attributions_by_method(
            model,
            batch,
            asked.chosen,
            question,
            options=options,
            provenance=origin,
            on_refusal=None if asked.methods else refuse,
        )
        try:
            for method, one, spent in running:
                found[method], seconds[method] = one, spent
                show(method)
        except KeyboardInterrupt:
            return found, seconds, refused, [name for name in asked.chosen if name not in {*found, *refused}]
    return found, seconds, refused, []


def _write(
    found: Mapping[str, Attributions],
    model: "nn.Module",
    batch: "Tensor",
    paths: tuple[Path | None, Path | None],
    asked_for: int | None,
) -> None:
    from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
    from horinsight.attribution.attributions_by_method import together
    from horinsight.data.preprocess import model_view

    plot, arrays = paths
    first = next(iter(found.values()))
    if arrays is not None:
        predictions = [one for one in found.values() if isinstance(one, PredictionAttributions)]
        save_result(together(predictions) if predictions else ResultSet(found), arrays)
        click.echo(f"written: {arrays}", err=True)
    if plot is None:
        return
    from horinsight.figures.attribution_maps import draw_attribution_maps
    from horinsight.figures.style import save_figure

    assert first.provenance is not None
    query = grid = None
    title = f"{first.provenance.model}: predicted class"
    if isinstance(first, PositionAttributions):
        query, grid = (int(first.queries[0, 0]), int(first.queries[0, 1])), first.output_size
        title = f"{first.provenance.model}: position {query[0]}, {query[1]} of {first.block}"
    elif asked_for is not None:
        title = f"{first.provenance.model}: class {asked_for}"
    figure = draw_attribution_maps(
        shown_maps(found),
        model_view(model, batch),
        title=title,
        names=list(first.provenance.images),
        query=query,
        query_grid=grid,
        provenance=first.provenance,
    )
    save_figure(figure, plot)
    click.echo(f"written: {plot}", err=True)
