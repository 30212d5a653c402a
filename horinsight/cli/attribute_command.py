"""`horinsight attribute`: captum's methods and ours, asked about a prediction or about a position of a block."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.cli.attribute_options import Asked, MapFiles, asked_options, how_options, map_options
from horinsight.cli.attribute_report import Attributions, attribute_report, shown_maps
from horinsight.cli.attributed_stream import AttributedStream
from horinsight.cli.model_options import model_option
from horinsight.cli.output import Output, output_options
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.progress import step_progress, stream_progress
from horinsight.cli.shown_pictures import say_how_many_are_shown, shown_numbers
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.results import ResultSet, save_result
from horinsight.whole_file import check_writable

if TYPE_CHECKING:
    from torch import nn

    from horinsight.data.picture_batches import PictureBatch
    from horinsight.data.picture_stream import PictureStream


@click.command("attribute", cls=SpreadCommand)
@model_option
@picture_options("what the model is made for, chelsea or digits")
@weights_options
@asked_options
@how_options
@map_options
@output_options
def command(
    model_name: str,
    pictures: Pictures,
    weights: Weights,
    asked: Asked,
    how: Mapping[str, Any],
    files: MapFiles,
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
    _check_paths(files.plot, files.arrays)
    from horinsight.attribution.attributions_by_method import AttributionQuestion
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.models.provenance import model_provenance

    model = model_with_weights(model_name, weights)
    stream = pictures.stream(model, default_samples(model_name))
    numbers = shown_numbers(files.show, stream.names) if files.wanted else []
    block = None
    if asked.block is not None:
        (block,) = chosen_blocks(model, [asked.block], image_size=stream.image_size)
    question = AttributionQuestion(
        target=asked.target,
        block=None if block is None else block.index,
        queries=None if block is None else _queries(model, stream, asked),
        of=asked.of,  # type: ignore[arg-type]
        baseline=asked.baseline,
    )
    origin = model_provenance(model, model_name=model_name, image_names=stream.names, seed=weights.seed)
    job = AttributedStream(model, stream, question, AttributionOptions(seed=weights.seed, **how), origin, numbers)
    run = _run(job, asked)
    if not run.found:
        if run.unfinished:
            raise KeyboardInterrupt
        raise ValueError(next(iter(run.refused.values())))
    settings = {**asdict(asked), **how, "methods": list(asked.chosen), "image_size": list(stream.image_size)}
    output.emit(
        attribute_report(
            run.found,
            run.rows,
            origin,
            skipped=stream.broken,
            refused=run.refused,
            unfinished=run.unfinished,
            settings=settings,
        )
    )
    if numbers:
        _write(run.found, model, stream.some(numbers), files, asked.target)
        say_how_many_are_shown(len(numbers), len(stream))
    if run.unfinished:
        raise KeyboardInterrupt


def _check_paths(plot: Path | None, arrays: Path | None) -> None:
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)
    if arrays is not None:
        if arrays.suffix != ".npz":
            raise ValueError(f"--arrays expects a path that ends in .npz, got {arrays.name}.")
        check_writable(arrays)


def _queries(model: "nn.Module", stream: "PictureStream", asked: Asked) -> list[tuple[int, int]]:
    """Those that were asked for, or the middle of the block's map."""
    if asked.queries:
        return asked.queries
    from horinsight.attribution.position_forward import model_at_positions

    assert asked.block is not None
    first = next(iter(stream)).images[:1]
    rows, columns = model_at_positions(model, first, block=asked.block).output_size
    return [(rows // 2, columns // 2)]


@dataclass
class _Run:
    """What methods have said so far.

    Attributes:
        found: method → maps of the pictures that are shown, of none perhaps.
        rows: of all pictures and methods.
        refused: method → why it is left out.
        unfinished: methods that an interruption left.
    """

    found: dict[str, Attributions] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


def _run(job: AttributedStream, asked: Asked) -> _Run:
    """One method after the other, each over all pictures."""
    run = _Run()
    job.question.methods(asked.chosen)  # which there are not is said before any is run
    with ExitStack() as stack:
        stack.enter_context(stream_progress("attributions", job.stream))
        show = stack.enter_context(step_progress("attribute", len(asked.chosen)))
        try:
            for method in asked.chosen:
                try:
                    shown, rows = job.attributed(method)
                except ValueError as error:
                    if asked.methods:
                        raise
                    run.refused[method] = f"{method}: {error}"
                    continue
                run.found[method] = shown
                run.rows += rows
                show(method)
        except KeyboardInterrupt:
            run.unfinished = [name for name in asked.chosen if name not in {*run.found, *run.refused}]
    return run


def _write(
    found: Mapping[str, Attributions],
    model: "nn.Module",
    few: "PictureBatch",
    files: MapFiles,
    asked_for: int | None,
) -> None:
    from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
    from horinsight.attribution.attributions_by_method import together
    from horinsight.data.preprocess import model_view

    plot, arrays = files.plot, files.arrays
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
        model_view(model, few.images),
        title=title,
        names=list(few.names),
        query=query,
        query_grid=grid,
        provenance=first.provenance,
    )
    save_figure(figure, plot)
    click.echo(f"written: {plot}", err=True)
