"""Pictures in batches, as streams of them and tensors of many give them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from horinsight.memory_budget import give_back_pages

BATCH_SIZE = 16  # pictures that are in memory together


@dataclass(frozen=True, eq=False)
class PictureBatch:
    """Some pictures of a stream, one after the other.

    Attributes:
        images: (B, 3, H, W), prepared.
        names: of each, with a hash of its pixels (`image_label`).
        start: the number of the first among those of the stream that can be read, from 0.
    """

    images: Tensor
    names: tuple[str, ...]
    start: int


def tensor_stream(images: Tensor, names: tuple[str, ...], batch_size: int = BATCH_SIZE) -> Iterator[PictureBatch]:
    """Batches of pictures that are prepared already, (B, 3, H, W)."""
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        yield PictureBatch(images[part], names[part], start)
        give_back_pages()


def tensor_label(name: str, image: Tensor) -> str:
    """A name that pins the numbers down: the given name and the first 12 digits of their SHA-256."""
    values = image.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode() + values.numpy().tobytes()).hexdigest()
    return f"{name} (sha256 {digest[:12]})"
