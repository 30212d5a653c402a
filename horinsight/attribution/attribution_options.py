"""How attributions, and interactions by place, are made: every option of them, described once."""

from dataclasses import dataclass
from typing import TypedDict

from horinsight.options import check_fields, option


@dataclass(frozen=True, kw_only=True)
class AttributionOptions:
    """Options of `position_attribution` and `prediction_attribution`.

    Attributes:
        steps: of the path from the baseline. When None 50, and for integrated gradients (of a layer, too) twice as many
            as long as their sum misses the output's difference by more than 1 %, up to 800: along the path of a trained
            gⁿConv network 50 miss it by 0.3 to 20 %.
        samples: random draws: permutations of Shapley values, coalitions of LIME and KernelSHAP, points of
            GradientShap, orderings of interactions, sign vectors of influence; the method's own number when None.
        window: side in cells of the squares that are covered together; such that seven cover the longer side when None.
        order: of interactions by place.
        channel: of the output that is explained at a position; the sum of squares over all when None.
        layer: that layer methods tell of: the name or the number of a block, for the residual block around it, or the
            path of a module of the network that gives maps (B, C, H, W).
        seed: of all that is drawn.
        memory: bytes that what is differentiated together may save, on top of which comes as much again and a half
            while it runs; one example at least is.

    Raises:
        ValueError: a value below its least.
    """

    steps: int | None = option(None, "Steps of the path from the baseline; enough for 1 % when not said.", least=1)
    samples: int | None = option(None, "Random draws of methods that draw.", least=1)
    window: int | None = option(None, "Side in cells of the squares that are covered together.", least=1)
    order: int = option(1, "Order of interactions by place.", least=1)
    channel: int | None = option(None, "Channel of the output that is explained at a position.", least=0)
    layer: str | None = option(None, "Block or module that layer methods tell of.")
    seed: int = option(0, "Of all that is drawn.", least=0)
    memory: int = option(2**28, "Bytes that a graph may save.", least=1, changes_result=False)

    def __post_init__(self) -> None:
        check_fields(self)


class AttributionKeywords(TypedDict, total=False):
    """The fields of `AttributionOptions` as keyword arguments."""

    steps: int | None
    samples: int | None
    window: int | None
    order: int
    channel: int | None
    layer: str | None
    seed: int
    memory: int


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Options of `interaction_places`.

    Attributes:
        order: k, how many neighbours act jointly with the position.
        num_orderings: random orderings of the neighbours; each costs k nested derivatives.
        explicit: non-linearities as their tangents at x, as `interaction_spectrum` has them; else as they are.
        seed: of all that is drawn.

    Raises:
        ValueError: a value below its least.
    """

    order: int = option(1, "Neighbours that act jointly with the position.", least=1)
    num_orderings: int = option(16, "Random orderings of the neighbours.", least=1)
    explicit: bool = option(True, "Non-linearities as their tangents.")
    seed: int = option(0, "Of all that is drawn.", least=0)

    def __post_init__(self) -> None:
        check_fields(self)


class PlaceKeywords(TypedDict, total=False):
    """The fields of `PlaceOptions` as keyword arguments."""

    order: int
    num_orderings: int
    explicit: bool
    seed: int
