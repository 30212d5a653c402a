"""The rows of one picture: numbers by block, quantity and k, or why there are none."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from horinsight.mixers.blocks import MixingBlock

ERROR = "error"  # the quantity of rows that say why there is no number

COLUMNS: Mapping[str, str] = {
    "image": "the picture: its path below the folder, as the list has it, or the item of the Dataset",
    "class": "the folder that it lies in, or its class in the Dataset",
    "block": "index of the block, from 1; missing in the row of a picture that could not be read",
    "name": "of the block in the network",
    "quantity": "what the value is; 'error' where there is none",
    "k": "number of neighbours that interact, from 0; missing where a quantity has none",
    "value": "the number; NaN where it is not defined for this picture",
    "error": "why there is no number; missing otherwise",
}


class PictureRow(NamedTuple):
    """One number of one picture."""

    block: int | None
    name: str | None
    quantity: str
    k: int | None = None
    value: float = float("nan")
    error: str | None = None


@dataclass(frozen=True, eq=False)
class PictureMeasured:
    """What one picture gave.

    Attributes:
        rows: its numbers, in the order of blocks, quantities and k.
        kept: by block, what is summed over pictures besides (mixing weights); empty elsewhere.
    """

    rows: list[PictureRow]
    kept: Mapping[int, Any]


class Question(Protocol):
    """What is asked of each picture; workers get a copy."""

    @property
    def name(self) -> str:
        """Of the command: "ie", "mixing" or "reach"."""

    @property
    def blocks(self) -> Sequence[int] | None:
        """Indices of the blocks, from 1; all when None."""

    @property
    def seed(self) -> int:
        """Of all draws."""

    def settings(self) -> dict[str, Any]:
        """All that can change a number, as JSON knows it."""

    def smaller(self) -> "Question | None":
        """The same with half as much at once in memory; None where it is as little as can be."""

    def measured(
        self, model: "nn.Module", image: "Tensor", blocks: "Sequence[MixingBlock]", seed: int
    ) -> PictureMeasured:
        """The numbers of one picture, (1, 3, H, W), drawn by its own seed."""


def rows_of(block: "MixingBlock", numbers: Mapping[str, float]) -> list[PictureRow]:
    """A row for each quantity of a block, by name."""
    return [PictureRow(block.index, block.name, name, None, float(numbers[name])) for name in sorted(numbers)]


def refused_row(block: "MixingBlock", reason: Exception) -> PictureRow:
    """The row of a block that could not be measured on a picture."""
    return PictureRow(block.index, block.name, ERROR, error=str(reason))


def unreadable_row(reason: Exception) -> PictureRow:
    """The one row of a picture that could not be read or prepared."""
    said = " ".join(str(reason).split()) or type(reason).__name__
    return PictureRow(None, None, ERROR, error=said)


def picture_seed(seed: int, name: str) -> int:
    """Of a picture's draws: by the survey's seed and the picture's name, not by when or where it is measured.

    Example:
        >>> picture_seed(0, "cats/a.png") == picture_seed(0, "cats/a.png") != picture_seed(1, "cats/a.png")
        True
    """
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def each_block(blocks: "Sequence[MixingBlock]", made: "Callable[[MixingBlock], list[PictureRow]]") -> list[PictureRow]:
    """The rows of all blocks; one row with the reason for those that refuse."""
    rows: list[PictureRow] = []
    for block in blocks:
        try:
            rows += made(block)
        except ValueError as error:
            rows.append(refused_row(block, error))
    return rows
