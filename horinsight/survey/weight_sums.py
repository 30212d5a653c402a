"""Sums of mixing weights over the pictures of each class in a part, from which adaptivity over pictures comes."""

import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from horinsight.mixing.left_out_adaptivity import PartedAdaptivity
from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.running_adaptivity import RunningAdaptivity
from horinsight.survey.part_files import Part, finished_parts, sums_path, write_whole

CLASSES = "classes"
MOST_CLASSES = 10  # whose sums a part keeps apart; each takes as much as a picture's weights, in every block
READ_TOGETHER = 2**28  # bytes of sums over all parts that are in memory at once when they are read

Group = tuple[int, str | None]  # a block and a class; all classes when None


class ClassSums:
    """Sums of a part's pictures, by class and block; of all together where classes are more than `MOST_CLASSES`."""

    def __init__(self) -> None:
        self.by_class: dict[str, dict[int, RunningAdaptivity]] = {}
        self.together = False

    def update(self, label: str, of_picture: Mapping[int, RunningAdaptivity]) -> None:
        """Add a picture: the sums of its blocks."""
        if not of_picture:
            return
        if not self.together and label not in self.by_class and len(self.by_class) == MOST_CLASSES:
            self.together = True
            before, self.by_class = self.by_class, {}
            for kept in before.values():
                self._add("", kept)
        self._add("" if self.together else label, of_picture)

    def _add(self, label: str, of_pictures: Mapping[int, RunningAdaptivity]) -> None:
        kept = self.by_class.setdefault(label, {})
        for block, sums in of_pictures.items():
            if block in kept:
                kept[block].merge(sums)
            else:
                kept[block] = sums

    def write(self, folder: str | os.PathLike[str], part: Part) -> None:
        """Keep them beside the part's rows, whole or not at all; nothing where there are none.

        Raises:
            OSError: they cannot be written.
        """
        if not self.by_class:
            return
        arrays: dict[str, np.ndarray] = {CLASSES: np.array([] if self.together else list(self.by_class), dtype=str)}
        for place, kept in enumerate(self.by_class.values()):
            for block, sums in kept.items():
                arrays |= {f"{place}/{block}/{name}": array for name, array in sums.arrays().items()}
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        write_whole(sums_path(folder, part.number), stream.getbuffer())


def survey_adaptivity(folder: str | os.PathLike[str], block: int, *, label: str | None = None) -> Adaptivity | None:
    """How a block's mixing weights adapt over the pictures of a survey of "mixing", or over those of one class.

    Standard errors of shares and deviations leave one part out at a time.

    Args:
        folder: of the survey, finished or not.
        block: its index.
        label: of the class; all pictures when None.

    Returns:
        None where no picture gave weights, or a class whose sums some part keeps with others' (`MOST_CLASSES`).
    """
    found = parted_adaptivities(folder, [(block, label)])
    return found[block, label].compute() if found else None


def parted_adaptivities(
    folder: str | os.PathLike[str], groups: Sequence[Group], parts: Sequence[Sequence[int]] | None = None
) -> dict[Group, PartedAdaptivity]:
    """How weights adapt, of several blocks and classes: each file is read twice, however many these are.

    Where they are so many that their sums take more than `READ_TOGETHER`, files are read twice for each so many.

    Args:
        folder: of a survey of "mixing", finished or not.
        groups: a block's index and a class, or None for all, of each.
        parts: numbers of the parts that are left out together, of each such group of parts; each by itself when None.

    Returns:
        Of those that have pictures, and whose class every part keeps by itself.
    """
    parts = [[number] for number in finished_parts(folder)] if parts is None else parts
    found: dict[Group, PartedAdaptivity] = {}
    start = 0
    while start < len(groups):
        found |= _in_two_passes(folder, groups[start : start + 1], parts)
        total = next(iter(found.values())).total if found else None
        many = 1 if total is None else max(1, READ_TOGETHER // sum(sums.mean.nbytes for sums in total.sums))
        found |= _in_two_passes(folder, groups[start + 1 : start + many], parts)
        start += max(1, many)
    return found


def _in_two_passes(
    folder: str | os.PathLike[str], groups: Sequence[Group], parts: Sequence[Sequence[int]]
) -> dict[Group, PartedAdaptivity]:
    found: dict[Group, PartedAdaptivity] = {}
    mixed: set[Group] = set()
    if not groups:
        return found
    for second in (False, True):
        for number, together in enumerate(parts):
            for group, sums in _sums_in(folder, together, groups, mixed).items():
                if second:
                    found[group].leave_out(number, sums)
                else:
                    found.setdefault(group, PartedAdaptivity()).add(sums)
        for group in mixed:
            found.pop(group, None)
        groups = list(found)
    return found


def _sums_in(
    folder: str | os.PathLike[str], numbers: Sequence[int], groups: Collection[Group], mixed: set[Group]
) -> dict[Group, RunningAdaptivity]:
    """The sums of some parts; groups of a class that a part keeps with others are added to `mixed`."""
    found: dict[Group, RunningAdaptivity] = {}
    for path in (sums_path(folder, number) for number in numbers):
        if not path.exists():
            continue
        for group, sums in _sums_of(path, groups, mixed):
            if group in found:
                found[group].merge(sums)
            else:
                found[group] = sums
    return found


def _sums_of(path: Path, groups: Collection[Group], mixed: set[Group]) -> Iterator[tuple[Group, RunningAdaptivity]]:
    wanted = set(groups)
    with np.load(path, allow_pickle=False) as file:
        labels = file[CLASSES].tolist()
        if not labels:
            mixed |= {group for group in wanted if group[1] is not None}
        names: dict[tuple[int, int], list[str]] = {}
        for key in file.files:
            place, _, rest = key.partition("/")
            if rest:
                names.setdefault((int(place), int(rest.partition("/")[0])), []).append(key)
        for (place, block), keys in names.items():
            asked = [(block, None)] if (block, None) in wanted else []
            asked += [(block, labels[place])] if labels and (block, labels[place]) in wanted else []
            if asked:
                arrays: dict[str, Any] = {key.split("/", 2)[2]: file[key] for key in keys}
                for group in asked:
                    yield group, RunningAdaptivity.of_arrays(arrays)
