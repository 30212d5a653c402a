"""How faithful maps are under several baselines, as a value: it is read, drawn and reported without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.attribution.curve_areas import Verdict, curve_areas, over_pictures, tiers, verdict
from horinsight.results import Provenance, Result
from horinsight.stats import Estimate

USELESS = 0.5  # a baseline that leaves more of the score than this takes hardly anything away
SUPPORT = 2  # useful baselines that must say that one map is better than another
ROUNDINGS = 100  # of the largest score: a difference of areas within them is none


@dataclass(frozen=True)
class FaithfulnessRow:
    """One map under one baseline.

    Attributes:
        map: its name.
        baseline: its name.
        area: insertion - deletion.
        differences: control → by how much the area is larger than the control's, on the same pictures.
        beats: control → whether that is above 0.
    """

    map: str
    baseline: str
    area: Estimate
    differences: Mapping[str, Estimate]
    beats: Mapping[str, Verdict]


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(Result):
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
    def maps(self) -> tuple[str, ...]:
        """Methods, then controls."""
        return self.methods + self.controls

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
    def rounding(self) -> float:
        """Differences of areas within it are undecided: 100 roundings of the largest score, in its precision."""
        precision = np.finfo(np.float64 if self.convention.get("dtype") == "float64" else np.float32)
        largest = max(float(np.abs(curves).max(initial=0)) for curves in (self.insertion, self.deletion))
        return ROUNDINGS * float(precision.eps) * largest

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

    @property
    def useful(self) -> tuple[str, ...]:
        """Baselines that leave at most half of the score, each once where two are the same pictures."""
        found: list[str] = []
        for place, name in enumerate(self.baselines):
            twins = [self.baselines.index(other) for other in found]
            new = not any(np.array_equal(self.insertion[:, place], self.insertion[:, twin]) for twin in twins)
            if new and not self.left(name) > USELESS:
                found.append(name)
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes a baseline say little, in words."""
        found = []
        for name in self.baselines:
            left = self.left(name)
            if left > USELESS:
                found.append(f"{name}: leaves {left:.0%} of the score, so that curves under it say little.")
            elif np.isnan(left):
                found.append(f"{name}: the pictures' own score is not above 0, so what it leaves of it is not known.")
            elif name not in self.useful:
                found.append(f"{name}: the same pictures as another baseline, counted once.")
        return tuple(found)

    @property
    def rows(self) -> tuple[FaithfulnessRow, ...]:
        """The table: a row for each map under each baseline, with what it has over each control."""
        areas, rounding = self.areas, self.rounding
        found = []
        for b, baseline in enumerate(self.baselines):
            for m, name in enumerate(self.maps):
                over = {
                    control: over_pictures(areas[m, b] - areas[self.maps.index(control), b])
                    for control in self.controls
                    if control != name
                }
                beats = {control: verdict(difference, rounding) for control, difference in over.items()}
                found.append(FaithfulnessRow(name, baseline, over_pictures(areas[m, b]), over, beats))
        return tuple(found)

    def ranking(self, *, with_controls: bool = False) -> tuple[tuple[str, ...], ...]:
        """Methods in groups, from the best on, as far as two baselines say so; one group is no ranking.

        One is better than another where the paired difference is above 0 under two useful baselines and more, and below
        0 under none, useful or not. Each of a group is better than each of every later group; within a group nothing is
        said.

        Args:
            with_controls: whether controls are ordered among the methods.
        """
        names = self.maps if with_controls else self.methods
        areas, useful, rounding = self.areas, self.useful, self.rounding
        better = np.zeros((len(names), len(names)), dtype=bool)
        for a in range(len(names)):
            for b in range(len(names)):
                said = {
                    baseline: verdict(over_pictures(areas[a, place] - areas[b, place]), rounding)
                    for place, baseline in enumerate(self.baselines)
                }
                support = sum(said[baseline] == "yes" for baseline in useful)
                better[a, b] = support >= SUPPORT and "no" not in said.values()
        return tiers(names, better)

    @property
    def ranking_in_words(self) -> str:
        """The ranking in a line, or why there is none."""
        groups = self.ranking()
        if len(self.useful) < SUPPORT:
            return f"no ranking: {len(self.useful)} useful baseline(s), a ranking must hold under {SUPPORT} and more."
        if len(groups) < 2:
            return f"no ranking: no order of the methods holds under {SUPPORT} baselines."
        return " > ".join(", ".join(group) for group in groups)

    def _place(self, name: str, baseline: str) -> tuple[int, int]:
        for kind, wanted, known in (("map", name, self.maps), ("baseline", baseline, self.baselines)):
            if wanted not in known:
                raise ValueError(f"Expected a {kind} among {', '.join(known)}, got {wanted!r}.")
        return self.maps.index(name), self.baselines.index(baseline)

    def _columns(self) -> dict[str, Any]:
        """A row per map and baseline."""
        lines = [*self.lines()]
        return {name: [line[name] for line in lines] for name in lines[0]}

    def lines(self) -> Iterator[dict[str, Any]]:
        """The table as tables of programs have it: a line for each map under each baseline."""
        for row in self.rows:
            line: dict[str, Any] = {"map": row.map, "control": row.map in self.controls, "baseline": row.baseline}
            line |= {"left": self.left(row.baseline), "num_images": len(self.pictures)} | _numbers("area", row.area)
            for control in self.controls:
                difference = row.differences.get(control, Estimate(float("nan"), float("nan")))
                line |= _numbers(f"over_{control}", difference) | {f"beats_{control}": row.beats.get(control)}
            yield line


def _numbers(name: str, estimate: Estimate) -> dict[str, float]:
    low, high = estimate.interval
    return {name: estimate.value, f"{name}_se": estimate.standard_error, f"{name}_low": low, f"{name}_high": high}
