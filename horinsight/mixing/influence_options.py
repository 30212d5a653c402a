"""What a measurement of influence is asked for: every option of it, described once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from horinsight.options import check_fields, option


@dataclass(frozen=True, kw_only=True)
class InfluenceOptions:
    """Options of `influence` and `model_influence`.

    Attributes:
        explicit: replace every non-linearity by its tangent at x (`explicit_operators`) before it is differentiated, as
            `interaction_spectrum` does. A tangent has the first derivative of what it replaces, so this is the same
            influence, to rounding; what differs are the functions of torch that compute it.
        probes: random sign vectors for each image and query; every output channel by itself, which is exact, when None.
        seed: of the signs, and of queries that are drawn.
        batch_size: images and probes that are differentiated together; bounds the memory.

    Raises:
        ValueError: a value below its least.
    """

    explicit: bool = option(False, "By way of tangents.")
    probes: int | None = option(None, "Random sign vectors per image and query: each is a backward pass.", least=1)
    seed: int = option(0, "Of the signs and of drawn queries.")
    batch_size: int = option(16, "Images and probes differentiated together.", least=1, changes_result=False)

    def __post_init__(self) -> None:
        check_fields(self)


class InfluenceKeywords(TypedDict, total=False):
    """The fields of `InfluenceOptions` as keyword arguments."""

    explicit: bool
    probes: int | None
    seed: int
    batch_size: int


class ModelInfluenceKeywords(InfluenceKeywords, total=False):
    """The same, what the provenance is told, and which of many pictures' maps are kept."""

    model_name: str | None
    image_names: Sequence[str] | None
    shown: Sequence[int] | None
