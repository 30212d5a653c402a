"""How faithful maps are under several baselines, as a value: it is read, drawn and reported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from horinsight.attribution.curve_areas import curve_areas, over_pictures
from horinsight.attribution.faithfulness_table import FaithfulnessTable
from horinsight.results import Provenance, Result
from horinsight.stats import Estimate


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(FaithfulnessTable, Result):
    """Insertion and deletion curves of maps and controls, under several baselines, of each picture.

    A *map* is a method or a control. All intervals are of 95 %, Student's over pictures, for pictures like these, each
    by itself: among twenty differences of nothing one is expected to look like something.

    Attributes:
        methods: whose maps are asked about.
        controls: maps that never see the model, after the methods in all arrays.
        baselines: what stands for what is taken away.
        shares: (steps + 1,), of the cells that have come or gone.
        insertion: (maps, baselines, pictures, steps + 1), the score while cells come, from the baseline alone on.
        deletion: the same, while they go, from the whole picture on.
        pictures: (pictures,), their numbers among all that were given.
        targets: (pictures,), the class whose score it is.
        seed: of the random control, of ties and draws.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    methods: tuple[str, ...]
    controls: tuple[str, ...]
    baselines: tuple[str, ...]
    shares: np.ndarray
    insertion: np.ndarray
    deletion: np.ndarray
    pictures: np.ndarray
    targets: np.ndarray
    seed: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def num_pictures(self) -> int:
        """Pictures that it is of."""
        return len(self.pictures)

    @property
    def areas(self) -> np.ndarray:
        """(maps, baselines, pictures), insertion - deletion."""
        found: np.ndarray = self.insertion_areas - self.deletion_areas
        return found

    @property
    def insertion_areas(self) -> np.ndarray:
        """(maps, baselines, pictures): the larger, the better."""
        return curve_areas(self.insertion, self.shares)

    @property
    def deletion_areas(self) -> np.ndarray:
        """(maps, baselines, pictures): the smaller, the better."""
        return curve_areas(self.deletion, self.shares)

    @property
    def largest_score(self) -> float:
        """The largest absolute value of any score."""
        return max(float(np.abs(curves).max(initial=0)) for curves in (self.insertion, self.deletion))

    def area(self, name: str, baseline: str) -> Estimate:
        """Insertion - deletion of one map under one baseline."""
        return over_pictures(self.areas[self._place(name, baseline)])

    def difference(self, name: str, other: str, baseline: str) -> Estimate:
        """By how much the area of one map is larger than another's, on the same pictures."""
        areas = self.areas
        return over_pictures(areas[self._place(name, baseline)] - areas[self._place(other, baseline)])

    def left(self, baseline: str) -> float:
        """What a baseline leaves of the score: mean(s(baseline)) / mean(s(picture)); NaN if the latter is not above 0.

        Raises:
            ValueError: no such baseline.
        """
        _, place = self._place(self.maps[0], baseline)
        whole = float(self.deletion[0, place, :, 0].mean())
        return float(self.insertion[0, place, :, 0].mean()) / whole if whole > 0 else float("nan")

    def are_twins(self, baseline: str, other: str) -> bool:
        """Whether two baselines are the same pictures, as the curves under them tell."""
        one, two = (self.baselines.index(name) for name in (baseline, other))
        return np.array_equal(self.insertion[:, one], self.insertion[:, two])
