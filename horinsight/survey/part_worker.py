"""Measures the pictures of one part after the other: what every engine's workers do."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from horinsight.data.preprocess import preprocessing
from horinsight.mixers.blocks import chosen_blocks
from horinsight.models.provenance import weights_sha256
from horinsight.survey.part_files import Part, num_errors, write_part
from horinsight.survey.picture_lists import PictureSource
from horinsight.survey.picture_rows import PictureMeasured, PictureRow, Question, picture_seed, unreadable_row
from horinsight.survey.weight_sums import ClassSums

THREADS = 1  # of each worker: so numbers are the same whatever else runs, and workers do not wait for one another


@dataclass(frozen=True, eq=False)
class SurveyJob:
    """All that a worker needs to know; it is pickled.

    Attributes:
        folder: of the survey.
        model: what builds the model.
        weights_sha256: of its weights, so that no worker measures others.
        question: what is asked of each picture.
        source: where pictures come from.
        image_size: side in pixels that they are resized to; the model's when None.
    """

    folder: str
    model: Callable[[], nn.Module]
    weights_sha256: str
    question: Question
    source: PictureSource
    image_size: int | None


@dataclass(frozen=True)
class PartDone:
    """What a worker says of a part that it has finished.

    Attributes:
        number: of the part.
        num_pictures: in it.
        num_unreadable: of them.
        seconds: that it took, by the clock.
        cpu_seconds: that the worker's process computed.
        worker: its number or name.
        peak_bytes: the most memory that the worker has had so far.
    """

    number: int
    num_pictures: int
    num_unreadable: int
    seconds: float
    cpu_seconds: float
    worker: str
    peak_bytes: int


class PartWorker:
    """A model, ready to measure parts.

    Args:
        job: what to do.
        device: where the model goes.
        name: of the worker.

    Raises:
        ValueError: the model cannot be built, or has other weights than the survey's.
    """

    def __init__(self, job: SurveyJob, device: str = "cpu", name: str = "0") -> None:
        self.job, self.device, self.name = job, torch.device(device), name
        model = job.model().eval()
        if weights_sha256(model) != job.weights_sha256:
            raise ValueError("The weights that a worker loaded are not those that the survey was begun with.")
        self.model = model.to(self.device)
        size = None if job.image_size is None else (job.image_size, job.image_size)
        self.prepared = preprocessing(self.model, image_size=size)
        self.question = job.question

    def finish(self, part: Part) -> PartDone:
        """Measure the pictures of a part and write its rows.

        Raises:
            OSError: the part cannot be written.
        """
        begun, computed = time.monotonic(), time.process_time()
        rows: list[list[PictureRow]] = []
        sums = ClassSums()
        with _one_thread():
            for place, (name, label) in enumerate(zip(part.names, part.classes, strict=True)):
                found = self._found(part.start + place, name)
                rows.append(found.rows)
                sums.update(label, found.kept)
        sums.write(self.job.folder, part)  # first: a part is there when its rows are
        write_part(self.job.folder, part, rows)
        spent = time.monotonic() - begun, time.process_time() - computed
        return PartDone(part.number, len(part), num_errors(rows), *spent, self.name, _peak_bytes())

    def _found(self, index: int, name: str) -> PictureMeasured:
        try:
            picture = self.job.source.picture(index, name)
            image = self._image(picture)
        except Exception as error:  # whatever a decoder or a Dataset of anybody raises: a million others wait
            return PictureMeasured([unreadable_row(error)], {})
        try:
            return self._measured(image, picture_seed(self.question.seed, name))
        except MemoryError:
            return PictureMeasured([unreadable_row(MemoryError("out of memory: give a smaller --image-size"))], {})
        except ValueError as error:  # a size that the model does not take, of a Dataset's own tensors
            return PictureMeasured([unreadable_row(error)], {})

    def _image(self, picture: Any) -> Tensor:
        """(1, 3, H, W) on the model's device."""
        image: Tensor = picture if isinstance(picture, Tensor) else self.prepared(picture)
        if image.ndim != 3:
            raise ValueError(f"A prepared picture is expected as (3, H, W), got {tuple(image.shape)}.")
        return image[None].to(self.device)

    def _measured(self, image: Tensor, seed: int) -> PictureMeasured:
        """Measure one picture, with half as much at once wherever the memory does not suffice."""
        while True:
            size = (image.shape[2], image.shape[3])
            blocks = chosen_blocks(self.model, self.question.blocks, image_size=size)
            try:
                return self.question.measured(self.model, image, blocks, seed)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                smaller = self.question.smaller()
                if smaller is None:
                    raise MemoryError(str(error)) from error
                self.question = smaller
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def check_measurable(job: SurveyJob, model: nn.Module) -> list[dict[str, Any]]:
    """Measure one picture of noise, so that what can be measured of no picture is refused at once.

    Returns:
        The blocks that are measured: index, name and mixer.

    Raises:
        ValueError: a block that was asked for by its number cannot be measured, or none can.
    """
    size = None if job.image_size is None else (job.image_size, job.image_size)
    blank = preprocessing(model, image_size=size)(Image.new("RGB", (64, 64)))
    noise = torch.randn(blank.shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    blocks = chosen_blocks(model, job.question.blocks, image_size=(blank.shape[1], blank.shape[2]))
    with _one_thread():
        found = job.question.measured(model, noise[None], blocks, 0)
    refused = {row.block: row.error for row in found.rows if row.error is not None}
    if refused and (job.question.blocks is not None or len(refused) == len(blocks)):
        raise ValueError(str(next(iter(refused.values()))))
    return [{"index": block.index, "name": block.name, "mixer": block.mixer} for block in blocks]


def _is_out_of_memory(error: BaseException) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak_bytes() -> int:
    """The most memory that this process has had; 0 where that is not known."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
