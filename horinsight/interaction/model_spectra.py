"""Interaction spectra of the blocks of a whole model, at what real images make of their inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Unpack

from torch import Tensor, nn

from horinsight.data.picture_stream import PictureStream
from horinsight.interaction.block_points import OnRefusal, block_points, left_of
from horinsight.interaction.shown_images import ShownPictures
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import BlockSpectrumKeywords, SpectrumOptions
from horinsight.interaction.streamed_spectra import streamed_spectra
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.models.provenance import model_provenance
from horinsight.models.zero_branches import shut_by
from horinsight.options import made
from horinsight.results import Provenance, ResultSet


def model_interaction_spectra(
    model: nn.Module,
    images: Tensor | PictureStream,
    *,
    blocks: Sequence[int] | None = None,
    options: SpectrumOptions | None = None,
    finished: Mapping[str, InteractionSpectrum] | None = None,
    provenance: Provenance | None = None,
    on_block: Callable[[MixingBlock, InteractionSpectrum], None] | None = None,
    on_refusal: OnRefusal | None = None,
    **given: Unpack[BlockSpectrumKeywords],
) -> ResultSet[InteractionSpectrum]:
    """Interaction effects and orders of each spatial-mixing block of a model, measured on images.

    One forward pass tells what enters each block; each block's mixer (without the norm before it and the layer scale
    after it), or the whole residual block around it, is then differentiated at that point, see `interaction_spectrum`.
    More images than one batch holds (`BATCH_SIZE`) are measured batch by batch, see `streamed_spectra`.

    Args:
        model: a network with blocks (`named_blocks`); left as it was. One in half precision is analysed in float32.
        images: (B, 3, H, W), prepared as the model expects them, or a stream of pictures (`picture_stream`).
        blocks: indices of the blocks (from 1); all when None.
        options: what is asked for; the defaults when None. `max_order` None is two above the highest declared order, or
            as many neighbours as the block's map has; at most 3 for functional effects that do not end (all but those
            of a gnConv without norms). A declared non-linearity may be in some of the blocks only.
        finished: spectra of blocks that need not be measured again, by name, as from an interrupted run.
        provenance: of the result; made of the model and the images when None.
        on_block: called after each block that was measured, for progress and to keep what is finished.
        on_refusal: called with each block that cannot be measured, and why; the others are measured. Raised when None.
        **given: fields of `SpectrumOptions` as keyword arguments, in place of those of `options`; and `model_name` and
            `image_names` for a provenance that is made here.

    Returns:
        Block name → spectrum, in the order of the network; without those that were refused.

    Raises:
        TypeError: an argument that is no option.
        ValueError: no such block, a map with too few positions for `max_order`, an order that cannot be certified (see
            `interaction_spectrum`), or images that do not fit.

    Example:
        >>> import torch
        >>> from horinsight.models.registry import create_model
        >>> images = torch.randn(1, 3, 96, 96)
        >>> spectra = model_interaction_spectra(create_model("hornet_test_iso"), images, num_tuples=2)
        >>> {name: spectrum.location_order for name, spectrum in spectra.items()}
        {'blocks.0.gnconv': 3, 'blocks.1.gnconv': 3, 'blocks.2.gnconv': 3}
    """
    model_name, image_names = given.pop("model_name", None), given.pop("image_names", None)
    options = made(SpectrumOptions, options, given, caller="model_interaction_spectra")
    shown = ShownPictures.of(images)
    chosen = chosen_blocks(model, blocks, image_size=shown.size)
    if provenance is None:
        names = shown.names() if image_names is None else image_names
        provenance = model_provenance(model, model_name=model_name, image_names=names, seed=options.seed)

    spectra = {block.name: finished[block.name] for block in chosen if finished and block.name in finished}
    waiting = [block for block in chosen if block.name not in spectra]
    shut = shut_by(model)

    def keep(block: MixingBlock, spectrum: InteractionSpectrum) -> None:
        convention = {**spectrum.convention, **_zero_weights(block, options.scope, shut)}
        spectra[block.name] = replace(spectrum, convention=convention, provenance=provenance)
        if on_block is not None:
            on_block(block, spectra[block.name])

    if shown.together is None:
        streamed_spectra(model, shown.batches, shown.count, waiting, options, keep, among=chosen, on_refusal=on_refusal)
    else:
        points = block_points(model, shown.together, waiting, options, among=chosen, on_refusal=on_refusal)
        there = [block for block in waiting if block.name in points]
        for block in there:
            for spectrum in left_of([block], lambda block: points.pop(block.name).spectrum(), on_refusal).values():
                keep(block, spectrum)
    return ResultSet({block.name: spectra[block.name] for block in chosen if block.name in spectra})


def _zero_weights(block: MixingBlock, scope: str, shut: Sequence[str]) -> dict[str, str]:
    """Which weights of a block are 0 and hold a branch shut, where there are any."""
    path = block.path if scope == "mixer" else block.block_name
    inside = [name for name in shut if not path or name.startswith(f"{path}.")]
    return {"zero_weights": ", ".join(inside)} if inside else {}
