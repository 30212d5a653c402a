"""Trains any registered model with timm's optimiser, schedule, augmentation and weight averaging.

One process or several (`torchrun`). A checkpoint in the published layout is written after each epoch, whole or not at
all; every epoch starts from seeds of its own, so that a run that was killed and resumed ends with the same weights.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from horinsight.data.datasets import LabelledImages
from horinsight.models.origin import WeightsOrigin, set_weights_origin
from horinsight.models.provenance import weights_sha256
from horinsight.models.registry import create_model
from horinsight.options import made
from horinsight.results import plain
from horinsight.training.recipe import Recipe
from horinsight.training.training_options import TrainingOptions
from horinsight.training.training_run import CHECKPOINT, EpochLog, TrainingRun, batch_part
from horinsight.whole_file import check_writable, whole_file

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class TrainedModel:
    """What training ends with.

    Attributes:
        model: with the averaged weights, in eval mode.
        log: a line per epoch.
        weights_sha256: of the averaged weights.
    """

    model: nn.Module
    log: tuple[EpochLog, ...]
    weights_sha256: str


def train(
    model_name: str,
    images: LabelledImages,
    held_out: LabelledImages,
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    options: TrainingOptions | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
    **given: Any,
) -> TrainedModel:
    """Train a model and keep its checkpoints.

    Args:
        model_name: any model of `create_model`.
        images: to train on.
        held_out: to measure with; never trained on.
        recipe: how.
        output: folder for `checkpoint.pth` (present and averaged weights, optimiser, epoch, in the published layout),
            `log.jsonl` (a line per epoch) and, at the end, `weights.safetensors` (averaged).
        options: seed, device, parts of a batch, processes, whether to resume.
        on_epoch: called after each epoch, in the first process.
        **given: fields of `TrainingOptions` as keyword arguments; the others are for the model's constructor.

    Returns:
        The model with its averaged weights.

    Raises:
        ValueError: a checkpoint of another run, a batch that the processes or parts do not divide, or fewer pictures
            than a batch.
        OSError: the folder cannot be written.
    """
    own = {field.name for field in dataclasses.fields(TrainingOptions)}
    options = made(TrainingOptions, options, {k: v for k, v in given.items() if k in own}, caller="train")
    layout = {"drop_path_rate": recipe.drop_path_rate, **{k: v for k, v in given.items() if k not in own}}
    layout = {**(recipe.options or {}), **layout}
    batch_part(recipe, options, len(images))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / CHECKPOINT)
    settings = {
        "model": model_name,
        "recipe": plain(recipe),
        "options": layout,
        "seed": options.seed,
        "data": images.name,
        "num_images": len(images),
        "classes": list(images.classes),
    }
    with torch.random.fork_rng(devices=[]), _numpy_state():
        model = create_model(
            model_name, seed=options.seed, **{"num_classes": len(images.classes), "pretrained": False, **layout}
        )
        run = TrainingRun(model, images, held_out, recipe, options)
        resumes = options.resume and (folder / CHECKPOINT).exists()
        log = run.restore(folder / CHECKPOINT, settings) if resumes else []
        for epoch in range(len(log), recipe.epochs):
            log.append(run.epoch(epoch))
            if run.rank == 0:
                run.save(folder, settings, log)
                if on_epoch is not None:
                    on_epoch(log[-1])
        averaged = run.ema.module.eval()
        origin = f"trained: {images.name}, {len(log)} epochs from seed {options.seed}, averaged weights"
        set_weights_origin(averaged, WeightsOrigin(origin, trained=True))
        if run.rank == 0:
            with whole_file(folder / WEIGHTS, "wb") as file:
                file.write(safetensors.torch.save({k: v.cpu().contiguous() for k, v in averaged.state_dict().items()}))
    return TrainedModel(averaged, tuple(log), weights_sha256(averaged))


@contextmanager
def _numpy_state() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
