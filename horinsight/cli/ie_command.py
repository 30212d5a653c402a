"""`horinsight ie`: interaction effects and orders of a model's blocks."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from horinsight.cli.ie_report import finished_spectra, ie_report
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
from horinsight.cli.output import chosen_format, emit, format_options
from horinsight.cli.progress import block_progress
from horinsight.data.images import default_samples
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.report import Format, Report
from horinsight.whole_file import is_replaceable, whole_file

if TYPE_CHECKING:
    from horinsight.interaction.interaction_effect import Method
    from horinsight.models.blocks import MixingBlock
    from horinsight.operators.block_operators import Scope


@click.command("ie", cls=SpreadCommand)
@model_option
@image_options("what the model is made for, chelsea or digits")
@weights_options
@blocks_option("all")
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
@click.option(
    "--scope",
    type=click.Choice(["mixer", "block"]),
    default="mixer",
    show_default=True,
    help="What is differentiated: the mixer alone, or the whole residual block with its norms and feed-forward part.",
)
@click.option(
    "--nonlinear",
    multiple=True,
    metavar="CLASS",
    help="Class of modules that count as one non-linearity each, as norms always do. Repeatable.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the spectra of all blocks: .pdf, .png or .svg.",
)
@click.option("--resume", is_flag=True, help="Go on with the run that was interrupted while it wrote --output F.json.")
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
    method: "Method",
    scope: "Scope",
    nonlinear: tuple[str, ...],
    plot: Path | None,
    resume: bool,
    fmt: Format | None,
    output: Path | None,
) -> None:
    """Measure how many positions act together in each block of a model, on photographs.

    For k = 0, 1, 2, ... the table shows effect_k: how strongly k neighbours act jointly with a position on the block's
    output there (root mean square of a mixed derivative of order k + 1, relative to the spread of the output). The
    order of a block is the largest k whose effect is not exactly zero; an exact zero is printed as "0".

    With --output each block is kept as soon as it is finished: Ctrl-C loses nothing, and --resume goes on.

    \b
    Examples:
      horinsight ie --model hornet_s_iso
      horinsight ie --model hornet_tiny_gf --images coffee rocket --blocks 1,6,24 --plot spectra.png
      horinsight ie --model deit_small_patch16_224 --scope block --functional --max-order 2
      horinsight ie --model hornet_tiny_7x7 --checkpoint hornet_tiny_7x7.pth --images photos/ --output ie.json
    """
    fmt = chosen_format(fmt, output)
    if resume and (output is None or fmt != "json"):
        raise click.UsageError("--resume goes on with a report in JSON: give --output FILE.json too.")
    kept = output if output is not None and is_replaceable(output) else None  # a pipe gets the whole report at the end
    if resume and kept is None:
        raise click.UsageError(f"--resume goes on with a file, and {output} is none.")
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)

    from horinsight.capture import image_size_of
    from horinsight.data.preprocess import image_batch
    from horinsight.interaction.model_spectra import model_interaction_spectra
    from horinsight.models.blocks import chosen_blocks
    from horinsight.models.registry import model_provenance

    pictures = named_images(images or default_samples(model_name))
    model = model_with_weights(model_name, weights)
    batch = image_batch(model, list(pictures.values()), image_size=square(image_size))
    measured = chosen_blocks(model, blocks, image_size=image_size_of(batch))
    chosen = {block.name: block for block in measured}
    settings = {
        "scope": scope,
        "functional": functional,
        "max_order": max_order,
        "tuples": tuples,
        "method": method,
        "nonlinear": list(nonlinear),
        "image_size": list(batch.shape[2:]),
        "blocks": [block.index for block in chosen.values()],
    }
    origin = model_provenance(model, model_name=model_name, image_names=list(pictures), seed=weights.seed)
    spectra = finished_spectra(kept, settings=settings, provenance=origin) if resume and kept else {}
    found = {chosen[name]: spectrum for name, spectrum in spectra.items()}

    def report() -> Report:
        in_order = {block: found[block] for block in chosen.values() if block in found}
        return ie_report(in_order, settings=settings, num_blocks=len(chosen))

    with block_progress("interaction effects", len(chosen), len(found)) as show:

        def keep(block: "MixingBlock", spectrum: InteractionSpectrum) -> None:
            found[chosen[block.name]] = spectrum
            if kept is not None and len(found) < len(chosen):
                with whole_file(kept) as file:
                    file.write(report().rendered(fmt))
            show(block)

        try:
            model_interaction_spectra(
                model,
                batch,
                blocks=blocks,
                max_order=max_order,
                num_tuples=tuples,
                method=method,
                scope=scope,
                nonlinear=nonlinear,
                explicit=not functional,
                seed=weights.seed,
                finished=spectra,
                provenance=origin,
                on_block=keep,
            )
        except KeyboardInterrupt:
            if kept is not None and found:
                hint = "the same command with --resume goes on." if fmt == "json" else "only .json can be resumed."
                click.echo(f"{len(found)} of {len(chosen)} blocks are kept in {kept}: {hint}", err=True)
            raise
    emit(report(), fmt, output)
    if plot is not None:
        from horinsight.figures.interaction_spectra import draw_interaction_spectra
        from horinsight.figures.style import save_figure

        titles = {name: f"{block.index}: {name}" for name, block in chosen.items()}
        ordered = {name: found[block] for name, block in chosen.items()}
        save_figure(draw_interaction_spectra(ordered, titles=titles), plot)
        click.echo(f"written: {plot}", err=True)
