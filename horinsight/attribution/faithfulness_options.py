"""What a measurement of faithfulness is asked for: every option of it, described once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from horinsight.options import check_fields, option

if TYPE_CHECKING:
    from horinsight.attribution.perturbation_curves import Score

Spread = Literal["nearest", "bilinear"]  # how a map on a coarser grid becomes one of pixels


@dataclass(frozen=True, kw_only=True)
class FaithfulnessOptions:
    """Options of `faithfulness`.

    Attributes:
        rows: of cells, which come and go as a whole; they need not divide the picture.
        columns: of cells.
        steps: of each curve, at most as many as cells.
        spread: how a map on a coarser grid than the picture is spread over it.
        seed: of the random control, of ties in maps, of the baseline "others", and of what methods draw with torch.
        batch_size: perturbed pictures in one forward pass; bounds the memory.

    Raises:
        ValueError: a value below its least, or more steps than cells.
    """

    rows: int = option(14, "Rows of cells.", least=1)
    columns: int = option(14, "Columns of cells.", least=1)
    steps: int = option(20, "Steps of each curve.", least=1)
    spread: Spread = option("nearest", "How coarser maps are spread over the picture.")
    seed: int = option(0, "Of the random map, of ties, of drawn baselines and methods.", least=0)
    batch_size: int = option(64, "Perturbed pictures in one forward pass.", least=1, changes_result=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps > self.rows * self.columns:
            raise ValueError(
                f"steps expects at most the number of cells, {self.rows * self.columns}, got {self.steps}: take more "
                "cells."
            )


class FaithfulnessKeywords(TypedDict, total=False):
    """The fields of `FaithfulnessOptions` as keyword arguments, the score, and what the provenance is told."""

    rows: int
    columns: int
    steps: int
    spread: Spread
    seed: int
    batch_size: int
    score: "Score | None"
    background: Sequence[float] | None
    model_name: str | None
    image_names: Sequence[str] | None
