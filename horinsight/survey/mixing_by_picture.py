"""Mixing weights of each block at one picture after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.adaptivity import adaptivity
from horinsight.mixing.extraction import model_mixing_weights
from horinsight.mixing.weights import MixingWeights
from horinsight.stats import Estimate
from horinsight.survey.picture_rows import PictureMeasured, PictureRow, refused_row, rows_of


@dataclass(frozen=True)
class MixingAsked:
    """`mixing` of each picture.

    Quantities: "mean_distance" in cells and "mean_distance_pixels", "effective_positions", "negative_share", and
    "location_adaptivity", "location_deviation" and "static_share" of the picture's own weights, where nothing is known
    of other pictures. What adapts to the input shows over pictures alone: sums of their weights are kept beside.

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
        """Rows of one picture, and its weights' part in the sums over pictures."""
        size = image_size_of(image)
        of_name = {block.name: block for block in blocks}
        refused: list[PictureRow] = []

        def refuse(block: MixingBlock, reason: ValueError) -> None:
            refused.append(refused_row(block, reason))

        def keep(weights: MixingWeights) -> dict[str, float]:
            found = vars(adaptivity(weights, image_size=size))
            values = {name: one.value for name, one in found.items() if isinstance(one, Estimate)}
            return {name: value for name, value in values.items() if not isnan(value) and not name.startswith("input")}

        found = model_mixing_weights(
            model, image, blocks=[*map(_index, blocks)], step=self.step, keep=keep, on_refusal=refuse
        )
        rows = [row for name, numbers in found.items() for row in rows_of(of_name[name], numbers)]
        return PictureMeasured(sorted([*rows, *refused], key=lambda row: row.block or 0), {})


def _index(block: MixingBlock) -> int:
    return block.index
