"""The blocks of two models, or of one with two sets of weights, compared by their interaction effects."""

from collections.abc import Callable, Sequence
from typing import Unpack

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.interaction.block_points import block_points
from horinsight.interaction.common_draws import compared_points
from horinsight.interaction.spectrum_comparison import SpectrumComparison
from horinsight.interaction.spectrum_options import SpectrumKeywords, SpectrumOptions
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.options import made
from horinsight.results import ResultSet


def model_spectrum_comparisons(
    models: tuple[nn.Module, nn.Module],
    images: tuple[Tensor, Tensor],
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
        images: what each is shown, (B, 3, H, W), prepared as it expects them; the same pictures, unless pictures are
            what is compared.
        blocks: indices of the blocks of each, of equal number, which are compared one by one; those that have the same
            index in both when None.
        options: what is asked for, of both alike; the defaults when None.
        on_block: called after each pair.
        image_names: for the provenance; those that `image_batch` wrote down when None.
        **given: fields of `SpectrumOptions` as keyword arguments, in place of those of `options`.

    Returns:
        Name of the first model's block → comparison, in the order of the network; with the name of the second's where
        that is another ("blocks.0 : blocks.3").

    Raises:
        TypeError: an argument that is no option.
        ValueError: blocks that do not pair, or what cannot be measured (see `model_interaction_spectra`).

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
    pairs = _paired(models, images, blocks)
    every = [block for pair in pairs for block in pair]
    origins = [
        model_provenance(
            model, image_names=picture_names(batch) if image_names is None else image_names, seed=options.seed
        )
        for model, batch in zip(models, images, strict=True)
    ]
    points = [
        block_points(model, batch, [*{pair[side].name: pair[side] for pair in pairs}.values()], options, among=every)
        for side, (model, batch) in enumerate(zip(models, images, strict=True))
    ]
    found = {}
    for one, other in pairs:
        comparison = compared_points(points[0][one.name], points[1][other.name], origins)
        found[one.name if one.name == other.name else f"{one.name} : {other.name}"] = comparison
        if on_block is not None:
            on_block(one, comparison)
    return ResultSet(found)


def _paired(
    models: tuple[nn.Module, nn.Module],
    images: tuple[Tensor, Tensor],
    blocks: tuple[Sequence[int], Sequence[int]] | None,
) -> list[tuple[MixingBlock, MixingBlock]]:
    """Which block is compared with which.

    Raises:
        ValueError: indices that there are not, or of unequal number.
    """
    by_index = [
        {block.index: block for block in chosen_blocks(model, image_size=image_size_of(batch))}
        for model, batch in zip(models, images, strict=True)
    ]
    if blocks is None:
        both = [index for index in by_index[0] if index in by_index[1]]
        blocks = both, both
    for model, indices, batch in zip(models, blocks, images, strict=True):
        chosen_blocks(model, indices, image_size=image_size_of(batch))  # says which there are not
    if len(blocks[0]) != len(blocks[1]):
        raise ValueError(
            f"model_spectrum_comparisons expects as many blocks of each model, got {len(blocks[0])} and "
            f"{len(blocks[1])}: name the partner of each."
        )
    return [(by_index[0][one], by_index[1][other]) for one, other in zip(*blocks, strict=True)]
