"""Trains any registered model with timm's optimiser, schedule, augmentation and weight averaging.

One process or several (`torchrun`). A checkpoint in the published layout is written after each epoch, whole or not at
all; every epoch starts from seeds of its own, so that a run that was killed and resumed ends with the same weights.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm.data
import torch
import torch.distributed as dist
from timm.data import Mixup, create_transform
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset

from horinsight.capture import evaluation
from horinsight.data.datasets import LabelledImages, PreparedImages
from horinsight.data.preprocess import preprocessing
from horinsight.models.registry import create_model, weights_sha256
from horinsight.results import Result, plain
from horinsight.training.recipe import Recipe
from horinsight.whole_file import check_writable, whole_file

CHECKPOINT, LOG, WEIGHTS = "checkpoint.pth", "log.jsonl", "weights.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class EpochLog(Result):
    """One line of the log.

    Attributes:
        epoch: from 1.
        loss: mean training loss.
        lr: learning rate of the last update.
        accuracy: share of the held-out pictures that the present weights classify rightly.
        ema_accuracy: that of the averaged weights.
    """

    epoch: int
    loss: float
    lr: float
    accuracy: float
    ema_accuracy: float


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
    seed: int = 0,
    resume: bool = False,
    device: str = "cpu",
    accumulate: int = 1,
    num_workers: int = 0,
    on_epoch: Callable[[EpochLog], None] | None = None,
    **options: Any,
) -> TrainedModel:
    """Train a model and keep its checkpoints.

    Args:
        model_name: any model of `create_model`.
        images: to train on.
        held_out: to measure with; never trained on.
        recipe: how.
        output: folder for `checkpoint.pth` (present and averaged weights, optimiser, epoch, in the published layout),
            `log.jsonl` (a line per epoch) and, at the end, `weights.safetensors` (averaged).
        seed: of the first weights, the order of the pictures and the augmentation.
        resume: go on from the checkpoint in `output`, if there is one.
        device: "cpu" or "cuda".
        accumulate: parts that a batch is computed in, where it does not fit into memory.
        num_workers: processes that prepare pictures.
        on_epoch: called after each epoch, in the first process.
        **options: for the model's constructor.

    Returns:
        The model with its averaged weights.

    Raises:
        ValueError: a checkpoint of another run, a batch that the processes or parts do not divide, or fewer pictures
            than a batch.
        OSError: the folder cannot be written.
    """
    rank, world = _process()
    part = recipe.batch_size // (world * accumulate)
    if part * world * accumulate != recipe.batch_size or len(images) < recipe.batch_size:
        raise ValueError(
            f"A batch of {recipe.batch_size} is expected to be divisible by {world} processes x {accumulate} parts and "
            f"not to exceed the {len(images)} pictures: choose another batch size."
        )
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / CHECKPOINT)
    made = {**(recipe.options or {}), "drop_path_rate": recipe.drop_path_rate, **options}
    settings = {
        "model": model_name,
        "recipe": plain(recipe),
        "options": made,
        "seed": seed,
        "data": images.name,
        "num_images": len(images),
        "classes": list(images.classes),
    }
    with torch.random.fork_rng(devices=[]), _numpy_state():
        run = _Run(model_name, images, held_out, recipe, made, seed, device, part, accumulate, num_workers)
        log = run.restore(folder / CHECKPOINT, settings) if resume and (folder / CHECKPOINT).exists() else []
        for epoch in range(len(log), recipe.epochs):
            line = run.epoch(epoch)
            log.append(line)
            if rank == 0:
                run.save(folder, settings, log)
                if on_epoch is not None:
                    on_epoch(line)
        model = run.ema.module.eval()
        if rank == 0:
            with whole_file(folder / WEIGHTS, "wb") as file:
                file.write(safetensors.torch.save({k: v.cpu().contiguous() for k, v in model.state_dict().items()}))
    return TrainedModel(model, tuple(log), weights_sha256(model))


class _Run:
    """The moving parts of one training run."""

    def __init__(
        self,
        model_name: str,
        images: LabelledImages,
        held_out: LabelledImages,
        recipe: Recipe,
        options: Mapping[str, Any],
        seed: int,
        device: str,
        part: int,
        accumulate: int,
        num_workers: int,
    ) -> None:
        self.recipe, self.seed, self.device, self.part, self.accumulate = recipe, seed, device, part, accumulate
        self.rank, self.world = _process()
        classes = len(images.classes)
        self.model = create_model(model_name, seed=seed, **{"num_classes": classes, **options}).to(device).train()
        self.ema = ModelEmaV3(self.model, decay=recipe.ema_decay)
        self.optimiser = create_optimizer_v2(self.model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.updates = len(images) // recipe.batch_size  # per epoch; the rest waits for another order
        self.schedule = CosineLRScheduler(
            self.optimiser,
            t_initial=recipe.epochs * self.updates,
            lr_min=recipe.min_lr,
            warmup_t=recipe.warmup_epochs * self.updates,
            warmup_lr_init=recipe.warmup_lr,
            t_in_epochs=False,
        )
        self.parallel: nn.Module = self.model if self.world == 1 else DistributedDataParallel(self.model)
        mixes = recipe.mixup > 0 or recipe.cutmix > 0
        self.mixup = (
            Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=classes) if mixes else None
        )
        self.loss: nn.Module = SoftTargetCrossEntropy() if mixes else LabelSmoothingCrossEntropy(recipe.smoothing)
        config = timm.data.resolve_model_data_config(self.model)
        transform = create_transform(
            config["input_size"],
            is_training=True,
            scale=(recipe.crop_scale, 1.0),
            ratio=recipe.crop_ratio,
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter,
            auto_augment=recipe.auto_augment or None,
            re_prob=recipe.erasing,
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
        )
        self.images = PreparedImages(images, transform, seed=seed)
        self.held_out = PreparedImages(held_out, preprocessing(self.model))
        self.num_workers = num_workers

    def epoch(self, epoch: int) -> EpochLog:
        """One pass over the data."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, epoch, self.rank)).generate_state(1)[0]))
        np.random.seed(int(np.random.SeedSequence((self.seed, epoch, self.rank)).generate_state(2)[1]))  # noqa: NPY002
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        order = order[: self.updates * self.recipe.batch_size].reshape(self.updates, self.recipe.batch_size)
        mine = order[:, self.rank :: self.world].reshape(-1)
        self.images.epoch = epoch
        loader = DataLoader(Subset(self.images, mine.tolist()), batch_size=self.part, num_workers=self.num_workers)
        self.parallel.train()
        total = torch.zeros((), dtype=torch.float64)
        for step, (x, label) in enumerate(loader):
            x, target = x.to(self.device), label.to(self.device)
            if self.mixup is not None:
                x, target = self.mixup(x, target)
            last = (step + 1) % self.accumulate == 0
            waits = isinstance(self.parallel, DistributedDataParallel) and not last
            with self.parallel.no_sync() if waits else nullcontext():  # type: ignore[operator]
                loss = self.loss(self.parallel(x), target) / self.accumulate
                loss.backward()
            total += float(loss.detach())
            if last:
                self._update(epoch * self.updates + (step + 1) // self.accumulate)
        if self.world > 1:
            dist.all_reduce(total)
        mean_loss = float(total) / (self.updates * self.world)
        if not math.isfinite(mean_loss):
            raise ValueError(f"The loss of epoch {epoch + 1} is {mean_loss}: lower the learning rate.")
        return EpochLog(
            epoch + 1,
            mean_loss,
            float(self.optimiser.param_groups[0]["lr"]),
            self._accuracy(self.model.eval()),
            self._accuracy(self.ema.module.eval()),
        )

    def _update(self, count: int) -> None:
        if self.recipe.clip_grad > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update(self.model)
        self.schedule.step_update(count)

    def _accuracy(self, model: nn.Module) -> float:
        loader = DataLoader(self.held_out, batch_size=max(self.part, 64), num_workers=self.num_workers)
        return _num_right(model, loader, self.device) / len(self.held_out)

    def save(self, folder: Path, settings: Mapping[str, Any], log: list[EpochLog]) -> None:
        """The checkpoint first, then the log that belongs to it."""
        content = {
            "model": self.model.state_dict(),
            "model_ema": self.ema.module.state_dict(),
            "optimizer": self.optimiser.state_dict(),
            "epoch": len(log) - 1,
            "settings": json.dumps(settings),
            "log": [dataclasses.asdict(line) for line in log],
        }
        with whole_file(folder / CHECKPOINT, "wb") as file:
            torch.save(content, file)
        with whole_file(folder / LOG) as file:
            file.writelines(json.dumps(dataclasses.asdict(line)) + "\n" for line in log)

    def restore(self, path: Path, settings: Mapping[str, Any]) -> list[EpochLog]:
        """Take up what `save` kept.

        Raises:
            ValueError: it is another run's.
        """
        content = torch.load(path, map_location=self.device, weights_only=True)
        kept = json.loads(content["settings"]) if isinstance(content, dict) and "settings" in content else None
        wanted = json.loads(json.dumps(settings))
        if kept != wanted:
            differs = sorted(key for key in wanted if kept is None or kept.get(key) != wanted[key])
            raise ValueError(
                f"{path} is the checkpoint of another run ({', '.join(differs)} differ): repeat its command, or choose "
                "another folder."
            )
        self.model.load_state_dict(content["model"])
        self.ema.module.load_state_dict(content["model_ema"])
        self.optimiser.load_state_dict(content["optimizer"])
        log = [EpochLog(**line) for line in content["log"]]
        self.schedule.step_update(len(log) * self.updates)
        return log


def _process() -> tuple[int, int]:
    """(rank, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def processes_of_torchrun() -> Iterator[int]:
    """Join the other processes if `torchrun` started this one; gives the rank, 0 if it did not."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) < 2:
        yield 0
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


@contextmanager
def _numpy_state() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def accuracy(model: nn.Module, images: LabelledImages, *, batch_size: int = 128) -> float:
    """Share of the pictures that a model classifies rightly.

    Args:
        model: a classifier of as many classes as the pictures have.
        images: with their labels, prepared as the model expects them.
        batch_size: pictures at once.
    """
    prepared = PreparedImages(images, preprocessing(model))
    with evaluation(model):
        return _num_right(model, DataLoader(prepared, batch_size=batch_size), "cpu") / len(images)


@torch.inference_mode()
def _num_right(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], device: str) -> int:
    """How many pictures of a loader a model classifies rightly."""
    return sum(int((model(x.to(device)).argmax(1).cpu() == label).sum()) for x, label in loader)
