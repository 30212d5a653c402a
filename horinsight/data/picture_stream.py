"""Many pictures, batch by batch: decoded ahead by threads, as often as a measurement goes through them."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from horinsight.data.images import image_label
from horinsight.data.picture_batches import BATCH_SIZE, PictureBatch, tensor_label
from horinsight.data.picture_sources import PictureSource, picture_source
from horinsight.memory_budget import give_back_pages

NUM_WORKERS = 2
BROKEN = (ValueError, OSError, EOFError, SyntaxError, Image.DecompressionBombError)  # what damaged files raise


class PictureStream:
    """Pictures in batches, made by `picture_stream`; each `for` goes through all of them again.

    What is kept of a picture is its name. A stream of one batch keeps that batch, so that nothing is decoded twice.

    Attributes:
        batch_size: pictures of a batch; the last one may have fewer.
        broken: name → why it cannot be read, of those found so far.
        on_batch: called with the number of pictures of each batch after it was used; for progress.
    """

    def __init__(
        self,
        source: PictureSource,
        transform: Callable[[Image.Image], Tensor],
        *,
        batch_size: int,
        num_workers: int,
        skip_broken: bool,
        on_broken: Callable[[str, str], None] | None,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ValueError(f"{name} expects a number from {least} on, got {value}.")
        self.batch_size = batch_size
        self.broken: dict[str, str] = {}
        self.on_batch: Callable[[int], None] | None = None
        self._source, self._transform = source, transform
        self._num_workers, self._skip_broken, self._on_broken = num_workers, skip_broken, on_broken
        self._labels: dict[int, str] = {}
        self._seen: set[str] = set()
        self._dropped: set[int] = set()
        self._shape: torch.Size | None = None
        self._only: PictureBatch | None = None
        self._whole = False

    def __iter__(self) -> Iterator[PictureBatch]:
        for batch in self._batches():
            number = len(batch.names)
            yield batch
            del batch  # before the next one is made
            give_back_pages()
            if self.on_batch is not None:
                self.on_batch(number)

    def _batches(self) -> Iterator[PictureBatch]:
        if self._only is not None:
            yield self._only
            return
        images: list[Tensor] = []
        names: list[str] = []
        start = 0
        for name, image in self._one_by_one():
            if len(images) == self.batch_size:
                yield _stacked(images, names, start)
                start += len(names)
                names = []
            images.append(image)
            names.append(name)
        if not images:
            raise ValueError(f"None of {len(self._source)} pictures can be read: {next(iter(self.broken.values()))}")
        self._whole = True
        last = _stacked(images, names, start)
        if not start:
            self._only = last
        yield last

    @property
    def names(self) -> tuple[str, ...]:
        """What the pictures are called, with hashes of their pixels; those that cannot be read are left out.

        The first time all are decoded, so that a broken one is found before anything is computed.
        """
        if not self._whole:
            for _ in self._batches():
                pass
        return tuple(self._labels[index] for index in sorted(self._labels))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the prepared pictures."""
        if self._shape is None:
            next(self._batches())
        assert self._shape is not None
        return int(self._shape[1]), int(self._shape[2])

    def __len__(self) -> int:
        """How many pictures can be read."""
        return len(self.names)

    def one_batch(self) -> PictureBatch | None:
        """All pictures, where a batch holds them; else None."""
        if not self._whole:
            _ = self.names
        return self._only

    def some(self, numbers: Sequence[int]) -> PictureBatch:
        """Some of the pictures, by their numbers among those that can be read, in the order of the stream."""
        images: list[Tensor] = []
        names: list[str] = []
        for batch in self._batches():
            for number, (name, image) in enumerate(zip(batch.names, batch.images, strict=True), batch.start):
                if number in numbers:
                    images.append(image)
                    names.append(name)
            if len(images) == len(set(numbers)):
                break
        return PictureBatch(torch.stack(images), tuple(names), 0)

    def _one_by_one(self) -> Iterator[tuple[str, Tensor]]:
        for index, found in self._decoded():
            if isinstance(found, Exception):
                self._drop(index, found)
                continue
            label, image = found
            if self._shape is None:
                self._shape = image.shape
            if image.shape != self._shape:
                shapes = f"{tuple(image.shape)}, expected {tuple(self._shape)} as the first one"
                self._drop(index, ValueError(f"{self._source.names[index]} has the shape {shapes}: crop or resize it."))
                continue
            yield self._named(index, label), image

    def _named(self, index: int, label: str) -> str:
        """The label, the same at every pass; a picture that comes twice counts twice, as "again"."""
        known = self._labels.get(index)
        if known is not None:
            if not known.startswith(label):
                raise ValueError(
                    f"{self._source.names[index]} changed while it was measured: leave pictures as they are."
                )
            return known
        while label in self._seen:
            label += " again"
        self._seen.add(label)
        self._labels[index] = label
        return label

    def _drop(self, index: int, error: Exception) -> None:
        name = self._source.names[index]
        if index in self._labels:
            raise ValueError(f"{name} could be read before, and now cannot: {error}") from error
        if not self._skip_broken:
            if isinstance(error, FileNotFoundError):
                raise error
            raise ValueError(f"{error} To go on without such pictures: skip_broken=True, --skip-broken.") from error
        self._dropped.add(index)
        reason = str(error) if name in str(error) else f"{name}: {error}"
        self.broken[name] = reason
        if self._on_broken is not None:
            self._on_broken(name, reason)

    def _decoded(self) -> Iterator[tuple[int, tuple[str, Tensor] | Exception]]:
        """Number and picture, in their order; few are decoded ahead."""
        wanted = (index for index in range(len(self._source)) if index not in self._dropped)
        if not self._num_workers:
            for index in wanted:
                yield index, self._read(index)
            return
        pool = ThreadPoolExecutor(self._num_workers, "pictures")
        ahead: deque[tuple[int, Future[tuple[str, Tensor] | Exception]]] = deque()
        try:
            for index in wanted:
                ahead.append((index, pool.submit(self._read, index)))
                if len(ahead) > 2 * self._num_workers:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, index: int) -> tuple[str, Tensor] | Exception:
        name = self._source.names[index]
        try:
            found: Any = self._source.read(index)
            if isinstance(found, Image.Image):
                return image_label(name, found), self._transform(found)
            if isinstance(found, Tensor) and found.ndim == 3 and found.is_floating_point():
                return tensor_label(name, found), found
        except BROKEN as error:
            return error
        raise TypeError(
            f"{name} is expected to be a PIL.Image.Image or a prepared tensor (3, H, W), got {_kind(found)}."
        )


def picture_stream(
    pictures: Any,
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int = BATCH_SIZE,
    num_workers: int = NUM_WORKERS,
    skip_broken: bool = False,
    on_broken: Callable[[str, str], None] | None = None,
) -> PictureStream:
    """Pictures of a folder, a list or a torch Dataset, in batches with names, however many there are.

    Args:
        pictures: see `picture_source`.
        transform: from a picture to a tensor (3, H, W), as `preprocessing(model)` gives it; items of a Dataset that are
            tensors already are taken as they are.
        batch_size: pictures of a batch.
        num_workers: threads that decode ahead; 0 for none, where a Dataset is not to be read from another thread.
        skip_broken: go on without pictures that cannot be read, which `broken` then names with their reasons; the first
            one is an error else.
        on_broken: called with the name of each of these, and why.

    Raises:
        ValueError: no picture, or what can be gone through but once; while it is gone through, a picture that cannot be
            read, or that is another than the last time.
        OSError: no such folder, list or file.

    Example:
        >>> black, white = (Image.new("RGB", (8, 8), colour) for colour in ("black", "white"))
        >>> stream = picture_stream([black, white, black], lambda image: torch.zeros(3, 8, 8), batch_size=2)
        >>> [tuple(batch.images.shape) for batch in stream]
        [(2, 3, 8, 8), (1, 3, 8, 8)]
        >>> stream.names[0]
        'image 1 (sha256 2b429841718c)'
    """
    return PictureStream(
        picture_source(pictures),
        transform,
        batch_size=batch_size,
        num_workers=num_workers,
        skip_broken=skip_broken,
        on_broken=on_broken,
    )


def _stacked(images: list[Tensor], names: list[str], start: int) -> PictureBatch:
    """A batch; the list is emptied, so that nothing is in memory twice."""
    together = torch.stack(images)
    images.clear()
    return PictureBatch(together, tuple(names), start)


def _kind(found: Any) -> str:
    return f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
