"""A survey: a question asked of any number of pictures, kept part by part, that goes on where it was stopped."""

import copy
import functools
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from horinsight.models.provenance import model_provenance
from horinsight.models.registry import create_model
from horinsight.options import settings
from horinsight.survey.effects_by_picture import EffectsAsked
from horinsight.survey.local_engine import num_workers, parts_by_processes, parts_in_this_process
from horinsight.survey.mixing_by_picture import MixingAsked
from horinsight.survey.part_files import PARTS, Part, clear_halves, finished_parts, part_path, parts_of
from horinsight.survey.part_worker import PartDone, SurveyJob, check_measurable
from horinsight.survey.picture_lists import listed_pictures
from horinsight.survey.picture_rows import Question
from horinsight.survey.ray_engine import parts_by_ray
from horinsight.survey.reach_by_picture import ReachAsked
from horinsight.survey.survey_manifest import SurveyManifest, keep_manifest
from horinsight.survey.survey_options import SurveyOptions
from horinsight.whole_file import check_writable

Model = str | nn.Module | Callable[[], nn.Module]
QUESTIONS: dict[str, Callable[[], Question]] = {"ie": EffectsAsked, "mixing": MixingAsked, "reach": ReachAsked}


@dataclass(frozen=True)
class SurveyProgress:
    """How far a survey is.

    Attributes:
        num_pictures: of the list.
        num_parts: of the list.
        pictures_done: measured or named as unreadable, those of earlier runs among them.
        parts_done: likewise.
        pictures_now: by this run.
        num_unreadable: of them.
        last: what the worker said of the part finished last; None at the start.
    """

    num_pictures: int
    num_parts: int
    pictures_done: int
    parts_done: int
    pictures_now: int = 0
    num_unreadable: int = 0
    last: PartDone | None = None


def run_survey(
    model: Model,
    pictures: Any,
    output: str | os.PathLike[str],
    *,
    question: Question | Literal["ie", "mixing", "reach"] = "ie",
    options: SurveyOptions | None = None,
    model_name: str | None = None,
    on_part: Callable[[SurveyProgress], None] | None = None,
) -> SurveyManifest:
    """Ask a question of every picture and keep the rows in a folder, part by part; go on where that was stopped.

    Every picture is measured by itself, with draws of its own by its name: a row depends neither on parts nor on
    workers nor on the engine. Ctrl-C and SIGTERM keep the finished parts; the same call goes on.

    Args:
        model: a name for `create_model`, a network (which is pickled for the workers), or a picklable function that
            builds one.
        pictures: a folder, a list of paths in a text file, or a torch Dataset, see `listed_pictures`.
        output: the folder; made if missing. `load_survey` reads it, also while the survey runs.
        question: `EffectsAsked`, `MixingAsked` or `ReachAsked`, or one by its name with its defaults.
        options: how it is run; the defaults when None.
        model_name: for the manifest; the name under which timm built it when None.
        on_part: called at the start and after each part.

    Returns:
        What the survey is of.

    Raises:
        ValueError: the folder holds another survey (says what differs), no pictures, a block that cannot be measured.
        OSError: a part cannot be written; those that are there are kept.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from horinsight.survey.survey_frame import load_survey
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "blue").mkdir()
        ...     Image.radial_gradient("L").resize((64, 64)).save(Path(folder) / "blue" / "a.png")
        ...     asked = EffectsAsked(blocks=[1])
        ...     options = SurveyOptions(workers=0, image_size=64)
        ...     _ = run_survey("hornet_test_iso", folder, Path(folder) / "out", question=asked, options=options)
        ...     frame = load_survey(Path(folder) / "out")
        >>> frame[frame.quantity == "order"][["image", "class", "block", "value"]].values.tolist()
        [['blue/a.png', 'blue', 1, 3.0]]
    """
    options = options or SurveyOptions()
    asked = QUESTIONS[question]() if isinstance(question, str) else question
    folder = Path(output)
    listed = listed_pictures(pictures)
    built = _builder(model)
    network = built().eval()
    origin = model_provenance(network, model_name=model_name or (model if isinstance(model, str) else None))
    job = SurveyJob(str(folder.resolve()), built, origin.weights_sha256, asked, listed.source, options.image_size)
    manifest = keep_manifest(
        SurveyManifest(
            question=asked.name,
            model=origin.model,
            weights=origin.weights,
            trained=origin.trained,
            weights_sha256=origin.weights_sha256,
            settings={**asked.settings(), "image_size": settings(options)["image_size"]},
            blocks=check_measurable(job, network),
            num_pictures=len(listed),
            pictures=listed.where,
            pictures_sha256=listed.sha256,
            part_size=options.part_size,
            versions=origin.versions,
        ),
        folder,
    )
    del network
    (folder / PARTS).mkdir(exist_ok=True)
    done = finished_parts(folder)
    missing = sorted(set(range(manifest.num_parts)) - set(done))
    size = manifest.part_size
    pictures_done = sum(min(size, len(listed) - number * size) for number in done)
    progress = SurveyProgress(len(listed), manifest.num_parts, pictures_done, len(done))
    if on_part is not None:
        on_part(progress)
    if missing:
        check_writable(part_path(folder, missing[0]))
        parts = parts_of(listed, size, missing)
        with _interrupted_by_sigterm(), closing(_measured(job, parts, options, len(missing))) as found:
            try:
                for one in found:
                    progress = _after(progress, one)
                    if on_part is not None:
                        on_part(progress)
            except OSError as error:
                raise OSError(f"{error} Finished parts are kept: the same call goes on.") from error
    clear_halves(folder)
    return manifest


def _measured(job: SurveyJob, parts: Iterable[Part], options: SurveyOptions, num_parts: int) -> Generator[PartDone]:
    """Parts as the engine finishes them."""
    if options.engine == "ray":
        workers = None if options.workers is None else min(options.workers, num_parts)
        yield from parts_by_ray(job, parts, workers, options.ray_address)
    elif options.workers == 0:
        yield from parts_in_this_process(job, parts)
    else:
        yield from parts_by_processes(job, parts, min(num_workers(options.workers), num_parts))


def _after(progress: SurveyProgress, done: PartDone) -> SurveyProgress:
    return replace(
        progress,
        pictures_done=progress.pictures_done + done.num_pictures,
        parts_done=progress.parts_done + 1,
        pictures_now=progress.pictures_now + done.num_pictures,
        num_unreadable=progress.num_unreadable + done.num_unreadable,
        last=done,
    )


def _builder(model: Model) -> Callable[[], nn.Module]:
    if isinstance(model, str):
        return functools.partial(create_model, model)
    if not isinstance(model, nn.Module):
        return model
    try:
        return functools.partial(pickle.loads, pickle.dumps(copy.deepcopy(model).cpu()))
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be pickled for the workers ({error}): pass a function that builds it."
        ) from error


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a survey as Ctrl-C does: workers are let go, finished parts stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
