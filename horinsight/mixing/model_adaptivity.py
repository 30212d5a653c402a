"""`adaptivity` of the blocks of a model over any number of pictures, in two passes over them and constant memory."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.data.picture_batches import BATCH_SIZE, PictureBatch, tensor_stream
from horinsight.data.picture_stream import PictureStream
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.mixing.extraction import OnRefusal, kept_by_block
from horinsight.mixing.left_out_adaptivity import LeftOutAdaptivity
from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.running_adaptivity import CONVENTION, RunningAdaptivity
from horinsight.mixing.weights import MixingWeights
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.results import ResultSet


def model_adaptivity(
    model: nn.Module,
    images: Tensor | PictureStream,
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    model_name: str | None = None,
    image_names: Sequence[str] | None = None,
    seed: int = 0,
    on_refusal: OnRefusal | None = None,
) -> ResultSet[Adaptivity]:
    """`adaptivity` of the blocks of a model: one forward pass where a batch holds all images, else two for each batch.

    What is kept of a block does not grow with the images (`RunningAdaptivity`); the second pass tells what the numbers
    are without each of them, for the standard errors.

    Args:
        model: see `model_mixing_weights`.
        images: (B, 3, H, W), prepared, or a stream of pictures (`picture_stream`); from two on the input adaptivity is
            known, from three on its standard error.
        blocks: indices from 1; all when None.
        step: recursion step of gnConvs; the last when None.
        model_name: for the provenance; the name under which timm built it when None.
        image_names: for the provenance; those that `image_batch` or the stream wrote down when None.
        seed: for the provenance.
        on_refusal: see `model_mixing_weights`; a block that is refused at one batch is left out.

    Returns:
        Block name → adaptivity.

    Raises:
        ValueError: see `model_mixing_weights`; pictures that cannot be read, see `picture_stream`.
    """
    if isinstance(images, PictureStream):
        alone, size = images.one_batch() is not None, images.image_size
        batches: Iterable[PictureBatch] = images
        names: Sequence[str] = images.names
    else:
        size, names = image_size_of(images), picture_names(images)
        batches = list(tensor_stream(images, ("",) * len(images)))
        alone = len(images) <= BATCH_SIZE
    origin = model_provenance(
        model, model_name=model_name, image_names=names if image_names is None else image_names, seed=seed
    )
    convention = {**CONVENTION, "step": "last" if step is None else str(step)}
    sums = _BlockSums(chosen_blocks(model, blocks, image_size=size), size, on_refusal)
    for second in (False,) if alone else (False, True):
        for batch in batches:
            sums.add(model, batch.images, step, second=second, alone=alone)
    return ResultSet(
        {
            name: replace(found, convention=convention | sums.declared[name], provenance=origin)
            for name, found in sums.results().items()
        }
    )


class _BlockSums:
    """Sums of each block that has not been refused."""

    def __init__(self, chosen: Sequence[MixingBlock], size: tuple[int, int], on_refusal: OnRefusal | None) -> None:
        self.blocks = {block.name: block for block in chosen}
        self.totals = {name: RunningAdaptivity(image_size=size) for name in self.blocks}
        self.left_out = {name: LeftOutAdaptivity(total) for name, total in self.totals.items()}
        self.declared: dict[str, dict[str, str]] = {}
        self._on_refusal = on_refusal

    def add(self, model: nn.Module, images: Tensor, step: int | None, *, second: bool, alone: bool) -> None:
        """Run the model on a batch: for the totals, or in a second pass to leave each image out; both of one alone."""
        if not self.blocks:
            return

        def keep(block: MixingBlock, weights: MixingWeights) -> None:
            if not second:
                self.totals[block.name].update(weights)
                self.declared.setdefault(block.name, weights.declared())
            if second or alone:
                self.left_out[block.name].update(weights)

        indices = [block.index for block in self.blocks.values()]
        refuse = None if self._on_refusal is None else self._refuse
        kept_by_block(model, images, keep, blocks=indices, step=step, on_refusal=refuse)

    def _refuse(self, block: MixingBlock, reason: ValueError) -> None:
        assert self._on_refusal is not None
        del self.blocks[block.name]
        self._on_refusal(block, reason)

    def results(self) -> dict[str, Adaptivity]:
        """Of the blocks that every batch had."""
        return {name: self.totals[name].compute(self.left_out[name]) for name in self.blocks}
