"""Sums of mixing weights over the pictures of each class in a part, from which adaptivity over pictures comes."""

import functools
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from horinsight.mixing.left_out_adaptivity import adaptivity_of_parts
from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.running_adaptivity import RunningAdaptivity
from horinsight.survey.part_files import Part, finished_parts, sums_path, write_whole

CLASSES = "classes"


class ClassSums:
    """Sums of a part's pictures, by class and block."""

    def __init__(self) -> None:
        self.by_class: dict[str, dict[int, RunningAdaptivity]] = {}

    def update(self, label: str, of_picture: Mapping[int, RunningAdaptivity]) -> None:
        """Add a picture: the sums of its blocks."""
        if not of_picture:
            return
        kept = self.by_class.setdefault(label, {})
        for block, sums in of_picture.items():
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
        arrays: dict[str, np.ndarray] = {CLASSES: np.array(list(self.by_class))}
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
        None where no picture gave weights.
    """

    def parts() -> Iterator[RunningAdaptivity]:
        for number in finished_parts(folder):
            found = _sums_in(folder, number, block, label)
            if found is not None:
                yield found

    if next(parts(), None) is None:
        return None
    return adaptivity_of_parts(parts)


def _sums_in(folder: str | os.PathLike[str], number: int, block: int, label: str | None) -> RunningAdaptivity | None:
    """The sums of one part, over the wanted classes."""
    path = sums_path(folder, number)
    if not path.exists() or (label is not None and label not in _classes_in(path, path.stat().st_mtime_ns)):
        return None
    total: RunningAdaptivity | None = None
    with np.load(path, allow_pickle=False) as file:
        for place, name in enumerate(file[CLASSES].tolist()):
            start = f"{place}/{block}/"
            arrays: dict[str, Any] = {key.removeprefix(start): file[key] for key in file.files if key.startswith(start)}
            if label not in (None, name) or not arrays:
                continue
            sums = RunningAdaptivity.of_arrays(arrays)
            if total is None:
                total = sums
            else:
                total.merge(sums)
    return total


@functools.lru_cache(maxsize=2**16)
def _classes_in(path: Path, written: int) -> tuple[str, ...]:
    """The classes of a file as it was written at that time."""
    with np.load(path, allow_pickle=False) as file:
        return tuple(file[CLASSES].tolist())
