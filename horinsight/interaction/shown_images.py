"""What a model is shown, whether it is one batch or many."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from horinsight.capture import image_size_of
from horinsight.data.picture_batches import BATCH_SIZE, PictureBatch, tensor_stream
from horinsight.data.picture_stream import PictureStream
from horinsight.models.provenance import picture_names


@dataclass(frozen=True, eq=False)
class ShownPictures:
    """Images, in batches; together where one batch holds all.

    Attributes:
        batches: the same ones each time that they are gone through.
        count: of all images.
        size: (H, W).
        names: gives the images' names.
        together: all of them, where a batch holds them.
    """

    batches: Iterable[PictureBatch]
    count: int
    size: tuple[int, int]
    names: Callable[[], Sequence[str]]
    together: Tensor | None

    @classmethod
    def of(cls, images: Tensor | PictureStream) -> "ShownPictures":
        """Of a tensor (B, 3, H, W), or a stream.

        Raises:
            ValueError: no image, or images that do not fit.
        """
        if isinstance(images, PictureStream):
            alone, stream = images.one_batch(), images
            together = None if alone is None else alone.images
            return cls(stream, len(stream), stream.image_size, lambda: stream.names, together)
        size = image_size_of(images)
        batches, count = list(tensor_stream(images, ("",) * len(images))), len(images)
        return cls(batches, count, size, lambda: picture_names(images), images if count <= BATCH_SIZE else None)
