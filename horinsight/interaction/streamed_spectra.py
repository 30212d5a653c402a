"""Interaction spectra of the blocks of a model over many pictures: a pass over them for each round of draws."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from torch import nn

from horinsight.data.picture_batches import PictureBatch
from horinsight.interaction.block_points import OnRefusal, block_points
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.interaction.streamed_block import StreamedBlock
from horinsight.memory_budget import give_back_pages
from horinsight.mixers.blocks import MixingBlock


def streamed_spectra(
    model: nn.Module,
    batches: Iterable[PictureBatch],
    num_images: int,
    blocks: Sequence[MixingBlock],
    options: SpectrumOptions,
    on_spectrum: Callable[[MixingBlock, InteractionSpectrum], None],
    *,
    among: Sequence[MixingBlock],
    on_refusal: OnRefusal | None,
) -> None:
    """Measure blocks at pictures that come in batches, which are in memory one at a time.

    One pass tells how much each block's input and output varies over all pictures; each further one draws a round of
    chains at every picture (one, unless a precision or a time is asked for), at what a forward pass of its batch makes
    of the blocks' inputs. Nothing of a picture is kept but its draws.

    Args:
        model: the network.
        batches: the same ones each time that they are gone through.
        num_images: of all.
        blocks: of the model.
        options: what is asked for.
        on_spectrum: called with each block as soon as it is finished.
        among: see `block_points`.
        on_refusal: called with each block that cannot be measured at some batch, and why; raised when None.

    Raises:
        ValueError: see `model_interaction_spectra`.
    """
    waiting = {block: StreamedBlock(num_images) for block in blocks}

    def refuse(block: MixingBlock, reason: ValueError) -> None:
        if on_refusal is None:
            raise reason
        waiting.pop(block, None)
        on_refusal(block, reason)

    looked = False
    while waiting:
        for number, batch in enumerate(batches):
            if not waiting:
                break
            asked = replace(options, nonlinear=_declared(waiting.values(), options)) if looked else options
            points = block_points(model, batch.images, list(waiting), asked, among=among, on_refusal=refuse)
            for block in list(waiting):
                try:
                    if not looked:
                        waiting[block].look(points.pop(block.name))
                        continue
                    spectrum = waiting[block].draw(points.pop(block.name), number, batch.start)
                except ValueError as error:
                    refuse(block, error)
                    continue
                finally:
                    give_back_pages()  # what a block leaves fits few of the next one's
                if spectrum is not None:
                    del waiting[block]
                    on_spectrum(block, spectrum)
            del batch  # before the next one is made
        looked = True


def _declared(waiting: Iterable[StreamedBlock], options: SpectrumOptions) -> tuple[object, ...]:
    """Which of the declared non-linearities are in the blocks that are left."""
    held = [what for block in waiting for what in block.declared]
    return tuple(what for what in options.nonlinear if what in held)
