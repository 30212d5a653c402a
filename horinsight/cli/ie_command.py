"""`horinsight ie`: interaction effects and orders of a model's blocks."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horinsight.cli.compared_with import Asked, comparisons_with
from horinsight.cli.comparison_report import comparison_report
from horinsight.cli.ie_further import Further, further_options
from horinsight.cli.ie_report import finished_spectra, ie_report
from horinsight.cli.model_options import blocks_option, model_option
from horinsight.cli.output import Output, output_options
from horinsight.cli.picture_options import Pictures, SpreadCommand, picture_options
from horinsight.cli.progress import block_progress, stream_progress
from horinsight.cli.value_options import value_options
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.options import settings
from horinsight.report import Format, Report
from horinsight.whole_file import is_replaceable, whole_file

if TYPE_CHECKING:
    from torch import nn

    from horinsight.data.picture_stream import PictureStream
    from horinsight.mixers.blocks import MixingBlock


@click.command("ie", cls=SpreadCommand)
@model_option
@picture_options("what the model is made for, chelsea or digits")
@weights_options
@blocks_option("all")
@value_options(SpectrumOptions)
@further_options
@output_options
def command(
    model_name: str,
    pictures: Pictures,
    weights: Weights,
    blocks: list[int] | None,
    options: SpectrumOptions,
    further: Further,
    output: Output,
) -> None:
    """Measure how many positions act together in each block of a model, on photographs.

    For k = 0, 1, 2, ... the table shows effect_k: how strongly k neighbours act jointly with a position on the block's
    output there (root mean square of a mixed derivative of order k + 1, relative to the spread of the output). The
    order of a block is the largest k whose effect is not exactly zero; an exact zero is printed as "0".

    With --output each block is kept as soon as it is finished: Ctrl-C loses nothing, and --resume goes on.

    With --compare the table shows effects over those of another model, checkpoint, block or result, with 95 % intervals
    of the ratios; what is measured is measured along the same chains.

    \b
    Examples:
      horinsight ie --model hornet_s_iso
      horinsight ie --model hornet_tiny_gf --images coffee rocket --blocks 1,6,24 --plot spectra.png
      horinsight ie --model deit_small_patch16_224 --scope block --functional --max-order 2
      horinsight ie --model hornet_tiny_7x7 --checkpoint hornet_tiny_7x7.pth --images photos/ --output ie.json
      horinsight ie --model hornet_tiny_7x7 --checkpoint epoch_10.pth --compare epoch_90.pth
    """
    plot, resume = further.plot, further.resume
    kept = _kept_in(output, resume=resume)
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)

    model = model_with_weights(model_name, weights)
    options = replace(options, seed=weights.seed)
    if further.compare is not None:
        _emit_comparison(Chosen(model, model_name, blocks, options), further.compare, weights, pictures, output)
        return
    stream = pictures.stream(model, default_samples(model_name))
    run = _run(Chosen(model, model_name, blocks, options), stream, output, kept, resume=resume)
    if not run.found:
        raise ValueError(next(iter(run.refused.values())))
    output.emit(run.report())
    if plot is not None:
        run.draw(plot)


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is measured.

    Attributes:
        model: the network.
        model_name: its name.
        blocks: indices; all when None.
        options: what is asked for, with the seed.
    """

    model: "nn.Module"
    model_name: str
    blocks: list[int] | None
    options: SpectrumOptions

    def in_order(self, image_size: tuple[int, int]) -> list["MixingBlock"]:
        """The blocks in the network's order."""
        from horinsight.mixers.blocks import chosen_blocks

        return chosen_blocks(self.model, self.blocks, image_size=image_size)

    def settings(self, blocks: Sequence["MixingBlock"], image_size: tuple[int, int]) -> dict[str, Any]:
        """All that was asked for, as reports keep it."""
        asked = {"image_size": list(image_size), "blocks": [block.index for block in blocks]}
        return {**settings(self.options, relevant=True), **asked}


def _run(chosen: Chosen, stream: "PictureStream", output: Output, kept: Path | None, *, resume: bool) -> "_Run":
    """Measure what is not kept yet, and keep each block as soon as it is finished."""
    from horinsight.interaction.model_spectra import model_interaction_spectra
    from horinsight.models.provenance import model_provenance

    blocks = chosen.in_order(stream.image_size)
    origin = model_provenance(
        chosen.model, model_name=chosen.model_name, image_names=stream.names, seed=chosen.options.seed
    )
    run = _Run(blocks, chosen.settings(blocks, stream.image_size), output.fmt, kept, stream.broken)
    if resume and kept is not None:
        run.found = finished_spectra(kept, settings=run.settings, provenance=origin)
    what = "interaction effects"
    with ExitStack() as stack:
        if stream.one_batch() is None:  # all blocks are finished together
            stack.enter_context(stream_progress(what, stream))
            show = None
        else:
            show = stack.enter_context(block_progress(what, len(blocks), len(run.found)))

        def keep(block: "MixingBlock", spectrum: InteractionSpectrum) -> None:
            run.keep(block, spectrum)
            if show is not None:
                show(block)

        try:
            model_interaction_spectra(
                chosen.model,
                stream,
                blocks=chosen.blocks,
                options=chosen.options,
                finished=dict(run.found),
                provenance=origin,
                on_block=keep,
                on_refusal=run.refuse if chosen.blocks is None else None,
            )
        except KeyboardInterrupt:
            run.say_what_is_kept()
            raise
    return run


def _emit_comparison(chosen: Chosen, other: str, weights: Weights, pictures: Pictures, output: Output) -> None:
    """Effects over those of `other`, along common draws."""
    default = default_samples(chosen.model_name)
    stream = pictures.stream(chosen.model, default)
    size = stream.image_size
    blocks = chosen.in_order(size)
    asked = Asked(chosen.model, chosen.model_name, stream, default, blocks, chosen.options)
    compared = comparisons_with(asked, other, weights=weights, pictures=pictures)
    told = {**chosen.settings(blocks, size), "compare": other}
    output.emit(comparison_report(compared, settings=told, other=other, skipped=stream.broken))


def _kept_in(output: Output, *, resume: bool) -> Path | None:
    """The file in which blocks are kept as they are finished; a pipe gets the whole report at the end."""
    if resume and (output.path is None or output.fmt != "json"):
        raise click.UsageError("--resume goes on with a report in JSON: give --output FILE.json too.")
    kept = output.path if output.path is not None and is_replaceable(output.path) else None
    if resume and kept is None:
        raise click.UsageError(f"--resume goes on with a file, and {output.path} is none.")
    return kept


class _Run:
    """What is finished, and the file in which it is kept."""

    def __init__(
        self,
        chosen: Sequence["MixingBlock"],
        settings: Mapping[str, Any],
        fmt: Format,
        kept: Path | None,
        skipped: Mapping[str, str],
    ) -> None:
        self.chosen, self.settings, self.fmt, self.kept, self.skipped = chosen, settings, fmt, kept, skipped
        self.found: dict[str, InteractionSpectrum] = {}
        self.refused: dict[str, str] = {}

    def refuse(self, block: "MixingBlock", reason: ValueError) -> None:
        """Go on without a block that nobody asked for by its number."""
        self.refused[block.name] = str(reason)

    def report(self) -> Report:
        """The report as far as it is finished."""
        in_order = {block: self.found[block.name] for block in self.chosen if block.name in self.found}
        num_blocks = len(self.chosen) - len(self.refused)
        return ie_report(
            in_order, settings=self.settings, num_blocks=num_blocks, refused=self.refused, skipped=self.skipped
        )

    def keep(self, block: "MixingBlock", spectrum: InteractionSpectrum) -> None:
        """Keep one more block; the last one waits for the whole report."""
        self.found[block.name] = spectrum
        if self.kept is not None and len(self.found) + len(self.refused) < len(self.chosen):
            with whole_file(self.kept) as file:
                file.write(self.report().rendered(self.fmt))

    def say_what_is_kept(self) -> None:
        """On standard error, after an interruption."""
        if self.kept is not None and self.found:
            hint = "the same command with --resume goes on." if self.fmt == "json" else "only .json can be resumed."
            click.echo(f"{len(self.found)} of {len(self.chosen)} blocks are kept in {self.kept}: {hint}", err=True)

    def draw(self, plot: Path) -> None:
        """The figure of all blocks."""
        from horinsight.figures.interaction_spectra import draw_interaction_spectra
        from horinsight.figures.style import save_figure

        titles = {block.name: f"{block.index}: {block.name}" for block in self.chosen}
        ordered = {block.name: self.found[block.name] for block in self.chosen if block.name in self.found}
        save_figure(draw_interaction_spectra(ordered, titles=titles), plot)
        click.echo(f"written: {plot}", err=True)
