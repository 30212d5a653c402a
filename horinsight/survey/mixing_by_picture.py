"""Mixing weights of each block at one picture after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.extraction import model_mixing_weights
from horinsight.mixing.mixing_results import PictureAdaptivity
from horinsight.mixing.running_adaptivity import RunningAdaptivity
from horinsight.mixing.weights import MixingWeights
from horinsight.survey.picture_rows import PictureMeasured, PictureRow, refused_row, rows_of


@dataclass(frozen=True)
class MixingAsked:
    """`mixing` of each picture.

    Quantities: "mean_distance" in cells and "mean_distance_pixels", "effective_positions", "negative_share", and
    "location_adaptivity", "location_deviation" and "static_share" of the picture's own weights, where nothing is known
    of other pictures. What adapts to the input shows over pictures alone: sums of their weights are kept beside the
    rows (`survey_adaptivity`).

    Attributes:
        step: recursion step of gnConvs; the last when None.
        blocks: indices, from 1; all when None.
    """

    step: int | None = None
    blocks: Sequence[int] | None = None

    @property
    def name(self) -> str:
        """Of the command."""
        return "mixing"

    @property
    def seed(self) -> int:
        """Nothing is drawn."""
        return 0

    def settings(self) -> dict[str, Any]:
        """All that can change a number."""
        return {"step": self.step}

    def smaller(self) -> None:
        """One picture is as little as can be."""

    def measured(self, model: nn.Module, image: Tensor, blocks: Sequence[MixingBlock], seed: int) -> PictureMeasured:
        """Rows of one picture, and its part in the sums over pictures."""
        size = image_size_of(image)
        refused: list[PictureRow] = []

        def refuse(block: MixingBlock, reason: ValueError) -> None:
            refused.append(refused_row(block, reason))

        def keep(weights: MixingWeights) -> tuple[RunningAdaptivity, PictureAdaptivity]:
            running = RunningAdaptivity(image_size=size)
            return running, running.update(weights)

        indices = [block.index for block in blocks]
        found = model_mixing_weights(model, image, blocks=indices, step=self.step, keep=keep, on_refusal=refuse)
        rows, sums = list(refused), {}
        for block in blocks:
            if block.name in found:
                sums[block.index], alone = found[block.name]
                rows += rows_of(block, {name: values[0] for name, values in vars(alone).items()})
        return PictureMeasured(sorted(rows, key=lambda row: row.block or 0), sums)
