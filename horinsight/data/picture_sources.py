"""Where pictures come from, one after the other: a folder, a list of paths, a torch Dataset, pictures themselves."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from horinsight.data.images import image_files, load_image

if TYPE_CHECKING:
    from torch import Tensor

LIST_SUFFIXES = (".txt", ".lst", ".list")


class PictureSource:
    """Pictures that can be had by their number, as often as wanted; none is read before it is asked for.

    Args:
        names: of all.
        read: number → a `PIL.Image.Image`, or (3, H, W) prepared as the model expects it.
    """

    def __init__(self, names: Sequence[str], read: "Callable[[int], Image.Image | Tensor]") -> None:
        self.names = names
        self.read = read

    def __len__(self) -> int:
        return len(self.names)


def picture_source(pictures: Any) -> PictureSource:
    """The pictures that somebody names.

    Args:
        pictures: a folder, whose image files are taken by name; a text file (.txt, .lst, .list) with a path on each
            line, relative to it; paths of image files, or pictures, in a list; or a map-style torch Dataset whose items
            are pictures or tensors (3, H, W), or tuples that begin with one.

    Raises:
        ValueError: no picture, or what can be gone through but once, as a generator.
        OSError: no such folder or list.

    Example:
        >>> len(picture_source([Image.new("RGB", (8, 8)), "cat.png"]))
        2
    """
    if isinstance(pictures, str | os.PathLike):
        return _of_files(_files_of(Path(pictures)))
    if not hasattr(pictures, "__getitem__") or not hasattr(pictures, "__len__"):
        raise ValueError(
            f"Pictures are gone through more than once: expected a folder, a list of paths or pictures, or a map-style "
            f"torch Dataset, got {type(pictures).__name__}."
        )
    if not len(pictures):
        raise ValueError(f"Expected at least one picture, got an empty {type(pictures).__name__}.")
    if isinstance(pictures, list | tuple):
        return _of_list(pictures)
    return _of_dataset(pictures)


def _files_of(path: Path) -> list[str]:
    if path.is_dir():
        return [str(file) for file in image_files(path)]
    if not path.exists():
        raise FileNotFoundError(f"No such folder or list of images: {path}.")
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise ValueError(
            f"Expected a folder of images, or a list of paths in a file that ends in {', '.join(LIST_SUFFIXES)}, got "
            f"{path}: give one picture as [path]."
        )
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    files = [str(path.parent / line) for line in lines if line and not line.startswith("#")]
    if not files:
        raise ValueError(f"{path} lists no image: expected a path on each line.")
    return files


def _of_files(files: list[str]) -> PictureSource:
    return PictureSource(files, lambda index: load_image(files[index]))


def _of_list(items: Sequence[Any]) -> PictureSource:
    wrong = next((type(item).__name__ for item in items if not isinstance(item, str | os.PathLike | Image.Image)), None)
    if wrong is not None:
        raise ValueError(f"A list of pictures expects paths and PIL.Image.Image, got {wrong}.")
    names = [
        str(item.info.get("name") or getattr(item, "filename", "") or f"image {number}")
        if isinstance(item, Image.Image)
        else str(item)
        for number, item in enumerate(items, 1)
    ]

    def read(index: int) -> Image.Image:
        item = items[index]
        return item if isinstance(item, Image.Image) else load_image(item)

    return PictureSource(names, read)


def _of_dataset(dataset: Any) -> PictureSource:
    """Items by number; by their paths where the data set knows them, as torchvision's folders do."""
    count = len(dataset)
    samples = getattr(dataset, "samples", None)
    names = [f"item {number}" for number in range(count)]
    if samples is not None and len(samples) == count:
        names = [str(sample[0]) if isinstance(sample, tuple | list) else str(sample) for sample in samples]

    def read(index: int) -> Any:
        item = dataset[index]
        return item[0] if isinstance(item, tuple | list) else item

    return PictureSource(names, read)
