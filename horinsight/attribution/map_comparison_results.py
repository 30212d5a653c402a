"""How maps agree, with one another and with those of a model whose weights are redrawn; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.attribution.curve_areas import over_pictures
from horinsight.results import Provenance, Result
from horinsight.stats import Estimate


@dataclass(frozen=True, eq=False, repr=False)
class MapAgreement(Result):
    """How alike the maps of each two methods are, picture by picture.

    Attributes:
        methods: whose maps.
        share: of the cells that count as the highest.
        chance: the overlap of two maps that know nothing of one another.
        correlations: (methods, methods, pictures), Spearman's; NaN where a map is constant.
        overlaps: (methods, methods, pictures), the part of the highest cells that both share.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    methods: tuple[str, ...]
    share: float
    chance: float
    correlations: np.ndarray
    overlaps: np.ndarray
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    def correlation(self, name: str, other: str) -> Estimate:
        """Mean over pictures whose two maps are not constant."""
        return over_pictures(self.correlations[self._place(name), self._place(other)])

    def overlap(self, name: str, other: str) -> Estimate:
        """Mean over pictures."""
        return over_pictures(self.overlaps[self._place(name), self._place(other)])

    def _place(self, name: str) -> int:
        if name not in self.methods:
            raise ValueError(f"Expected a method among {', '.join(self.methods)}, got {name!r}.")
        return self.methods.index(name)

    def _columns(self) -> dict[str, Any]:
        """A row per pair of methods; one for the only method with itself."""
        names = self.methods
        pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]] or [(names[0], names[0])]
        columns: dict[str, Any] = {"map": [a for a, _ in pairs], "other": [b for _, b in pairs]}
        for quantity in ("correlation", "overlap"):
            columns |= _columns_of(quantity, [getattr(self, quantity)(*pair) for pair in pairs])
        return columns | {"share": self.share, "chance": self.chance}


@dataclass(frozen=True, eq=False, repr=False)
class RandomizedMaps(Result):
    """How like the trained model's maps are those of the model while its weights are redrawn, from the head down.

    Attributes:
        methods: whose maps.
        stages: modules in the order in which they are redrawn; each stage keeps those before redrawn.
        correlations: (methods, stages, pictures), Spearman's of the maps with signs; NaN where one is constant.
        magnitudes: (methods, stages, pictures), the same of their absolute values.
        redrawn: stage → numbers of it that are redrawn.
        kept: stage → its parameters that are kept as trained: norms, layer scales and others of one dimension.
        seed: of the weights.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    methods: tuple[str, ...]
    stages: tuple[str, ...]
    correlations: np.ndarray
    magnitudes: np.ndarray
    redrawn: Mapping[str, int]
    kept: Mapping[str, tuple[str, ...]]
    seed: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    def _columns(self) -> dict[str, Any]:
        """A row per method and stage."""
        places = [(m, s) for m in range(len(self.methods)) for s in range(len(self.stages))]
        columns: dict[str, Any] = {
            "map": [self.methods[m] for m, _ in places],
            "stage": [self.stages[s] for _, s in places],
        }
        for name, values in (("correlation", self.correlations), ("magnitude", self.magnitudes)):
            columns |= _columns_of(name, [over_pictures(values[place]) for place in places])
        constant = [int(np.isnan(self.correlations[place]).sum()) for place in places]
        return columns | {"constant": constant, "num_images": self.correlations.shape[2]}


@dataclass(frozen=True, eq=False, repr=False)
class CaptumScores(Result):
    """captum's infidelity and largest sensitivity of maps, beside those of a map of zeros.

    Both are better the smaller they are, and both like a map that says nothing: the zero map has no sensitivity at all,
    and often less infidelity than maps of which nobody says in which unit they are.

    Attributes:
        methods: whose maps.
        units: of each, "gradient" or "multiplied".
        infidelities: (methods, pictures), E[(I · φ - (f(x) - f(x - I)))²].
        scaled: (methods, pictures), the same of each picture's map times the number that suits it best: what the shape
            of the map is worth, whatever its unit. It never exceeds that of the zero map.
        zero_infidelities: (pictures,), of a map of zeros.
        sensitivities: (methods, pictures), the largest |φ(x + δ) - φ(x)| / |φ(x)|; NaN where it was not asked for. That
            of a map of zeros is 0.
        settings: of both, as numbers.
        seed: of squares and δ.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    methods: tuple[str, ...]
    units: tuple[str, ...]
    infidelities: np.ndarray
    scaled: np.ndarray
    zero_infidelities: np.ndarray
    sensitivities: np.ndarray
    settings: Mapping[str, float]
    seed: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    def over_zero(self, name: str) -> Estimate:
        """By how much a map's infidelity is larger than the zero map's, on the same pictures."""
        return over_pictures(self.infidelities[self.methods.index(name)] - self.zero_infidelities)

    def _columns(self) -> dict[str, Any]:
        """A row per method, the zero map last."""
        zero = self.zero_infidelities
        rows = [
            *zip(self.infidelities, self.scaled, self.sensitivities, strict=True),
            (zero, zero, np.zeros(len(zero))),
        ]
        columns: dict[str, Any] = {"map": [*self.methods, "zero"], "unit": [*self.units, None]}
        for place, name in enumerate(("infidelity", "scaled", "sensitivity")):
            columns |= _columns_of(name, [over_pictures(row[place]) for row in rows])
        return columns


def _columns_of(name: str, estimates: list[Estimate]) -> dict[str, list[float]]:
    ends = [estimate.interval for estimate in estimates]
    return {
        name: [estimate.value for estimate in estimates],
        f"{name}_se": [estimate.standard_error for estimate in estimates],
        f"{name}_low": [low for low, _ in ends],
        f"{name}_high": [high for _, high in ends],
    }
