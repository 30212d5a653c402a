"""Labelled pictures to train on and to test with: handwritten digits that come along, and folders of images."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from horinsight.data.handwritten_digits import digit_arrays, digit_picture, digit_split
from horinsight.data.images import SUFFIXES, load_image


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Pictures with their classes.

    Attributes:
        name: of the data set and the part of it.
        classes: names of the classes.
        labels: (N,) index of each picture's class.
        pictures: for each, the picture itself or a file.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    pictures: Sequence[Image.Image | Path]

    def __len__(self) -> int:
        return len(self.pictures)

    def picture(self, index: int) -> Image.Image:
        """One picture, RGB."""
        found = self.pictures[index]
        return found if isinstance(found, Image.Image) else load_image(found)


def digits() -> tuple[LabelledImages, LabelledImages]:
    """The 1 797 handwritten digits of scikit-learn (8x8, 16 grey levels), and which of them are held out.

    The split is a permutation by a fixed seed; its first fifth is held out.

    Returns:
        1 438 pictures to train on, and 359 held out.

    Example:
        >>> train, held_out = digits()
        >>> len(train), len(held_out), train.picture(0).size
        (1438, 359, (8, 8))

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), CC BY 4.0, by scikit-learn.
    """
    labels = digit_arrays()[1]
    classes = tuple(str(digit) for digit in range(10))
    train, held_out = (
        LabelledImages(f"digits, {name}", classes, labels[rows], [digit_picture(row) for row in rows])
        for name, rows in zip(("training", "held out"), digit_split(), strict=True)
    )
    return train, held_out


def image_folder(folder: str | os.PathLike[str]) -> LabelledImages:
    """Images in one folder per class, as ImageNet's `train` and `val` lie.

    Raises:
        ValueError: fewer than two classes, or a class without images.
        OSError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"No such folder of images: {folder}.")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(f"{folder} expects one folder of images per class, got {len(classes)} of them.")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f"No images in {folder / name}: expected files that end in {', '.join(SUFFIXES)}.")
        files += found
        labels += [label] * len(found)
    return LabelledImages(folder.name, tuple(classes), np.array(labels), files)


class PreparedImages(Dataset[tuple[Tensor, int]]):
    """Pictures made into tensors; what an augmentation draws depends on the seed, the epoch and the picture alone.

    So that neither the number of processes nor a resumption changes what a model is shown.

    Args:
        images: the pictures.
        transform: from a picture to a tensor.
        seed: of the augmentation.
    """

    def __init__(self, images: LabelledImages, transform: Callable[[Image.Image], Tensor], *, seed: int = 0) -> None:
        self.images, self.transform, self.seed, self.epoch = images, transform, seed, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with _seeded(self.seed, self.epoch, index):
            return self.transform(self.images.picture(index)), int(self.images.labels[index])


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """Python's, numpy's and torch's random numbers from a seed of their own, and as before afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  (what transforms use)
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
