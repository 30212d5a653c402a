"""How far each block sees, at one picture after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.block_influence import Cell, ReachScope, block_influences
from horinsight.mixing.influence_options import InfluenceOptions
from horinsight.mixing.query_places import same_place
from horinsight.mixing.reach import PROBES, first_cells, reach_of
from horinsight.mixing.reach_results import Influence
from horinsight.options import settings
from horinsight.survey.picture_rows import PictureMeasured, PictureRow, each_block, rows_of


@dataclass(frozen=True)
class ReachAsked:
    """`reach` of each picture, the mean over its queries.

    Quantities: "radius_50", "radius_90", "radius_99" in cells of the block's map, the same with "_pixels", and "total".

    Attributes:
        scope: from where influence is taken.
        queries: as in `model_influence`: the middle when None, a number drawn by seed, or cells; the same on every
            picture.
        options: how; `PROBES` random sign vectors when None, each picture's own.
        blocks: indices, from 1; all when None.
    """

    scope: ReachScope = "image"
    queries: int | Sequence[Cell] | None = None
    options: InfluenceOptions = field(default_factory=lambda: InfluenceOptions(probes=PROBES))
    blocks: Sequence[int] | None = None

    @property
    def name(self) -> str:
        """Of the command."""
        return "reach"

    @property
    def seed(self) -> int:
        """Of all draws."""
        return self.options.seed

    def settings(self) -> dict[str, Any]:
        """All that can change a number."""
        queries = self.queries if self.queries is None or isinstance(self.queries, int) else [*map(list, self.queries)]
        return {"scope": self.scope, "queries": queries, **settings(self.options, relevant=True)}

    def smaller(self) -> "ReachAsked | None":
        """With half as many probes at once."""
        half = self.options.batch_size // 2
        return replace(self, options=replace(self.options, batch_size=half)) if half else None

    def measured(self, model: nn.Module, image: Tensor, blocks: Sequence[MixingBlock], seed: int) -> PictureMeasured:
        """Rows of one picture."""
        size = image_size_of(image)
        first: list[tuple[Sequence[Cell], Cell]] = []

        def cells(out_size: Cell) -> list[Cell]:
            if not first:
                first.append((first_cells(self.queries, out_size, self.seed), out_size))
            wanted, wanted_on = first[0]
            return [same_place(cell, wanted_on, out_size) for cell in wanted]

        def rows(block: MixingBlock) -> list[PictureRow]:
            found: list[PictureRow] = []

            def keep(_: MixingBlock, influences: Influence) -> None:
                reach = reach_of(influences, image_size=size, scope=self.scope)
                found.extend(rows_of(block, {name: one.value for name, one in reach.estimates.items()}))

            block_influences(
                model, image, [block], scope=self.scope, cells=cells, keep=keep,
                options=replace(self.options, seed=seed),
            )  # fmt: skip
            return found

        return PictureMeasured(each_block(blocks, rows), {})
