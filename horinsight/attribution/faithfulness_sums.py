"""Faithfulness over any number of pictures: sums that are updated, merged and finished, and do not grow."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.attribution.faithfulness_table import FaithfulnessTable
from horinsight.result_fields import same
from horinsight.results import Provenance, Result
from horinsight.stats import Estimate

ALIKE = ("methods", "controls", "baselines", "shares", "seed", "convention")


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessSums(FaithfulnessTable, Result):
    """The table of `Faithfulness` without the pictures' own numbers: sums over pictures, and mean curves.

    Attributes:
        methods: whose maps are asked about.
        controls: maps that never see the model, after the methods in all arrays.
        baselines: what stands for what is taken away.
        shares: (steps + 1,), of the cells that have come or gone.
        count: pictures.
        insertion: (maps, baselines, steps + 1), the mean curve while cells come.
        deletion: the same, while they go.
        areas: (maps, baselines), mean of insertion - deletion.
        squares: (maps, baselines), sum of squared deviations of the areas from their mean.
        difference_squares: (maps, maps, baselines), the same of differences of areas on the same pictures.
        twins: (baselines, baselines), whether all curves were the same.
        largest: absolute value of any score.
        seed: of the random control, of ties and draws.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    methods: tuple[str, ...]
    controls: tuple[str, ...]
    baselines: tuple[str, ...]
    shares: np.ndarray
    count: int
    insertion: np.ndarray
    deletion: np.ndarray
    areas: np.ndarray
    squares: np.ndarray
    difference_squares: np.ndarray
    twins: np.ndarray
    largest: float
    seed: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    @classmethod
    def of(cls, part: Faithfulness) -> "FaithfulnessSums":
        """The sums of some pictures."""
        areas = part.areas
        apart = areas[:, None] - areas[None]
        names = part.baselines
        return cls(
            **{name: getattr(part, name) for name in ALIKE},
            count=part.num_pictures,
            insertion=part.insertion.mean(2),
            deletion=part.deletion.mean(2),
            areas=areas.mean(-1),
            squares=_squares(areas),
            difference_squares=_squares(apart),
            twins=np.array([[part.are_twins(one, two) for two in names] for one in names]),
            largest=part.largest_score,
            provenance=None if part.provenance is None else replace(part.provenance, images=()),
        )

    def with_others(self, other: "FaithfulnessSums") -> "FaithfulnessSums":
        """Of the pictures of both (Chan, Golub and LeVeque 1979).

        Raises:
            ValueError: those were measured otherwise.
        """
        differing = [name for name in ALIKE if not same(getattr(self, name), getattr(other, name))]
        if differing:
            raise ValueError(f"Sums of faithfulness expect pictures measured alike, got other {', '.join(differing)}.")
        total = self.count + other.count
        share, beta = other.count / total, self.count * other.count / total
        moved = other.areas - self.areas
        return replace(
            self,
            count=total,
            insertion=self.insertion + (other.insertion - self.insertion) * share,
            deletion=self.deletion + (other.deletion - self.deletion) * share,
            areas=self.areas + moved * share,
            squares=self.squares + other.squares + beta * moved**2,
            difference_squares=self.difference_squares
            + other.difference_squares
            + beta * (moved[:, None] - moved[None]) ** 2,
            twins=self.twins & other.twins,
            largest=max(self.largest, other.largest),
        )

    @property
    def num_pictures(self) -> int:
        """Pictures that it is of."""
        return self.count

    @property
    def largest_score(self) -> float:
        """The largest absolute value of any score."""
        return self.largest

    def area(self, name: str, baseline: str) -> Estimate:
        """Insertion - deletion of one map under one baseline."""
        m, b = self._place(name, baseline)
        return self._estimate(self.areas[m, b], self.squares[m, b])

    def difference(self, name: str, other: str, baseline: str) -> Estimate:
        """By how much the area of one map is larger than another's, on the same pictures."""
        (m, b), (n, _) = self._place(name, baseline), self._place(other, baseline)
        return self._estimate(self.areas[m, b] - self.areas[n, b], self.difference_squares[m, n, b])

    def left(self, baseline: str) -> float:
        """What a baseline leaves of the score: mean(s(baseline)) / mean(s(picture)); NaN if the latter is not above 0.

        Raises:
            ValueError: no such baseline.
        """
        _, place = self._place(self.maps[0], baseline)
        whole = float(self.deletion[0, place, 0])
        return float(self.insertion[0, place, 0]) / whole if whole > 0 else float("nan")

    def are_twins(self, baseline: str, other: str) -> bool:
        """Whether two baselines are the same pictures, as the curves under them tell."""
        return bool(self.twins[self.baselines.index(baseline), self.baselines.index(other)])

    def _estimate(self, mean: float, squares: float) -> Estimate:
        n = self.count
        return Estimate(float(mean), float((squares / (n - 1) / n) ** 0.5) if n > 1 else float("nan"), n)


class RunningFaithfulness:
    """`FaithfulnessSums` of pictures as they come, as `faithfulness_by_picture` gives them.

    Example:
        >>> from torch import nn, rand, tensor
        >>> from horinsight.attribution.faithfulness import faithfulness_by_picture
        >>> model, running = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2)), RunningFaithfulness()
        >>> asked = {"rows": 4, "columns": 4, "steps": 4}
        >>> for one in faithfulness_by_picture(
        ...     model, rand(3, 3, 8, 8), tensor([0, 1, 0]), {"sum": lambda x, t: x.sum(1)}, **asked
        ... ):
        ...     running.update(one)
        >>> running.compute().num_pictures
        3
    """

    def __init__(self) -> None:
        self._sums: FaithfulnessSums | None = None

    def update(self, part: Faithfulness) -> None:
        """Add pictures, none of which came before.

        Raises:
            ValueError: they were measured otherwise.
        """
        self._add(FaithfulnessSums.of(part))

    def merge(self, other: "RunningFaithfulness") -> None:
        """Add what another one has seen.

        Raises:
            ValueError: that was measured otherwise.
        """
        if other._sums is not None:
            self._add(other._sums)

    def compute(self) -> FaithfulnessSums:
        """The sums so far.

        Raises:
            ValueError: no picture came.
        """
        if self._sums is None:
            raise ValueError("RunningFaithfulness expects at least one picture, got none.")
        return self._sums

    def _add(self, sums: FaithfulnessSums) -> None:
        self._sums = sums if self._sums is None else self._sums.with_others(sums)


def _squares(values: np.ndarray) -> np.ndarray:
    deviations = values - values.mean(-1, keepdims=True)
    found: np.ndarray = np.square(deviations).sum(-1)
    return found
