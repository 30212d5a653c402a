"""The moving parts of one training run: an epoch, and what is kept of it."""

import dataclasses
import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm.data
import torch
import torch.distributed as dist
from timm.data import Mixup, create_transform
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset

from horinsight.data.datasets import LabelledImages, PreparedImages
from horinsight.data.preprocess import preprocessing
from horinsight.results import Result
from horinsight.training.accuracy import num_right
from horinsight.training.processes import rank_and_world
from horinsight.training.recipe import Recipe
from horinsight.training.training_options import TrainingOptions
from horinsight.whole_file import whole_file

CHECKPOINT, LOG = "checkpoint.pth", "log.jsonl"


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


class TrainingRun:
    """A model with its optimiser, schedule, averaged weights and data.

    Args:
        model: with its first weights.
        images: to train on.
        held_out: to measure with.
        recipe: how.
        options: seed, device, parts of a batch, processes.

    Raises:
        ValueError: see `batch_part`.
    """

    def __init__(
        self,
        model: nn.Module,
        images: LabelledImages,
        held_out: LabelledImages,
        recipe: Recipe,
        options: TrainingOptions,
    ) -> None:
        self.recipe, self.options = recipe, options
        self.rank, self.world = rank_and_world()
        self.part = batch_part(recipe, options, len(images))
        self.model = model.to(options.device).train()
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
        smoothing, classes = recipe.smoothing, len(images.classes)
        self.mixup = (
            Mixup(recipe.mixup, recipe.cutmix, label_smoothing=smoothing, num_classes=classes) if mixes else None
        )
        self.loss: nn.Module = SoftTargetCrossEntropy() if mixes else LabelSmoothingCrossEntropy(smoothing)
        self.images = PreparedImages(images, _augmentation(self.model, recipe), seed=options.seed)
        self.held_out = PreparedImages(held_out, preprocessing(self.model))

    def epoch(self, epoch: int) -> EpochLog:
        """One pass over the data."""
        torch.manual_seed(int(np.random.SeedSequence((self.options.seed, epoch, self.rank)).generate_state(1)[0]))
        np.random.seed(int(np.random.SeedSequence((self.options.seed, epoch, self.rank)).generate_state(2)[1]))  # noqa: NPY002
        order = np.random.default_rng((self.options.seed, epoch)).permutation(len(self.images))
        order = order[: self.updates * self.recipe.batch_size].reshape(self.updates, self.recipe.batch_size)
        mine = order[:, self.rank :: self.world].reshape(-1)
        self.images.epoch = epoch
        loader = DataLoader(
            Subset(self.images, mine.tolist()), batch_size=self.part, num_workers=self.options.num_workers
        )
        self.parallel.train()
        total = torch.zeros((), dtype=torch.float64)
        for step, (x, label) in enumerate(loader):
            x, target = x.to(self.options.device), label.to(self.options.device)
            if self.mixup is not None:
                x, target = self.mixup(x, target)
            last = (step + 1) % self.options.accumulate == 0
            waits = isinstance(self.parallel, DistributedDataParallel) and not last
            with self.parallel.no_sync() if waits else nullcontext():  # type: ignore[operator]
                loss = self.loss(self.parallel(x), target) / self.options.accumulate
                loss.backward()
            total += float(loss.detach())
            if last:
                self._update(epoch * self.updates + (step + 1) // self.options.accumulate)
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
        loader = DataLoader(self.held_out, batch_size=max(self.part, 64), num_workers=self.options.num_workers)
        return num_right(model, loader, self.options.device) / len(self.held_out)

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
        content = torch.load(path, map_location=self.options.device, weights_only=True)
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


def batch_part(recipe: Recipe, options: TrainingOptions, num_images: int) -> int:
    """How many pictures one process computes at once.

    Raises:
        ValueError: a batch that the processes or parts do not divide, or fewer pictures than a batch.
    """
    _, world = rank_and_world()
    part = recipe.batch_size // (world * options.accumulate)
    if part * world * options.accumulate != recipe.batch_size or num_images < recipe.batch_size:
        raise ValueError(
            f"A batch of {recipe.batch_size} is expected to be divisible by {world} processes x {options.accumulate} "
            f"parts and not to exceed the {num_images} pictures: choose another batch size."
        )
    return part


def _augmentation(model: nn.Module, recipe: Recipe) -> Any:
    config = timm.data.resolve_model_data_config(model)
    return create_transform(
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
