"""Which pictures a survey is of: the files of a folder or of a list, or the items of a torch Dataset."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from horinsight.data.images import SUFFIXES, load_image

LIST_SUFFIXES = (".txt", ".lst", ".list")


class PictureSource(Protocol):
    """Where the pictures of a list come from; workers get a copy."""

    def picture(self, index: int, name: str) -> Any:
        """The picture of this number and name: a `PIL.Image.Image`, or (3, H, W) prepared as the model expects it."""


@dataclass(frozen=True)
class PictureFiles:
    """Files.

    Attributes:
        root: the folder that names are relative to.
    """

    root: str

    def picture(self, index: int, name: str) -> Image.Image:
        """The picture in a file."""
        return load_image(os.path.join(self.root, name))


@dataclass(frozen=True, eq=False)
class DatasetPictures:
    """Items of a map-style torch Dataset, of which the first part is the picture where they have several."""

    dataset: Any

    def picture(self, index: int, name: str) -> Any:
        """The picture of an item."""
        item = self.dataset[index]
        return item[0] if isinstance(item, tuple | list) else item


@dataclass(frozen=True, eq=False)
class PictureList:
    """Pictures in the order in which a survey takes them.

    Attributes:
        source: where they come from.
        names: of all, no two alike: paths below the folder, or as the list has them; of a Dataset its samples' or
            numbers.
        classes: of each the folder that it lies in, or its class in a Dataset; "" where there is none.
        where: in words.
    """

    source: PictureSource
    names: Sequence[str]
    classes: Sequence[str]
    where: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """Of names and classes in their order, not of the pixels."""
        digest = hashlib.sha256()
        for name, label in zip(self.names, self.classes, strict=True):
            digest.update(f"{name}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def listed_pictures(pictures: Any) -> PictureList:
    """The pictures that somebody names.

    Args:
        pictures: a folder (every image file in it and below, by name), a text file with a path on each line (relative
            to the file; empty lines and lines that begin with # are left out), or a map-style torch Dataset whose items
            are pictures, or tuples that begin with one. Its classes are those of `samples` or `targets`, as
            torchvision's datasets have them.

    Raises:
        ValueError: no picture, or one twice.
        OSError: no such folder or file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "cats").mkdir()
        ...     Image.new("RGB", (8, 8)).save(Path(folder) / "cats" / "a.png")
        ...     found = listed_pictures(folder)
        >>> found.names, found.classes
        (['cats/a.png'], ['cats'])
    """
    if not isinstance(pictures, str | os.PathLike):
        return _of_dataset(pictures)
    path = Path(pictures)
    if not path.exists():
        raise FileNotFoundError(f"No such folder of images, or list of them: {path}.")
    if path.is_dir():
        names = sorted(_image_files_below(path))
        if not names:
            raise ValueError(f"No images in {path} or below: expected files that end in {', '.join(SUFFIXES)}.")
        return PictureList(PictureFiles(str(path.resolve())), names, _folders(path, names), str(path))
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise ValueError(
            f"A survey expects a folder of images, or a list of paths in a file that ends in "
            f"{', '.join(LIST_SUFFIXES)}, got {path.name}."
        )
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ValueError(f"{path} lists no image: expected a path on each line.")
    _check_once(names, str(path))
    return PictureList(PictureFiles(str(path.resolve().parent)), names, _folders(path.parent, names), str(path))


def _image_files_below(folder: Path) -> Iterator[str]:
    """Paths from the folder on, of files in it and below; each folder once, whatever links lead to it."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        start = os.path.relpath(here, folder)
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield name if start == "." else f"{start}/{name}"


def _folders(root: Path, names: Sequence[str]) -> list[str]:
    """The name of the folder that each file lies in."""
    own = root.resolve().name
    return [os.path.basename(os.path.dirname(name)) or own for name in names]


def _of_dataset(dataset: Any) -> PictureList:
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"A survey expects a folder, a list of paths or a map-style torch Dataset, got {type(dataset).__name__}."
        )
    count = len(dataset)
    if not count:
        raise ValueError(f"The {type(dataset).__name__} has no item.")
    samples, words = getattr(dataset, "samples", None), getattr(dataset, "classes", None)
    targets = getattr(dataset, "targets", None)
    names = [f"{index:0{len(str(count - 1))}d}" for index in range(count)]
    if samples is not None and len(samples) == count:
        paths = [str(sample[0]) for sample in samples]
        root = str(getattr(dataset, "root", "") or "")
        names = [os.path.relpath(path, root) if root else path for path in paths]
        targets = [sample[1] for sample in samples]
    _check_once(names, type(dataset).__name__)
    classes = [""] * count
    if targets is not None and len(targets) == count:
        classes = [str(words[int(target)] if words else int(target)) for target in targets]
    return PictureList(DatasetPictures(dataset), names, classes, type(dataset).__name__)


def _check_once(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{where} names {name} twice: a survey measures each picture once.")
        seen.add(name)
