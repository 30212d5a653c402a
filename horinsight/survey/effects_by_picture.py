"""Interaction effects of each block at one picture after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from horinsight.interaction.block_points import block_points
from horinsight.interaction.draw_schedule import NESTED_DRAWS
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.mixers.blocks import MixingBlock
from horinsight.options import settings
from horinsight.survey.picture_rows import PictureMeasured, PictureRow, each_block, refused_row


@dataclass(frozen=True)
class EffectsAsked:
    """`ie` of each picture by itself: σ, std(F) and the draws are the picture's own.

    Quantities: "effect" and "mean_square" = E[|D_k|²/C'], with effect_k = sqrt(mean_square / output_square), and
    "exact_zero" and "structural_zero" (1 or 0), all for each k; "output_square" = std(F)²; "draws"; "order" and
    "degree_order", NaN where they are open; "order_at_least", the highest order measured where it is.

    Over pictures effects are pooled as sqrt(Σ mean_square / Σ output_square).

    Attributes:
        options: what is asked; `NESTED_DRAWS` chains where nobody says how many: what one picture lacks, others have.
        blocks: indices, from 1; all when None.

    Raises:
        ValueError: draws by time, which would not come out the same again.
    """

    options: SpectrumOptions = field(default_factory=SpectrumOptions)
    blocks: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.options.seconds is not None:
            raise ValueError("A survey draws by numbers or precision, not by seconds: its rows must come out again.")
        if self.options.num_tuples is None and self.options.precision is None:
            object.__setattr__(self, "options", replace(self.options, num_tuples=NESTED_DRAWS))

    @property
    def name(self) -> str:
        """Of the command."""
        return "ie"

    @property
    def seed(self) -> int:
        """Of all draws."""
        return self.options.seed

    def settings(self) -> dict[str, Any]:
        """All that can change a number."""
        return settings(self.options, relevant=True)

    def smaller(self) -> "EffectsAsked | None":
        """With half as many chains at once."""
        half = self.options.batch_size // 2
        return replace(self, options=replace(self.options, batch_size=half)) if half else None

    def measured(self, model: nn.Module, image: Tensor, blocks: Sequence[MixingBlock], seed: int) -> PictureMeasured:
        """Rows of one picture."""
        refused: list[PictureRow] = []

        def refuse(block: MixingBlock, reason: ValueError) -> None:
            refused.append(refused_row(block, reason))

        asked = replace(self.options, seed=seed)
        points = block_points(model, image, blocks, asked, among=blocks, on_refusal=refuse)
        there = [block for block in blocks if block.name in points]

        def rows(block: MixingBlock) -> list[PictureRow]:
            spectrum, draws = points.pop(block.name).measured()
            squares = np.square(spectrum.effects) * draws.spread**2
            by_order = {
                "effect": spectrum.effects,
                "exact_zero": spectrum.exact_zero,
                "mean_square": squares,
                "structural_zero": draws.mixed.structural,
            }
            at_least = spectrum.location_order if spectrum.at_least is None else spectrum.at_least
            alone = {
                "degree_order": spectrum.degree_order,
                "draws": spectrum.num_draws,
                "order": spectrum.location_order,
                "order_at_least": at_least,
                "output_square": draws.spread**2,
            }
            found = [
                PictureRow(block.index, block.name, quantity, k, float(value))
                for quantity, values in by_order.items()
                for k, value in enumerate(values)
            ] + [
                PictureRow(block.index, block.name, name, None, float("nan") if value is None else float(value))
                for name, value in alone.items()
            ]
            return sorted(found, key=lambda row: (row.quantity, -1 if row.k is None else row.k))

        measured = each_block(there, rows)
        return PictureMeasured(sorted([*measured, *refused], key=lambda row: row.block or 0), {})
