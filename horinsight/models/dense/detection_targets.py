"""What a detector learns from, checked before it runs: boxes, labels and masks of each picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

TARGET_KEYS = ("boxes", "labels", "masks")


def check_targets(targets: Any, pictures: Sequence[Tensor], num_classes: int) -> None:
    """Refuse targets that do not fit their pictures.

    Args:
        targets: for each picture boxes (N, 4) as x1, y1, x2, y2 in its pixels, labels (N,) from 1 to `num_classes`, and
            masks (N, H, W).
        pictures: (C, H, W) each.
        num_classes: without the background, which is 0 and labels nothing.

    Raises:
        ValueError: says which target, what was expected and what came.

    Example:
        >>> check_targets([{"boxes": torch.zeros(0, 4)}], [torch.zeros(3, 64, 64)], 80)
        Traceback (most recent call last):
            ...
        ValueError: targets[0] expects boxes, labels and masks, got boxes: labels, masks are missing.
    """
    if targets is None:
        raise ValueError("A detector in training mode expects targets, got none: pass them, or call .eval() first.")
    if isinstance(targets, Mapping) or not isinstance(targets, Sequence) or len(targets) != len(pictures):
        got = len(targets) if isinstance(targets, Sequence) else type(targets).__name__
        raise ValueError(f"targets expects a list of one dictionary per picture, {len(pictures)} here, got {got}.")
    for index, (target, picture) in enumerate(zip(targets, pictures, strict=True)):
        _check_keys(f"targets[{index}]", target)
        _check_shapes(f"targets[{index}]", target, picture)
        _check_values(f"targets[{index}]", target, picture, num_classes)


def _check_keys(name: str, target: Any) -> None:
    if not isinstance(target, Mapping):
        raise ValueError(f"{name} expects a dictionary of boxes, labels and masks, got {type(target).__name__}.")
    missing = [key for key in TARGET_KEYS if key not in target]
    if missing:
        given = ", ".join(map(str, target)) or "nothing"
        raise ValueError(f"{name} expects boxes, labels and masks, got {given}: {', '.join(missing)} are missing.")
    for key in TARGET_KEYS:
        if not isinstance(target[key], Tensor):
            raise ValueError(f"{name}[{key!r}] expects a tensor, got {type(target[key]).__name__}.")


def _check_shapes(name: str, target: Mapping[str, Tensor], picture: Tensor) -> None:
    boxes, labels, masks = (target[key] for key in TARGET_KEYS)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name}['boxes'] expects shape (N, 4), got {tuple(boxes.shape)}.")
    if tuple(labels.shape) != (len(boxes),):
        raise ValueError(f"{name}['labels'] expects shape ({len(boxes)},), one a box, got {tuple(labels.shape)}.")
    expected = (len(boxes), *picture.shape[-2:])
    if tuple(masks.shape) != expected:
        raise ValueError(f"{name}['masks'] expects shape {expected}, one a box, got {tuple(masks.shape)}.")


def _check_values(name: str, target: Mapping[str, Tensor], picture: Tensor, num_classes: int) -> None:
    boxes, labels = target["boxes"], target["labels"]
    if not boxes.is_floating_point():
        raise ValueError(f"{name}['boxes'] expects floating-point numbers, got {boxes.dtype}.")
    if labels.dtype != torch.int64:
        raise ValueError(f"{name}['labels'] expects int64, got {labels.dtype}.")
    if not len(boxes):
        return
    height, width = picture.shape[-2:]
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(1)  # NaN, too
    if empty.any():
        at = int(empty.nonzero()[0])
        raise ValueError(f"{name}['boxes'][{at}] expects x1 < x2 and y1 < y2, got {boxes[at].tolist()} without area.")
    outside = (boxes < 0).any(1) | (boxes[:, 2] > width) | (boxes[:, 3] > height)
    if outside.any():
        at = int(outside.nonzero()[0])
        raise ValueError(
            f"{name}['boxes'][{at}] expects a box inside its picture of {height}x{width} pixels (height x width), "
            f"got {boxes[at].tolist()}."
        )
    if int(labels.min()) < 1 or int(labels.max()) > num_classes:
        wrong = int(labels[(labels < 1) | (labels > num_classes)][0])
        raise ValueError(f"{name}['labels'] expects 1 to {num_classes} (0 is the background), got {wrong}.")
