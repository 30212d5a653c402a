"""`horinsight ie`: interaction effects and orders of a model's blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from horinsight.cli.progress import block_progress
from horinsight.cli.value_options import value_options
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.data.images import default_samples
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.options import settings
from horinsight.report import Format, Report
from horinsight.whole_file import is_replaceable, whole_file

if TYPE_CHECKING:
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

    from horinsight.capture import image_size_of
    from horinsight.interaction.model_spectra import model_interaction_spectra
    from horinsight.mixers.blocks import chosen_blocks
    from horinsight.models.provenance import model_provenance

    named = pictures.named(default_samples(model_name))
    model = model_with_weights(model_name, weights)
    batch = pictures.batch(model, named)
    chosen = chosen_blocks(model, blocks, image_size=image_size_of(batch))
    options = replace(options, seed=weights.seed)
    asked = {"image_size": list(batch.shape[2:]), "blocks": [block.index for block in chosen]}
    if further.compare is not None:
        compared = comparisons_with(
            Asked(model, model_name, batch, named, chosen, options), further.compare, weights=weights, pictures=pictures
        )
        told = {**settings(options, relevant=True), **asked, "compare": further.compare}
        output.emit(comparison_report(compared, settings=told, other=further.compare))
        return
    origin = model_provenance(model, model_name=model_name, image_names=list(named), seed=weights.seed)
    run = _Run(chosen, {**settings(options, relevant=True), **asked}, output.fmt, kept)
    if resume and kept is not None:
        run.found = finished_spectra(kept, settings=run.settings, provenance=origin)
    with block_progress("interaction effects", len(chosen), len(run.found)) as show:

        def keep(block: "MixingBlock", spectrum: InteractionSpectrum) -> None:
            run.keep(block, spectrum)
            show(block)

        try:
            model_interaction_spectra(
                model,
                batch,
                blocks=blocks,
                options=options,
                finished=dict(run.found),
                provenance=origin,
                on_block=keep,
                on_refusal=run.refuse if blocks is None else None,
            )
        except KeyboardInterrupt:
            run.say_what_is_kept()
            raise
    if not run.found:
        raise ValueError(next(iter(run.refused.values())))
    output.emit(run.report())
    if plot is not None:
        run.draw(plot)


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
        self, chosen: Sequence["MixingBlock"], settings: Mapping[str, Any], fmt: Format, kept: Path | None
    ) -> None:
        self.chosen, self.settings, self.fmt, self.kept = chosen, settings, fmt, kept
        self.found: dict[str, InteractionSpectrum] = {}
        self.refused: dict[str, str] = {}

    def refuse(self, block: "MixingBlock", reason: ValueError) -> None:
        """Go on without a block that nobody asked for by its number."""
        self.refused[block.name] = str(reason)

    def report(self) -> Report:
        """The report as far as it is finished."""
        in_order = {block: self.found[block.name] for block in self.chosen if block.name in self.found}
        num_blocks = len(self.chosen) - len(self.refused)
        return ie_report(in_order, settings=self.settings, num_blocks=num_blocks, refused=self.refused)

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
