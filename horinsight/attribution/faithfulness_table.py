"""What both kinds of faithfulness say as a table: rows over controls, useful baselines, a ranking; without torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from horinsight.attribution.curve_areas import Verdict, tiers, verdict
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


class FaithfulnessTable(ABC):
    """A table of maps and controls under baselines, whatever is kept of the pictures.

    Attributes:
        methods: whose maps are asked about.
        controls: maps that never see the model.
        baselines: what stands for what is taken away.
        convention: what was computed, in words.
    """

    methods: tuple[str, ...]
    controls: tuple[str, ...]
    baselines: tuple[str, ...]
    convention: Mapping[str, str]

    @property
    @abstractmethod
    def num_pictures(self) -> int:
        """Pictures that it is of."""

    @property
    @abstractmethod
    def largest_score(self) -> float:
        """The largest absolute value of any score."""

    @abstractmethod
    def area(self, name: str, baseline: str) -> Estimate:
        """Insertion - deletion of one map under one baseline."""

    @abstractmethod
    def difference(self, name: str, other: str, baseline: str) -> Estimate:
        """By how much the area of one map is larger than another's, on the same pictures."""

    @abstractmethod
    def left(self, baseline: str) -> float:
        """What a baseline leaves of the score: mean(s(baseline)) / mean(s(picture)); NaN if the latter is not above 0.

        Raises:
            ValueError: no such baseline.
        """

    @abstractmethod
    def are_twins(self, baseline: str, other: str) -> bool:
        """Whether two baselines are the same pictures, as the curves under them tell."""

    @property
    def maps(self) -> tuple[str, ...]:
        """Methods, then controls."""
        return self.methods + self.controls

    @property
    def rounding(self) -> float:
        """Differences of areas within it are undecided: 100 roundings of the largest score, in its precision."""
        precision = np.finfo(np.float64 if self.convention.get("dtype") == "float64" else np.float32)
        return ROUNDINGS * float(precision.eps) * self.largest_score

    @property
    def useful(self) -> tuple[str, ...]:
        """Baselines that leave at most half of the score, each once where two are the same pictures."""
        found: list[str] = []
        for name in self.baselines:
            if not any(self.are_twins(name, other) for other in found) and not self.left(name) > USELESS:
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
        rounding = self.rounding
        found = []
        for baseline in self.baselines:
            for name in self.maps:
                over = {
                    control: self.difference(name, control, baseline) for control in self.controls if control != name
                }
                beats = {control: verdict(difference, rounding) for control, difference in over.items()}
                found.append(FaithfulnessRow(name, baseline, self.area(name, baseline), over, beats))
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
        useful, rounding = self.useful, self.rounding
        better = np.zeros((len(names), len(names)), dtype=bool)
        for a, name in enumerate(names):
            for b, other in enumerate(names):
                said = {one: verdict(self.difference(name, other, one), rounding) for one in self.baselines}
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
            line |= {"left": self.left(row.baseline), "num_images": self.num_pictures} | _numbers("area", row.area)
            for control in self.controls:
                difference = row.differences.get(control, Estimate(float("nan"), float("nan")))
                line |= _numbers(f"over_{control}", difference) | {f"beats_{control}": row.beats.get(control)}
            yield line


def _numbers(name: str, estimate: Estimate) -> dict[str, float]:
    low, high = estimate.interval
    return {name: estimate.value, f"{name}_se": estimate.standard_error, f"{name}_low": low, f"{name}_high": high}
