"""Interaction effects of one operator, as a value: it is read, drawn and reported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.results import Provenance, Result


@dataclass(frozen=True, eq=False, repr=False)
class InteractionSpectrum(Result):
    """Interaction effects of one operator by order, k = 0..K.

    Attributes:
        effects: (K + 1,) effect_k = sqrt(IE_k) / std(F); effect_0 is the plain response, no interaction.
        ci_low: (K + 1,) lower end of the 95 % interval of each effect; NaN where one draw gives none.
        ci_high: (K + 1,) its upper end.
        exact_zero: (K + 1,) whether every draw was 0.0 bit for bit (or structurally zero).
        max_share: (K + 1,) share of the largest draw in the sum of squares.
        location_order: largest k with an effect that is not exactly zero; None if that is K, so that the order is open.
        degree_order: polynomial degree - 1, from derivatives along dense random directions; None if above K.
        at_least: K where `location_order` is None, else None.
        num_draws: chains (i, j_1, …, j_K) drawn.
        seed: of the draws.
        unlisted: explicit spectra whose derivatives do not end: the operators met that are neither linear, nor a
            product, nor a known non-linearity. Empty where K was merely too low.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
        options: what was asked for; None in results of before.
        target: what `ci_low` and `ci_high` are an interval of: of the effect at "these images", over what is drawn, or
            of that at "images like these" (so files of before 0.2 where there were 8 images and more).
        like_low: (K + 1,) lower end of an approximate 95 % interval of the effect at images like these, at fixed σ and
            std(F); None where there are too few images to tell.
        like_high: (K + 1,) its upper end.
        shortfalls: a line for each effect that is not known as well as asked for, or hardly at all.
    """

    effects: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    exact_zero: np.ndarray
    max_share: np.ndarray
    location_order: int | None
    degree_order: int | None
    at_least: int | None
    num_draws: int
    seed: int
    unlisted: tuple[str, ...] = ()
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None
    options: SpectrumOptions | None = None
    target: str = "these images"
    like_low: np.ndarray | None = None
    like_high: np.ndarray | None = None
    shortfalls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.convention.get("interval") == "95 % bootstrap by image":
            object.__setattr__(self, "target", "images like these")

    def _columns(self) -> dict[str, Any]:
        """A row per order k."""
        fields = {"effect" if name == "effects" else name: values for name, values in super()._columns().items()}
        return {"k": np.arange(len(self.effects)), **fields}
