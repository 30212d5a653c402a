"""What a survey answers, as a value: means over pictures with intervals; drawn and reported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from horinsight.results import Result
from horinsight.stats import Estimate

ALL = "all"  # the group of all pictures


@dataclass(frozen=True)
class SurveyLine:
    """One number of one block over the pictures of a group.

    Attributes:
        group: the class; "all" where pictures are not grouped.
        block: its index.
        name: of the block.
        quantity: what is measured.
        k: number of neighbours; None where the quantity has none.
        estimate: over the pictures, with its 95 % interval.
        other: of the other survey's block with this index, where one is compared with.
        contrast: the first less the other; of effects the first over the other.
        num_paired: pictures by which the contrast pairs the two; None where they count as independent.
    """

    group: str
    block: int
    name: str
    quantity: str
    k: int | None
    estimate: Estimate
    other: Estimate | None = None
    contrast: Estimate | None = None
    num_paired: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class SurveyTable(Result):
    """Means over the pictures of a survey, as far as it is finished.

    Attributes:
        question: "ie", "mixing" or "reach".
        model: its name.
        weights: where its weights come from.
        trained: whether they are.
        lines: by group, block, quantity and k.
        num_pictures: in finished parts, of `num_listed`.
        num_listed: on the list.
        unreadable: picture → why it could not be read; the first hundred.
        num_unreadable: of the pictures in finished parts.
        refused: why blocks gave no number → on how many pictures.
        other: the model that is compared with, with its weights; None where there is none.
        differing: what else is another than here, a text each ("tuples 32 here, 64 there").
        paired: whether the two are compared picture by picture: where both are of the same list.
        num_paired: pictures that both have so far, where they are; None else.
        convention: what the numbers are, in words.
    """

    question: str
    model: str
    weights: str
    trained: bool | None
    lines: tuple[SurveyLine, ...]
    num_pictures: int
    num_listed: int
    unreadable: Mapping[str, str]
    num_unreadable: int
    refused: Mapping[str, int]
    other: str | None = None
    differing: tuple[str, ...] = ()
    paired: bool | None = None
    num_paired: int | None = None
    convention: Mapping[str, str] = field(default_factory=dict)

    def _columns(self) -> dict[str, Any]:
        """A row per line."""
        rows = [line_of_table(line) for line in self.lines]
        names = list(rows[0]) if rows else []
        return {name: [row[name] for row in rows] for name in names}


def line_of_table(line: SurveyLine) -> dict[str, Any]:
    """A line as JSON, CSV and data frames have it."""
    row: dict[str, Any] = {
        "group": line.group,
        "block": line.block,
        "name": line.name,
        "quantity": line.quantity,
        "k": line.k,
        **_numbers("", line.estimate),
    }
    if line.contrast is not None and line.other is not None:
        kind = "ratio" if line.quantity == "effect" else "difference"
        row |= {**_numbers("other_", line.other), "contrast": kind, **_numbers("contrast_", line.contrast)}
        row |= {"paired": line.num_paired is not None, "paired_pictures": line.num_paired}
    return row


def _numbers(start: str, estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval
    return {
        f"{start}value": estimate.value,
        f"{start}low": low,
        f"{start}high": high,
        f"{start}standard_error": estimate.standard_error,
        f"{start}pictures": estimate.count,
    }
