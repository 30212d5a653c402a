"""The blocks of two models, or of one with two sets of weights, compared by their interaction effects."""

from collections.abc import Callable, Sequence
from typing import Unpack

from torch import Tensor, nn

from horinsight.data.picture_stream import PictureStream
from horinsight.interaction.block_points import block_points
from horinsight.interaction.common_draws import compared_points
from horinsight.interaction.shown_images import ShownPictures
from horinsight.interaction.spectrum_comparison import SpectrumComparison
from horinsight.interaction.spectrum_options import SpectrumKeywords, SpectrumOptions
from horinsight.interaction.streamed_comparison import BlockPair, StreamedPair, streamed_comparisons
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.models.provenance import model_provenance
from horinsight.options import made
from horinsight.results import Provenance, ResultSet


def model_spectrum_comparisons(
    models: tuple[nn.Module, nn.Module],
    images: tuple[Tensor | PictureStream, Tensor | PictureStream],
    *,
    blocks: tuple[Sequence[int], Sequence[int]] | None = None,
    options: SpectrumOptions | None = None,
    on_block: Callable[[MixingBlock, SpectrumComparison], None] | None = None,
    image_names: Sequence[str] | None = None,
    **given: Unpack[SpectrumKeywords],
) -> ResultSet[SpectrumComparison]:
    """Effects of the blocks of one model over those of another: ratios with 95 % intervals, along common draws.

    Where two blocks have maps, channels and orders alike, as with two checkpoints of one network, both are measured at
    the same locations and along the same directions: the interval of the ratio is then as narrow as what they have in
    common allows. Otherwise draws are independent, and the result says so.

    Args:
        models: the numerator's and the denominator's; one model twice to compare two of its blocks.
        images: what each is shown, (B, 3, H, W), prepared as it expects them, or a stream (`picture_stream`) of them;
            the same pictures, unless pictures are what is compared. More than a batch holds are measured batch by
            batch, as many of both.
        blocks: indices of the blocks of each, of equal number, which are compared one by one; those that have the same
            index in both when None.
        options: what is asked for, of both alike; the defaults when None.
        on_block: called after each pair; of many pictures pairs are finished together.
        image_names: for the provenance; those that `image_batch` wrote down when None.
        **given: fields of `SpectrumOptions` as keyword arguments, in place of those of `options`.

    Returns:
        Name of the first model's block → comparison, in the order of the network; with the name of the second's where
        that is another ("blocks.0 : blocks.3").

    Raises:
        TypeError: an argument that is no option.
        ValueError: blocks that do not pair, unequal numbers of pictures where they are many, or what cannot be measured
            (see `model_interaction_spectra`).

    Example:
        >>> import torch
        >>> from horinsight.models.registry import create_model
        >>> models = create_model("hornet_test_iso"), create_model("hornet_test_iso", seed=1)
        >>> images = torch.randn(1, 3, 96, 96)
        >>> found = model_spectrum_comparisons(models, (images, images), blocks=([1], [1]), num_tuples=32)
        >>> comparison = found["blocks.0.gnconv"]
        >>> comparison.common_draws, len(comparison.ratios)
        (True, 6)
    """
    options = made(SpectrumOptions, options, given, caller="model_spectrum_comparisons")
    shown = [ShownPictures.of(images[0])]
    shown.append(shown[0] if images[1] is images[0] else ShownPictures.of(images[1]))
    pairs = _paired(models, [one.size for one in shown], blocks)
    origins = [
        model_provenance(model, image_names=one.names() if image_names is None else image_names, seed=options.seed)
        for model, one in zip(models, shown, strict=True)
    ]
    found = {}

    def keep(pair: BlockPair, comparison: SpectrumComparison) -> None:
        one, other = pair
        found[one.name if one.name == other.name else f"{one.name} : {other.name}"] = comparison
        if on_block is not None:
            on_block(one, comparison)

    if shown[0].together is not None and shown[1].together is not None:
        _compare_at_once(models, (shown[0].together, shown[1].together), pairs, options, keep, origins)
    else:
        if shown[0].count != shown[1].count:
            raise ValueError(
                f"model_spectrum_comparisons expects as many pictures of both where they are more than a batch, got "
                f"{shown[0].count} and {shown[1].count}: give the same, or compare results (compare_spectra)."
            )
        both = StreamedPair(models, (shown[0].batches, shown[1].batches), shown[0].count)
        streamed_comparisons(both, pairs, options, keep, provenances=origins)
    return ResultSet(found)


def _compare_at_once(
    models: tuple[nn.Module, nn.Module],
    images: tuple[Tensor, Tensor],
    pairs: Sequence[BlockPair],
    options: SpectrumOptions,
    keep: Callable[[BlockPair, SpectrumComparison], None],
    origins: Sequence[Provenance],
) -> None:
    """Pairs of blocks at pictures that one batch holds."""
    every = [block for pair in pairs for block in pair]
    points = [
        block_points(model, batch, [*{pair[side].name: pair[side] for pair in pairs}.values()], options, among=every)
        for side, (model, batch) in enumerate(zip(models, images, strict=True))
    ]
    for pair in pairs:
        keep(pair, compared_points(points[0][pair[0].name], points[1][pair[1].name], origins))


def _paired(
    models: tuple[nn.Module, nn.Module],
    sizes: Sequence[tuple[int, int]],
    blocks: tuple[Sequence[int], Sequence[int]] | None,
) -> list[BlockPair]:
    """Which block is compared with which.

    Raises:
        ValueError: indices that there are not, or of unequal number.
    """
    by_index = [
        {block.index: block for block in chosen_blocks(model, image_size=size)}
        for model, size in zip(models, sizes, strict=True)
    ]
    if blocks is None:
        both = [index for index in by_index[0] if index in by_index[1]]
        blocks = both, both
    for model, indices, size in zip(models, blocks, sizes, strict=True):
        chosen_blocks(model, indices, image_size=size)  # says which there are not
    if len(blocks[0]) != len(blocks[1]):
        raise ValueError(
            f"model_spectrum_comparisons expects as many blocks of each model, got {len(blocks[0])} and "
            f"{len(blocks[1])}: name the partner of each."
        )
    return [(by_index[0][one], by_index[1][other]) for one, other in zip(*blocks, strict=True)]
