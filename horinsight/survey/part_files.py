"""Parts of a survey's table: which pictures are in each, its file, and which are there."""

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from horinsight.report import spelled
from horinsight.survey.picture_lists import PictureList
from horinsight.survey.picture_rows import ERROR, PictureRow
from horinsight.whole_file import whole_file

PARTS = "parts"
_NAME = re.compile(r"part-(\d{6,})\.parquet")
TEXT = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
SCHEMA = pyarrow.schema(
    {
        "image": TEXT,
        "class": TEXT,
        "block": pyarrow.int32(),
        "name": TEXT,
        "quantity": TEXT,
        "k": pyarrow.int32(),
        "value": pyarrow.float64(),
        "error": TEXT,
    }
)


@dataclass(frozen=True)
class Part:
    """Some pictures of a list, which one worker measures.

    Attributes:
        number: of the part, from 0.
        start: index of its first picture on the list.
        names: of the pictures.
        classes: of each.
    """

    number: int
    start: int
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def parts_of(pictures: PictureList, part_size: int, numbers: Iterable[int]) -> Iterator[Part]:
    """Parts by their numbers."""
    for number in numbers:
        start = number * part_size
        names, classes = (tuple(texts[start : start + part_size]) for texts in (pictures.names, pictures.classes))
        yield Part(number, start, names, classes)


def part_path(folder: str | os.PathLike[str], number: int) -> Path:
    """The file of a part."""
    return Path(folder) / PARTS / f"part-{number:06d}.parquet"


def sums_path(folder: str | os.PathLike[str], number: int) -> Path:
    """The file of what a part sums over its pictures; written before the part's own."""
    return part_path(folder, number).with_suffix(".npz")


def finished_parts(folder: str | os.PathLike[str]) -> list[int]:
    """Numbers of the parts that are there, in order."""
    try:
        names = os.listdir(Path(folder) / PARTS)
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))


def clear_halves(folder: str | os.PathLike[str]) -> None:
    """Remove what workers that were killed have left half-written; call it when nobody writes."""
    for path in (Path(folder) / PARTS).glob(".part-*.part"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def write_part(folder: str | os.PathLike[str], part: Part, rows: Sequence[Sequence[PictureRow]]) -> None:
    """Write the rows of a part's pictures, whole or not at all; a part that is there already is replaced by the same.

    Raises:
        OSError: it cannot be written; says why.
    """
    lines = [
        (_legible(name), _legible(label), *row)
        for name, label, found in zip(part.names, part.classes, rows, strict=True)
        for row in found
    ]
    columns = [list(column) for column in zip(*lines, strict=True)]
    arrays = [
        pyarrow.array(column, kind.value_type).dictionary_encode()
        if isinstance(kind, pyarrow.DictionaryType)
        else pyarrow.array(column, kind)
        for column, kind in zip(columns, SCHEMA.types, strict=True)
    ]
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=SCHEMA), stream, compression="zstd")
    write_whole(part_path(folder, part.number), stream.getbuffer())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: it cannot be written; names the file and says why.
    """
    try:
        with whole_file(path, "wb") as file:
            file.write(content)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(f"Cannot write {path}: {error.strerror}.") from error


def num_errors(rows: Sequence[Sequence[PictureRow]]) -> int:
    """How many pictures could not be read."""
    return sum(len(found) == 1 and found[0].quantity == ERROR and found[0].block is None for found in rows)


def _legible(name: str) -> str:
    """A file's name in UTF-8, odd bytes spelled."""
    return spelled(name, "utf-8")
