"""Classes of pictures: the folders below the one that was given at start, a class each."""

from pathlib import Path

from horinsight.data.images import SUFFIXES

MOST_CLASSES = 2000  # that can be chosen from
MOST_FILES = 100_000  # names of a folder that are read


def class_names(folder: Path | None) -> list[str]:
    """Names of the folders in the given one; what a link leads to outside of it is left out."""
    if folder is None:
        return []
    root = folder.resolve()
    inside = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path.name for path in inside if path.resolve().parent == root)[:MOST_CLASSES]


def class_files(folder: Path | None, label: str, most: int) -> list[Path]:
    """The first pictures of a class, by name.

    Args:
        folder: given at start.
        label: a name that `class_names` lists.
        most: of them.

    Raises:
        ValueError: it lists no such class, or the class holds no picture.
    """
    if folder is None or label not in class_names(folder):
        raise ValueError(f"No class of that name: {label}.")
    root = folder.resolve() / label
    names = [name for name, _ in zip(root.iterdir(), range(MOST_FILES), strict=False)]
    pictures = sorted(path for path in names if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    found = [path for path in pictures if path.is_file() and path.resolve().is_relative_to(root)]
    if not found:
        raise ValueError(f"The class {label} holds no picture: expected files that end in {', '.join(SUFFIXES)}.")
    return found[:most]
